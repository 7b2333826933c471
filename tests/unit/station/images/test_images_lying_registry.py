"""Registries that lie, wander off, or never end: each is refused, and what was meant for the registry goes nowhere else."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from board_kit import https_server
from images_kit import ImageStation, config_of, layer_of
from layer_kit import gzipped, header, layer
from registry_kit import Answer, LyingRegistry, lying_registry, say

from policies.documents import digest_of
from policies.errors import NetworkError, NotFoundError, RefusedError, SettingsError, WireError
from policies.refusals import RefusalCode
from policies.wire import steady
from policies.wire.oci_auth import Challenge, Credentials
from policies.wire.oci_trains import image_tag
from station.images.sources import SourcedLayer

LAYER = layer_of("one")
PACKED = gzipped(LAYER)
CONFIG = config_of(LAYER)
IMAGE = digest_of(CONFIG)
OCI = "application/vnd.oci.image"


def described(data: bytes, kind: str = "layer.v1.tar+gzip", **changes: Any) -> dict[str, Any]:
    return {"mediaType": f"{OCI}.{kind}", "digest": digest_of(data), "size": len(data), **changes}


def manifest(**changes: Any) -> bytes:
    honest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": described(CONFIG, "config.v1+json"),
        "layers": [described(PACKED)],
        "annotations": {"made": "elsewhere"},
    }
    return json.dumps(honest | changes).encode()


def honest(**changes: Answer | bytes) -> dict[str, Answer | bytes]:
    answers: dict[str, Answer | bytes] = {
        image_tag(IMAGE): manifest(), digest_of(CONFIG): CONFIG, digest_of(PACKED): PACKED, digest_of(LAYER): LAYER,
    }  # fmt: skip
    return answers | {
        image_tag(IMAGE) if name == "manifest" else name: each for name, each in changes.items()
    }


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LyingRegistry]:
    with lying_registry(tmp_path_factory.mktemp("liar")) as running:
        yield running


StationWith = Callable[..., contextlib.AbstractContextManager[ImageStation]]


@pytest.fixture
def station_with(liar: LyingRegistry, tmp_path: Path) -> StationWith:
    @contextlib.contextmanager
    def with_answers(answers: dict[str, Answer | bytes], **more: object) -> Iterator[ImageStation]:
        with liar.source(answers, **more) as source:
            yield ImageStation(tmp_path / "layers", source)  # type: ignore[arg-type]

    return with_answers


def test_the_honest_one_is_taken(station_with: StationWith) -> None:
    with station_with(honest()) as station:
        assert station.store.fetch(IMAGE) == len(CONFIG) + len(PACKED)


def test_layers_that_are_not_packed_are_taken(station_with: StationWith) -> None:
    plain = manifest(layers=[described(LAYER, "layer.v1.tar")])
    with station_with(honest(manifest=plain)) as station:
        assert station.store.fetch(IMAGE) == len(CONFIG) + len(LAYER)


def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def says_packed(handler: http.server.BaseHTTPRequestHandler) -> None:
    say(handler, gzipped(CONFIG), Content_Encoding="gzip")


LIES: dict[str, tuple[dict[str, Answer | bytes], type[Exception]]] = {
    "nothing": ({"manifest": b""}, NetworkError),
    "no JSON": ({"manifest": b"{"}, NetworkError),
    "a list": ({"manifest": b"[]"}, NetworkError),
    "deep": ({"manifest": b"[" * 5000}, NetworkError),
    "too long": ({"manifest": b" " * (2 << 20)}, NetworkError),
    "endless manifest": ({"manifest": endless}, NetworkError),
    "endless config": ({digest_of(CONFIG): endless}, NetworkError),
    "endless layer": ({digest_of(PACKED): endless}, WireError),
    "an index of images": ({"manifest": json.dumps({"schemaVersion": 2, "manifests": []}).encode()}, NetworkError),
    "schema 1": ({"manifest": manifest(schemaVersion=1)}, NetworkError),
    "another image": ({"manifest": manifest(config=described(b"{}", "config.v1+json"))}, WireError),
    "another config": ({digest_of(CONFIG): config_of(b"x")}, WireError),
    "packed config": ({digest_of(CONFIG): says_packed}, NetworkError),
    "more layers": ({"manifest": manifest(layers=[described(PACKED)] * 2)}, WireError),
    "no layers": ({"manifest": manifest(layers=[])}, NetworkError),
    "too many layers": ({"manifest": manifest(layers=[described(PACKED)] * 128)}, NetworkError),
    "no digest": ({"manifest": manifest(layers=[described(PACKED, digest="../../etc/passwd")])}, NetworkError),
    "sha512": ({"manifest": manifest(layers=[described(PACKED, digest="sha512:" + "0" * 128)])}, NetworkError),
    "negative size": ({"manifest": manifest(layers=[described(PACKED, size=-1)])}, NetworkError),
    "huge size": ({"manifest": manifest(layers=[described(PACKED, size=1 << 60)])}, NetworkError),
    "larger than said": ({"manifest": manifest(layers=[described(PACKED, size=len(PACKED) - 5)])}, WireError),
    "smaller than said": ({"manifest": manifest(layers=[described(PACKED, size=len(PACKED) + 5)])}, WireError),
    "zstd": ({"manifest": manifest(layers=[described(PACKED, "layer.v1.tar+zstd")])}, WireError),
    "foreign": ({"manifest": manifest(layers=[described(PACKED, "layer.nondistributable.v1.tar+gzip")])}, WireError),
    "wrong bytes": ({digest_of(PACKED): PACKED[:-1] + b"!"}, WireError),
    "not packed": ({"manifest": manifest(layers=[described(LAYER)])}, WireError),
    "packed twice": (
        {"manifest": manifest(layers=[described(gzipped(PACKED))]), digest_of(gzipped(PACKED)): gzipped(PACKED)},
        WireError),
    "another layer": (
        {"manifest": manifest(layers=[described(gzipped(layer_of("two")))]),
         digest_of(gzipped(layer_of("two"))): gzipped(layer_of("two"))},
        WireError),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found_and_nothing_of_it_is_kept(station_with: StationWith, lie: str) -> None:
    changes, expected = LIES[lie]
    with station_with(honest(**changes)) as station:
        with pytest.raises(expected):
            station.store.fetch(IMAGE)
        assert station.store.images() == []
        assert station.kept() <= {IMAGE}
        assert station.store.used() < 10_000
    # And it does no harm to the honest answer.
    with station_with(honest()) as again:
        assert again.store.fetch(IMAGE) > 0


def test_a_hostile_layer_is_refused_by_its_own_code(station_with: StationWith) -> None:
    hostile = layer(header(b"etc/../../x"))
    config, packed = config_of(hostile), gzipped(hostile)
    answers: dict[str, Answer | bytes] = {
        image_tag(digest_of(config)): manifest(config=described(config, "config.v1+json"), layers=[described(packed)]),
        digest_of(config): config,
        digest_of(packed): packed,
    }  # fmt: skip
    with station_with(answers) as station, pytest.raises(RefusedError) as caught:
        station.store.fetch(digest_of(config))
    assert caught.value.code == RefusalCode.IMAGE_LAYER


def test_a_registry_that_drips_is_given_up(
    liar: LyingRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady, "EXCHANGE_S", 0.2)
    monkeypatch.setattr("station.images.registry.client._TRIES", 1)
    over, to_the_end = threading.Event(), threading.Event()
    size = 200

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        say(handler, b"", Content_Length=str(size))
        with contextlib.suppress(OSError):
            for _ in range(size):
                handler.wfile.write(b"x")
                if over.wait(0.02):
                    return
            to_the_end.set()

    with liar.source({digest_of(PACKED): drip}) as source:
        try:
            with pytest.raises(NetworkError):
                source.download(
                    SourcedLayer(digest_of(LAYER), digest_of(PACKED), size, "gzip"), tmp_path / "part"
                )
        finally:
            over.set()
    assert not to_the_end.is_set()


@pytest.mark.parametrize("lie", ["from elsewhere", "longer", "another whole"])
def test_a_range_that_is_not_the_one_asked_for(station_with: StationWith, tmp_path: Path, lie: str) -> None:
    size = len(PACKED)
    ranges = {
        "from elsewhere": f"bytes 0-{size - 1}/{size}",
        "longer": f"bytes 100-{size + 99}/{size + 100}",
        "another whole": f"bytes 100-{size - 1}/*",
    }

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        assert handler.headers["range"] == "bytes=100-"
        say(handler, PACKED[100:], 206, Content_Range=ranges[lie])

    with station_with(honest(**{digest_of(PACKED): answer})) as station:
        incoming = tmp_path / "layers" / "incoming"
        incoming.mkdir(parents=True)
        (incoming / digest_of(PACKED).removeprefix("sha256:")).write_bytes(PACKED[:100])
        with pytest.raises(NetworkError):
            station.store.fetch(IMAGE)


@pytest.mark.parametrize(
    "left", [PACKED[:100], b"!" * 100, PACKED + b"more", PACKED], ids=["cut", "wrong", "longer", "whole"]
)
def test_what_an_earlier_try_left_is_used_or_found_wrong(
    station_with: StationWith, tmp_path: Path, left: bytes
) -> None:
    """The server does not know ranges: it sends all of it, and all of it replaces what was there."""
    with station_with(honest()) as station:
        incoming = tmp_path / "layers" / "incoming"
        incoming.mkdir(parents=True)
        (incoming / digest_of(PACKED).removeprefix("sha256:")).write_bytes(left)
        moved = station.store.fetch(IMAGE)
        assert moved == len(CONFIG) + (0 if left == PACKED else len(PACKED))


@contextlib.contextmanager
def elsewhere() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Yield another server, and who asked it for what."""
    asked: list[tuple[str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("authorization")))
            say(self, PACKED if "blob" in self.path else b'{"token": "secret-token"}')

        def log_message(self, *_: object) -> None:
            return

    with https_server(Handler) as (url, _):
        yield url, asked


