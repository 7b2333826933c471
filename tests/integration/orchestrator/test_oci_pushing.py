"""Pushing over the OCI distribution API, by the specification's numbers: sessions that survive, and what a manifest becomes."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from oci_kit import (
    Oci,
    blob,
    described,
    front_process,
    half_a_request,
    image,
    packed,
    party,
    random_bytes,
    train_named,
)
from orchestrator_site import Site, site, wait_until

from orchestrator.registry.access import Role
from orchestrator.registry.oci.uploads import MAX_SESSIONS_OF_ONE, SESSION_LIFE_S
from policies.documents import canonical_json, digest_of
from policies.wire.oci_trains import OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, TRAIN_TYPE
from train_images.tool.folders import PackedTrain

UPLOADS = "/v2/anna/blobs/uploads/"


@dataclass
class Place:
    site: Site
    folder: Path
    alice: Oci
    bob: Oci

    def train(self, name: str, version: str = "1.0.0") -> PackedTrain:
        return train_named(self.folder / f"{name}-{version}", name, version)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("oci-pushing")
    with site(folder) as found:
        made = Place(found, folder, party(found), party(found, name="bob"))
        yield made
        made.alice.close()
        made.bob.close()


def begun(oci: Oci, uploads: str = UPLOADS) -> str:
    answer = oci("POST", uploads)
    assert answer.status_code == 202
    return str(answer.headers["location"])


def test_end_4b_a_blob_in_one_request(place: Place) -> None:
    data = random_bytes(1000)
    done = place.alice("POST", UPLOADS, params={"digest": digest_of(data)}, content=data)
    assert done.status_code == 201
    assert done.headers["docker-content-digest"] == digest_of(data)
    assert place.alice("GET", done.headers["location"]).content == data


def test_end_5_and_13_a_blob_in_chunks_whose_order_counts(place: Place) -> None:
    data = random_bytes(3000)
    location = begun(place.alice)

    def chunk(first: int, last: int) -> int:
        headers = {"Content-Range": f"{first}-{last}", "Content-Type": "application/octet-stream"}
        return place.alice("PATCH", location, content=data[first : last + 1], headers=headers).status_code

    assert chunk(0, 999) == 202
    assert chunk(2000, 2999) == 416
    assert chunk(0, 999) == 416
    state = place.alice("GET", location)
    assert (state.status_code, state.headers["range"]) == (204, "0-999")
    assert chunk(1000, 1999) == 202
    done = place.alice(
        "PUT", location, params={"digest": digest_of(data)}, content=data[2000:],
        headers={"Content-Range": "2000-2999"},
    )  # fmt: skip
    assert done.status_code == 201
    assert place.alice("GET", f"/v2/anna/blobs/{digest_of(data)}").content == data
    assert place.alice.code("GET", location, 404) == "BLOB_UPLOAD_UNKNOWN"


def test_a_stream_without_a_length_is_a_chunk_too(place: Place) -> None:
    data = random_bytes(5000)
    location = begun(place.alice)
    assert place.alice("PATCH", location, content=iter((data[:10], data[10:]))).status_code == 202
    assert place.alice("PUT", location, params={"digest": digest_of(data)}).status_code == 201


def test_an_upload_goes_on_after_the_connection_was_cut(place: Place) -> None:
    data = random_bytes(300_000)
    location = begun(place.alice)
    head = (
        f"PATCH {location} HTTP/1.1\nHost: localhost\nAuthorization: {place.alice.http.headers['authorization']}\n"
        f"Content-Length: {len(data)}\nContent-Range: 0-{len(data) - 1}"
    )
    line = half_a_request(place.site.services.settings.front.port, place.site.ca, head, data[:100_000])
    # An end of what is sent, and no reset: that would take back what the server has not read yet.
    line.shutdown(socket.SHUT_WR)
    here = 0

    def arrived() -> bool:
        nonlocal here
        answer = place.alice("GET", location)
        here = int(answer.headers["range"].partition("-")[2]) + 1
        # Until the server has seen the end of the connection, it holds the session.
        probe = place.alice("PATCH", location, content=b"", headers={"Content-Length": "0"})
        return here > 1 and probe.status_code == 202

    wait_until(arrived, 60, "what came before the cut")
    line.close()
    assert 0 < here <= 100_000
    done = place.alice(
        "PUT", location, params={"digest": digest_of(data)}, content=data[here:],
        headers={"Content-Range": f"{here}-{len(data) - 1}"},
    )  # fmt: skip
    assert done.status_code == 201, done.content


def test_an_upload_and_a_train_outlive_a_killed_server(tmp_path: Path) -> None:
    data = random_bytes(3 << 20)
    with site(tmp_path / "made") as made:
        home = made.home
        token = made.services.access.new_token(Role.RESEARCHER, "alice")
    train = train_named(tmp_path / "train", "anna")
    with front_process(home) as (first, port):
        alice = _over(made, token, port)
        wait_until(lambda: _answers(alice), 60, "the front")
        assert alice.push(train).status_code == 201
        location = begun(alice)
        head = (
            f"PATCH {location} HTTP/1.1\nHost: localhost\nAuthorization: {alice.http.headers['authorization']}\n"
            f"Content-Length: {len(data)}\nContent-Range: 0-{len(data) - 1}"
        )
        line = half_a_request(port, home.ca_certificate, head, data[: 2 << 20])
        sessions = home.blobs / "oci-uploads"
        wait_until(lambda: any(path.stat().st_size >= 1 << 20 for path in sessions.iterdir()), 60, "a part")
        first.kill()
        first.wait(60)
        line.close()
        alice.close()
    with front_process(home, port):
        alice = _over(made, token, port)
        wait_until(lambda: _answers(alice), 60, "the front")
        here = int(alice("GET", location).headers["range"].partition("-")[2]) + 1
        assert 1 << 20 <= here <= 2 << 20
        done = alice(
            "PUT", location, params={"digest": digest_of(data)}, content=data[here:],
            headers={"Content-Range": f"{here}-{len(data) - 1}"},
        )  # fmt: skip
        assert done.status_code == 201
        assert alice("GET", "/v2/anna/manifests/1.0.0").content == image(train)
        alice.close()


def _over(made: Site, token: str, port: int) -> Oci:
    client = made.raw(Authorization=f"Bearer {token}")
    client.base_url = f"https://localhost:{port}"
    return Oci(client)


def _answers(oci: Oci) -> bool:
    try:
        return oci("GET", "/v2/").status_code == 200
    except OSError:
        return False
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            return False
        raise


def test_an_upload_is_cancelled(place: Place) -> None:
    location = begun(place.alice)
    assert place.alice("DELETE", location).status_code == 204
    assert place.alice.code("GET", location, 404) == "BLOB_UPLOAD_UNKNOWN"


def test_a_session_is_its_beginners_and_its_repositorys(place: Place) -> None:
    location = begun(place.alice)
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        more = {"params": {"digest": digest_of(b"")}} if method == "PUT" else {}
        assert place.bob.code(method, location, 404, **more) == "BLOB_UPLOAD_UNKNOWN"
        elsewhere = location.replace("/anna/", "/bert/")
        assert place.alice.code(method, elsewhere, 404, **more) == "BLOB_UPLOAD_UNKNOWN"
    for name in ("..", "x" * 32, "%2e%2e%2f", location.rpartition("/")[2].upper() + "."):
        assert place.alice.code("GET", UPLOADS + name, 404) in {"BLOB_UPLOAD_UNKNOWN", "NAME_UNKNOWN"}
    assert place.alice("DELETE", location).status_code == 204


def test_bytes_that_are_not_what_they_are_said_to_be(place: Place) -> None:
    location = begun(place.alice)
    wrong = {"digest": digest_of(b"other")}
    assert place.alice.code("PUT", location, 400, params=wrong, content=b"these") == "DIGEST_INVALID"
    assert place.alice.code("GET", location, 404) == "BLOB_UPLOAD_UNKNOWN"
    assert place.alice("HEAD", f"/v2/anna/blobs/{digest_of(b'other')}").status_code == 404
    location = begun(place.alice)
    for header in ("0-9", "0-2", "3-1", "x-y", "-5", "0-" + "9" * 30):
        answer = place.alice("PATCH", location, content=b"these", headers={"Content-Range": header})
        assert answer.status_code in {400, 416}, header
        short = place.alice("PATCH", location, content=iter((b"these",)), headers={"Content-Range": header})
        assert short.status_code in {400, 416}, header
        assert place.alice("GET", location).headers["range"] == "0-0"
    assert place.alice.code("PUT", location, 400, content=b"") == "DIGEST_INVALID"
    assert (
        place.alice.code("PUT", location, 400, params={"digest": "sha512:" + "0" * 128}) == "DIGEST_INVALID"
    )
    assert place.alice("DELETE", location).status_code == 204


def test_a_blob_over_the_limit_is_refused_while_it_comes(place: Place) -> None:
    location = begun(place.alice)
    # The site's limit is 64 MiB.
    pieces = (bytes(1 << 20) for _ in range(66))
    answer = place.alice("PATCH", location, content=pieces)
    assert answer.status_code == 413
    assert place.alice("DELETE", location).status_code == 204


def test_a_thousand_sessions_are_not_opened(tmp_path: Path) -> None:
    with site(tmp_path) as found:
        alice, bob = party(found), party(found, name="bob")
        answers = [alice("POST", UPLOADS) for _ in range(MAX_SESSIONS_OF_ONE + 10)]
        assert [answer.status_code for answer in answers].count(202) == MAX_SESSIONS_OF_ONE
        assert answers[-1].json()["errors"][0]["code"] == "TOOMANYREQUESTS"
        assert answers[-1].status_code == 429
        assert bob("POST", UPLOADS).status_code == 202
        alice("DELETE", answers[0].headers["location"])
        assert alice("POST", UPLOADS).status_code == 202
        # All but one are of the day before yesterday.
        folder = found.home.blobs / "oci-uploads"
        for path in sorted(folder.iterdir())[1:]:
            os.utime(path, (time.time() - 2 * SESSION_LIFE_S,) * 2)
        assert alice("POST", UPLOADS).status_code == 202
        assert len(list(folder.iterdir())) == 2
        alice.close()
        bob.close()


def test_end_11_a_mount_gives_what_one_can_read_already_and_nothing_else(place: Place) -> None:
    train = place.train("mounted")
    assert place.alice.push(train).status_code == 201
    layer, never = (each.digest for each in train.index.layers)
    mounting = {"mount": layer, "from": "mounted"}
    done = place.bob("POST", "/v2/other/blobs/uploads/", params=mounting)
    assert done.status_code == 201
    assert done.headers["location"] == f"/v2/other/blobs/{layer}"
    assert place.bob("HEAD", f"/v2/other/blobs/{layer}").status_code == 200
    secret = place.alice.send("mounted", b"alice alone has this")
    for parameters in (
        {"mount": secret, "from": "mounted"},
        {"mount": "sha256:" + "0" * 64, "from": "mounted"},
        {"mount": never, "from": "nobody"},
        {"mount": never},
    ):
        answer = place.bob("POST", "/v2/fresh/blobs/uploads/", params=parameters)
        assert answer.status_code == 202, parameters
        assert place.bob("DELETE", answer.headers["location"]).status_code == 204
    assert place.bob("HEAD", f"/v2/fresh/blobs/{secret}").status_code == 404


def test_end_7_a_pushed_image_is_a_bundle(place: Place) -> None:
    train = place.train("pushed")
    done = place.alice.push(train)
    assert done.status_code == 201
    assert done.headers["docker-content-digest"] == digest_of(image(train))
    (view,) = [each for each in place.site.services.bundles.all() if each.name == "pushed"]
    assert (view.version, view.owner) == ("1.0.0", "researcher:alice")
    assert view.manifest_digest == train.index.manifest.digest
    # What a station asks for: plain layers, under the config's digest.
    index = place.site.client(Role.BOARD).find_bundle(train.index.config.digest)
    assert index == train.index
    for reference in ("1.0.0", "1.0.0-cpu", "cfg-" + train.index.config.digest[7:], digest_of(image(train))):
        assert place.bob("GET", f"/v2/pushed/manifests/{reference}").content == image(train)
    for each in image_layers(train):
        assert place.bob("HEAD", f"/v2/pushed/blobs/{each}").status_code == 200
    assert place.alice.put_manifest("pushed", "1.0.0", image(train)).status_code == 201


def image_layers(train: PackedTrain) -> list[str]:
    return [digest_of(packed(blob(train, each.digest))) for each in train.index.layers]


def test_another_packing_of_the_same_image_is_taken_from_its_owner_alone(place: Place) -> None:
    train = place.train("repacked")
    assert place.alice.push(train).status_code == 201
    plain = canonical_json(
        {
            "schemaVersion": 2,
            "config": described(blob(train, train.index.config.digest), OCI_CONFIG),
            "layers": [described(blob(train, each.digest), OCI_LAYER) for each in train.index.layers],
        }
    )
    answer = place.bob.put_manifest("repacked", "1.0.0", plain)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, "DENIED")
    assert place.alice.put_manifest("repacked", digest_of(plain), plain).status_code == 201
    assert place.alice("GET", "/v2/repacked/manifests/1.0.0").content == image(train)
    assert place.alice.put_manifest("repacked", "1.0.0", plain).status_code == 201
    assert place.alice("GET", "/v2/repacked/manifests/1.0.0").content == plain


def test_the_artifact_of_a_train_and_what_it_refers_to(place: Place) -> None:
    train = place.train("artifact")
    text = blob(train, train.index.manifest.digest)
    document = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": TRAIN_TYPE,
        "config": described(b"{}", OCI_EMPTY), "layers": [described(text, TRAIN_TYPE)],
    }  # fmt: skip
    tag = "train-" + digest_of(text)[7:]
    place.alice.send("artifact", text)
    early = place.alice.put_manifest("artifact", tag, canonical_json(document))
    assert early.json()["errors"][0]["code"] == "MANIFEST_INVALID"
    place.alice.push(train)
    assert place.alice.put_manifest("artifact", tag, canonical_json(document)).status_code == 201
    assert place.bob("GET", f"/v2/artifact/manifests/{tag}").content == canonical_json(document)
    subject = described(image(train), OCI_MANIFEST)
    referring = canonical_json(document | {"subject": subject, "annotations": {"why": "shown"}})
    done = place.alice.put_manifest("artifact", digest_of(referring), referring)
    assert (done.status_code, done.headers["oci-subject"]) == (201, subject["digest"])
    target = f"/v2/artifact/referrers/{subject['digest']}"
    (entry,) = place.bob("GET", target).json()["manifests"]
    assert entry == described(referring, OCI_MANIFEST) | {
        "artifactType": TRAIN_TYPE,
        "annotations": {"why": "shown"},
    }
    filtered = place.bob("GET", target, params={"artifactType": "application/other"})
    assert filtered.json()["manifests"] == []
    assert filtered.headers["oci-filters-applied"] == "artifactType"


def refused(place: Place, train: PackedTrain, body: bytes, reference: str = "1.0.0", **more: str) -> str:
    answer = place.alice.put_manifest(train.manifest.name, reference, body, **more)
    assert 400 <= answer.status_code < 500, answer.status_code
    assert not [each for each in place.site.services.bundles.all() if each.name == train.manifest.name]
    return str(answer.json()["errors"][0]["code"])


def test_what_is_no_train_is_refused_and_leaves_nothing(place: Place) -> None:
    train, other = place.train("lying"), place.train("someone-else")
    config = blob(train, train.index.config.digest)
    plain = [blob(train, each.digest) for each in train.index.layers]
    good = image(train)
    assert refused(place, train, good) == "MANIFEST_BLOB_UNKNOWN"
    for data in (
        config,
        *map(packed, plain),
        *plain,
        packed(b"other"),
        b"\x1f\x8b broken",
        packed(bytes(90 << 20)),
    ):
        place.alice.send("lying", data)
    layers = [described(packed(data), OCI_LAYER + "+gzip") for data in plain]

    def changed(**changes: object) -> str:
        return refused(place, train, image(train, **changes))

    assert refused(place, train, good, reference="latest") == "MANIFEST_INVALID"
    assert refused(place, train, good, reference="2.0.0") == "MANIFEST_INVALID"
    assert refused(place, train, good, reference="1.0.0-cuda") == "MANIFEST_INVALID"
    assert refused(place, train, good, reference="cfg-" + "0" * 64) == "MANIFEST_INVALID"
    assert refused(place, train, good, reference="train-" + "0" * 64) == "MANIFEST_INVALID"
    assert refused(place, train, good, reference=digest_of(b"another")) == "DIGEST_INVALID"
    assert (
        refused(place, train, good, media="application/vnd.docker.distribution.manifest.v1+json")
        == "MANIFEST_INVALID"
    )
    assert refused(place, train, good, media="application/json") == "MANIFEST_INVALID"
    assert refused(place, train, b'{"schemaVersion": 2, "manifests": []}', media=OCI_INDEX) == "UNSUPPORTED"
    assert refused(place, train, b"{") == "MANIFEST_INVALID"
    assert refused(place, train, b"[" * 100_000) == "MANIFEST_INVALID"
    assert refused(place, train, good[:-1] + b',"schemaVersion":2}') == "MANIFEST_INVALID"
    assert changed(annotations={}) == "MANIFEST_INVALID"
    assert changed(annotations={"org.pht.train.v1": "name: x"}) == "MANIFEST_INVALID"
    half = image(train, annotations={"org.pht.train.v1": "HALF"}).replace(b"HALF", b"\\ud800")
    assert refused(place, train, half) == "MANIFEST_INVALID"
    assert changed(layers=layers[:1]) == "MANIFEST_INVALID"
    assert changed(layers=layers[::-1]) == "MANIFEST_INVALID"
    assert changed(layers=[layers[0], described(packed(b"other"), OCI_LAYER + "+gzip")]) == "MANIFEST_INVALID"
    assert (
        changed(layers=[layers[0], described(b"\x1f\x8b broken", OCI_LAYER + "+gzip")]) == "MANIFEST_INVALID"
    )
    bomb = described(packed(bytes(90 << 20)), OCI_LAYER + "+gzip")
    assert changed(layers=[layers[0], bomb]) == "MANIFEST_INVALID"
    assert changed(layers=[layers[0], layers[1] | {"mediaType": OCI_LAYER + "+zstd"}]) == "MANIFEST_INVALID"
    assert changed(layers=[layers[0], layers[1] | {"mediaType": OCI_LAYER}]) == "MANIFEST_INVALID"
    assert changed(layers=[layers[0], layers[1] | {"size": 3}]) == "SIZE_INVALID"
    assert changed(layers=layers * 70) == "MANIFEST_INVALID"
    assert changed(config=described(config, "application/vnd.example+json")) == "UNSUPPORTED"
    assert changed(artifactType="application/vnd.example.sbom") == "UNSUPPORTED"
    assert changed(mediaType=OCI_INDEX) == "MANIFEST_INVALID"
    elsewhere = place.alice.put_manifest("someone-else", "1.0.0", good)
    assert elsewhere.json()["errors"][0]["code"] == "NAME_INVALID"
    foreign = blob(other, other.index.manifest.digest).decode()
    assert changed(annotations={"org.pht.train.v1": foreign}) in {"MANIFEST_INVALID", "NAME_INVALID"}
    assert place.alice.put_manifest("lying", "1.0.0", good).status_code == 201
    # A version is one train for ever.
    again = place.train("lying")
    text = blob(again, again.index.manifest.digest).decode() + "# changed\n"
    answer = place.alice.put_manifest("lying", "1.0.0", image(again, annotations={"org.pht.train.v1": text}))
    assert answer.json()["errors"][0]["code"] == "MANIFEST_INVALID"


def test_a_huge_manifest_is_not_read(place: Place) -> None:
    for body in (bytes(5 << 20), iter((bytes(1 << 20),) * 6)):
        answer = place.alice(
            "PUT", "/v2/anna/manifests/1.0.0", content=body, headers={"Content-Type": OCI_MANIFEST}
        )
        assert answer.status_code == 413
        assert answer.json()["errors"][0]["code"] == "SIZE_INVALID"