def to(url: str, status: int = 307) -> Answer:
    return lambda handler: say(handler, b"", status, Location=url)


def test_a_redirect_to_another_host_is_not_followed(station_with: StationWith) -> None:
    with elsewhere() as (url, asked):
        port = url.rpartition(":")[2]
        for onward in (
            f"{url}/blob",
            f"//127.0.0.1:{port}/blob",
            "http://localhost/blob",
            "ftp://x/",
            "https://[",
            "",
        ):
            answers = honest(**{digest_of(PACKED): to(onward)})
            with station_with(answers) as station, pytest.raises(NetworkError):
                station.store.fetch(IMAGE)
        assert asked == []


def test_a_redirect_to_a_host_that_is_named_is_followed_without_what_is_the_registry_s(
    liar: LyingRegistry, tmp_path: Path
) -> None:
    told: list[str | None] = []

    def store(handler: http.server.BaseHTTPRequestHandler) -> None:
        told.append(handler.headers.get("authorization"))
        say(handler, PACKED)

    with lying_registry(tmp_path) as other:
        other.answers = {"/stored": store}
        both = tmp_path / "both.pem"
        both.write_bytes(liar.ca.read_bytes() + other.ca.read_bytes())
        answers = honest(
            manifest=wants("Bearer", manifest()), **{digest_of(PACKED): to(f"{other.url}/stored")}
        )
        own, more = Credentials("", "own-token"), {"ca": both, "hosts": [other.url.removeprefix("https://")]}
        with liar.source(answers, credentials=own, **more) as source:
            assert ImageStation(tmp_path / "layers", source).store.fetch(IMAGE) > 0  # type: ignore[arg-type]
    assert told == [None]


def test_a_redirect_on_the_registry_itself_is_followed_and_not_for_ever(station_with: StationWith) -> None:
    answers = honest(**{digest_of(PACKED): to("/moved"), "/moved": PACKED})
    with station_with(answers) as station:
        assert station.store.fetch(IMAGE) > 0
    station.blobs.remove(digest_of(LAYER))
    answers = honest(**{digest_of(PACKED): to("/round"), "/round": to("/round")})
    with station_with(answers) as station, pytest.raises(NetworkError):
        station.store.fetch(IMAGE)


def wants(header_value: str, then: bytes) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.headers.get("authorization") in {"Bearer a-token", "Bearer own-token"}:
            say(handler, then)
        else:
            say(handler, b"", 401, WWW_Authenticate=header_value)

    return answer


def test_a_bearer_token_of_the_registry_s_own_service(station_with: StationWith) -> None:
    asked: list[tuple[str, str | None]] = []

    def token(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append((handler.path, handler.headers.get("authorization")))
        say(handler, b'{"token": "a-token", "expires_in": 60}')

    def challenge(handler: http.server.BaseHTTPRequestHandler) -> None:
        place = f"https://localhost:{handler.server.server_port}/token"  # type: ignore[attr-defined]
        wants(f'Bearer realm="{place}",service="r",scope="x"', manifest())(handler)

    credentials = Credentials("user", "secret")
    with station_with(honest(manifest=challenge, **{"/token": token}), credentials=credentials) as station:
        assert station.store.fetch(IMAGE) > 0
    assert asked == [("/token?scope=repository%3Apht%2Ftrains%3Apull&service=r", credentials.basic)]


def test_a_token_that_the_hospital_was_given_goes_as_it_is(station_with: StationWith) -> None:
    answers = honest(manifest=wants('Bearer realm="https://elsewhere/token"', manifest()))
    with station_with(answers, credentials=Credentials("", "own-token")) as station:
        assert station.store.fetch(IMAGE) > 0


def test_credentials_go_to_no_token_service_elsewhere(station_with: StationWith) -> None:
    with elsewhere() as (url, asked):
        for realm in (f"{url}/token", "http://localhost/token", "", "https://localhost.example.org/token"):
            answers = honest(manifest=wants(f'Bearer realm="{realm}",service="r"', manifest()))
            with (
                station_with(answers, credentials=Credentials("user", "secret")) as station,
                pytest.raises(NetworkError) as caught,
            ):
                station.store.fetch(IMAGE)
            assert "registry_hosts" in caught.value.hint
        assert asked == []


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[]", b'{"token": 1}', b'{"token": "with space"}', b'{"token": "a\\nb"}', b" " * 20_000, endless]
)  # fmt: skip
def test_a_token_service_that_answers_nonsense(station_with: StationWith, answer: Answer | bytes) -> None:
    def challenge(handler: http.server.BaseHTTPRequestHandler) -> None:
        place = f"https://localhost:{handler.server.server_port}/token"  # type: ignore[attr-defined]
        wants(f'Bearer realm="{place}"', manifest())(handler)

    answers = honest(manifest=challenge, **{"/token": answer})
    with station_with(answers) as station, pytest.raises(NetworkError):
        station.store.fetch(IMAGE)


@pytest.mark.parametrize("status", [400, 403, 404, 410, 418, 301])
def test_other_answers(station_with: StationWith, status: int) -> None:
    answers = honest(manifest=lambda handler: say(handler, b"patient 4711", status))
    expected = NotFoundError if status == 404 else NetworkError
    with station_with(answers) as station, pytest.raises(expected) as caught:
        station.store.fetch(IMAGE)
    assert "patient" not in str(caught.value)


def test_an_answer_that_passes_is_asked_for_again(station_with: StationWith) -> None:
    told: list[int] = []

    def busy(handler: http.server.BaseHTTPRequestHandler) -> None:
        told.append(1)
        say(handler, manifest() if len(told) > 1 else b"", 200 if len(told) > 1 else 503)

    with station_with(honest(manifest=busy)) as station:
        assert station.store.fetch(IMAGE) > 0
    assert len(told) == 2


@pytest.mark.parametrize("text", ["", "two\nlines", "umlaut:\xfc", "x" * 5000, "with space:x"])
def test_credentials_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials"
    path.write_text("user:pass:word\n")
    path.chmod(0o600)
    assert Credentials.read(path, "it") == Credentials("user", "pass:word")
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="others"):
        Credentials.read(path, "it")
    path.chmod(0o600)
    path.write_text(text, "latin-1")
    with pytest.raises(SettingsError):
        Credentials.read(path, "it")
    assert "pass" not in repr(Credentials("user", "pass"))


@pytest.mark.parametrize("text", ["", "Bearer", 'Bearer realm="', "x" * 100_000, 'Basic realm="a"b"', "\x00"])
def test_a_challenge_is_read_whatever_it_is(text: str) -> None:
    assert isinstance(Challenge.read(text), Challenge)
