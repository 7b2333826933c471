"""Pulling and discovery over the OCI distribution API, by the specification's numbers."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from oci_kit import Oci, basic, blob, party, train_named
from orchestrator_site import Site, site

from orchestrator.registry.access import Role
from orchestrator.storage import StationRow
from policies.documents import digest_of
from policies.wire.http import key_fingerprint, openssh_public_key, sign_request
from policies.wire.oci_trains import OCI_INDEX, OCI_LAYER, OCI_MANIFEST, TRAIN_ANNOTATION, TRAIN_TYPE
from train_images.tool.folders import PackedTrain


@dataclass
class Place:
    site: Site
    trains: dict[str, PackedTrain]
    me: Oci


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Three trains that were submitted over the other API."""
    folder = tmp_path_factory.mktemp("oci-pulling")
    with site(folder) as found:
        client = found.client(Role.RESEARCHER, "alice")
        trains = {name: train_named(folder / name, name) for name in ("anna", "bert", "cees")}
        for name, train in trains.items():
            for each in train.index.blobs():
                client.put_blob(train.store.path(each.digest))
            client.put_bundle(name, "1.0.0", train.index)
        me = party(found, Role.BOARD, "board")
        yield Place(found, trains, me)
        me.close()


def test_end_1_tells_how_to_say_who_asks(place: Place) -> None:
    stranger = party(place.site, None)
    for target in ("/v2/", "/v2/_catalog", "/v2/anna/manifests/1.0.0", "/v2/anna/tags/list"):
        answer = stranger("GET", target)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
        assert stranger.code("GET", target, 401) == "UNAUTHORIZED"
    stranger.close()
    assert place.me("GET", "/v2/").status_code == 200
    assert place.me("GET", "/v2/").headers["docker-distribution-api-version"] == "registry/2.0"


def test_the_same_token_counts_as_password_and_as_bearer(place: Place) -> None:
    token = place.site.services.access.new_token(Role.RESEARCHER, "carla")
    with place.site.raw() as raw:
        for header, status in (
            (basic(token), 200),
            (basic(token, ""), 200),
            (f"Bearer {token}", 200),
            (basic(token[:-1]), 401),
            (basic(""), 401),
            ("Basic", 401),
            ("Basic \u00ff", 401),
            ("Basic " + "A" * 9000, 401),
            (f"Digest {token}", 401),
        ):
            sent = {"Authorization": header.encode("latin-1")}
            assert raw.request("GET", "/v2/", headers=sent).status_code == status, header


@pytest.mark.parametrize("role", [Role.RESEARCHER, Role.BOARD, Role.OPERATOR, Role.WITNESS])
def test_who_may_pull_and_who_may_push(place: Place, role: Role) -> None:
    someone = party(place.site, role, f"some-{role}")
    pulls = role is not Role.WITNESS
    assert (someone("GET", "/v2/anna/manifests/1.0.0").status_code == 200) == pulls
    begun = someone("POST", "/v2/anna/blobs/uploads/")
    assert begun.status_code == (202 if role is Role.RESEARCHER else 403)
    if role is not Role.RESEARCHER:
        assert begun.json()["errors"][0]["code"] == "DENIED"
    someone.close()


def test_end_2_and_3_everything_that_a_tag_leads_to(place: Place) -> None:
    for name, train in place.trains.items():
        by_tag = place.me("GET", f"/v2/{name}/manifests/1.0.0")
        assert by_tag.headers["content-type"] == OCI_MANIFEST
        digest = by_tag.headers["docker-content-digest"]
        assert digest == digest_of(by_tag.content)
        by_digest = place.me("GET", f"/v2/{name}/manifests/{digest}")
        assert by_digest.content == by_tag.content
        manifest = by_tag.json()
        assert manifest["config"]["digest"] == train.index.config.digest
        assert manifest["annotations"][TRAIN_ANNOTATION].encode() == blob(train, train.index.manifest.digest)
        assert [layer["mediaType"] for layer in manifest["layers"]] == [OCI_LAYER] * 2
        for described in (manifest["config"], *manifest["layers"]):
            target = f"/v2/{name}/blobs/{described['digest']}"
            answer = place.me("GET", target)
            assert digest_of(answer.content) == described["digest"]
            assert answer.headers["docker-content-digest"] == described["digest"]
            head = place.me("HEAD", target)
            assert (head.status_code, head.content) == (200, b"")
            assert int(head.headers["content-length"]) == described["size"]
        head = place.me("HEAD", f"/v2/{name}/manifests/1.0.0")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["docker-content-digest"] == digest
        assert int(head.headers["content-length"]) == len(by_tag.content)


def test_the_train_yaml_has_an_artifact_of_its_own(place: Place) -> None:
    train = place.trains["anna"]
    tag = "train-" + train.index.manifest.digest[7:]
    manifest = place.me("GET", f"/v2/anna/manifests/{tag}").json()
    assert manifest["artifactType"] == TRAIN_TYPE
    (described,) = manifest["layers"]
    assert place.me("GET", f"/v2/anna/blobs/{described['digest']}").content == blob(
        train, train.index.manifest.digest
    )
    assert place.me("GET", f"/v2/anna/blobs/{manifest['config']['digest']}").content == b"{}"


def test_ranges_of_a_blob(place: Place) -> None:
    whole = blob(place.trains["anna"], place.trains["anna"].index.layers[0].digest)
    target = f"/v2/anna/blobs/{digest_of(whole)}"
    size = len(whole)
    for asked, part in (
        ("bytes=0-99", whole[:100]),
        (f"bytes={size - 10}-", whole[-10:]),
        ("bytes=-7", whole[-7:]),
        (f"bytes=5-{size * 2}", whole[5:]),
    ):
        answer = place.me("GET", target, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (206, part), asked
    for asked in (
        f"bytes={size}-", "bytes=0-1,3-4", "bytes=9-3", "bytes=-0", "bytes=-", "bytes=a-b", "items=0-1",
        "bytes=0-" + "9" * 40, "bytes=0x0-1", "bytes= 0-1",
    ):  # fmt: skip
        answer = place.me("GET", target, headers={"Range": asked})
        assert answer.status_code == 416, asked
        assert answer.headers["content-range"] == f"bytes */{size}"
        assert answer.json()["errors"][0]["code"] == "SIZE_INVALID"


def test_end_8_tags_and_the_catalog_come_in_pages(place: Place) -> None:
    for target, key in (("/v2/anna/tags/list", "tags"), ("/v2/_catalog", "repositories")):
        everything = place.me("GET", target).json()[key]
        assert everything == sorted(everything)
        assert len(everything) >= 3
        for n in (1, 2, 100):
            found: list[str] = []
            page: str | None = f"{target}?n={n}"
            while page is not None:
                answer = place.me("GET", page)
                assert len(answer.json()[key]) <= n
                found += answer.json()[key]
                link = re.fullmatch(r'<([^>]+)>; rel="next"', answer.headers.get("link", ""))
                page = link[1] if link else None
            assert found == everything
        assert place.me("GET", f"{target}?n=0").json()[key] == []
        assert place.me.code("GET", f"{target}?n=-1", 400) == "UNSUPPORTED"
    assert place.me("GET", "/v2/_catalog").json() == {"repositories": ["anna", "bert", "cees"]}
    assert place.me("GET", "/v2/anna/tags/list").json()["name"] == "anna"


def test_end_12_nothing_refers_to_a_train(place: Place) -> None:
    digest = place.me("HEAD", "/v2/anna/manifests/1.0.0").headers["docker-content-digest"]
    answer = place.me("GET", f"/v2/anna/referrers/{digest}")
    assert answer.headers["content-type"] == OCI_INDEX
    assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


def test_a_repository_holds_its_own_train_only(place: Place) -> None:
    for other in ("bert", "cees"):
        train = place.trains["anna"]
        own = train.index.layers[1].digest
        assert place.me("HEAD", f"/v2/anna/blobs/{own}").status_code == 200
        assert place.me.code("GET", f"/v2/{other}/blobs/{own}", 404) == "BLOB_UNKNOWN"
        digest = place.me("HEAD", "/v2/anna/manifests/1.0.0").headers["docker-content-digest"]
        assert place.me.code("GET", f"/v2/{other}/manifests/{digest}", 404) == "MANIFEST_UNKNOWN"
        assert place.me.code("GET", f"/v2/{other}/manifests/cfg-{train.index.config.digest[7:]}", 404) == (
            "MANIFEST_UNKNOWN"
        )


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/v2/nobody/manifests/1.0.0", 404, "NAME_UNKNOWN"),
        ("/v2/nobody/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/anna/manifests/9.9.9", 404, "MANIFEST_UNKNOWN"),
        ("/v2/anna/manifests/1.0.0-cuda", 404, "MANIFEST_UNKNOWN"),
        ("/v2/anna/manifests/latest", 404, "MANIFEST_UNKNOWN"),
        ("/v2/anna/manifests/sha256:" + "0" * 64, 404, "MANIFEST_UNKNOWN"),
        ("/v2/anna/manifests/sha256:" + "Z" * 64, 400, "DIGEST_INVALID"),
        ("/v2/anna/manifests/sha512:" + "0" * 128, 400, "DIGEST_INVALID"),
        ("/v2/anna/blobs/sha256:" + "0" * 64, 404, "BLOB_UNKNOWN"),
        ("/v2/anna/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/anna/blobs/..", 400, "DIGEST_INVALID"),
        ("/v2/ANNA/tags/list", 400, "NAME_INVALID"),
        ("/v2/-anna/tags/list", 400, "NAME_INVALID"),
        ("/v2/" + "a" * 300 + "/tags/list", 400, "NAME_INVALID"),
        ("/v2/anna/../bert/tags/list", 400, "NAME_INVALID"),
        ("/v2/%2e%2e/%2e%2e/tags/list", 400, "NAME_INVALID"),
        ("/v2/anna%2f..%2fbert/tags/list", 400, "NAME_INVALID"),
        ("/v2//anna/tags/list", 400, "NAME_INVALID"),
        ("/v2/anna/%00/tags/list", 400, "NAME_INVALID"),
        ("/v2/pht/trains/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/anna/manifests/", 404, "NAME_UNKNOWN"),
        ("/v2/anna", 404, "NAME_UNKNOWN"),
        ("/v2/anna/referrers/latest", 400, "DIGEST_INVALID"),
        ("/v2/../api/v1/health", 404, "NAME_UNKNOWN"),
    ],
)
def test_what_is_not_there(place: Place, target: str, status: int, code: str) -> None:
    # The bytes of the target as they are: a client would tidy them.
    answer = place.me("GET", "/v2/", extensions={"target": target.encode()})
    assert (answer.status_code, json.loads(answer.content)["errors"][0]["code"]) == (status, code)


def test_a_digests_colon_may_be_encoded(place: Place) -> None:
    digest = place.trains["anna"].index.config.digest
    assert place.me("HEAD", "/v2/anna/blobs/" + digest.replace(":", "%3A")).status_code == 200


def test_nothing_is_deleted_and_other_methods_are_not_offered(place: Place) -> None:
    digest = place.trains["anna"].index.config.digest
    for method, target in (
        ("DELETE", "/v2/anna/manifests/1.0.0"),
        ("DELETE", f"/v2/anna/blobs/{digest}"),
        ("POST", "/v2/_catalog"),
        ("PUT", "/v2/"),
    ):
        assert place.me.code(method, target, 405) == "UNSUPPORTED"


def test_a_partys_own_blobs_are_not_in_a_repository_for_others(place: Place) -> None:
    """Weights, say: whoever holds a grant reads them over the other API, and here nobody does but their sender."""
    alice, bob = party(place.site), party(place.site, name="bob")
    digest = alice.send("anna", b"what alice alone has")
    assert alice("HEAD", f"/v2/anna/blobs/{digest}").status_code == 200
    assert bob.code("GET", f"/v2/anna/blobs/{digest}", 404) == "BLOB_UNKNOWN"
    assert place.me.code("GET", f"/v2/anna/blobs/{digest}", 404) == "BLOB_UNKNOWN"
    alice.close()
    bob.close()


def test_readme_lists_what_is_offered(place: Place) -> None:
    text = (Path(__file__).parents[3] / "orchestrator" / "README.md").read_text("utf-8")
    for route in ("/v2/<name>/manifests/<reference>", "/v2/<name>/blobs/<digest>", "/v2/<name>/tags/list",
                  "/v2/_catalog", "/v2/<name>/referrers/<digest>", "/v2/<name>/blobs/uploads/"):  # fmt: skip
        assert route in text, route


def test_a_station_pulls_with_signed_requests(place: Place) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with place.site.services.database.transaction() as session:
        session.add(
            StationRow(
                name="amstel",
                organisation="A",
                node_key=openssh_public_key(key.public_key()).decode(),
                key_fingerprint=key_fingerprint(key.public_key()),
                register_version=1,
            )
        )
    target = "/v2/anna/manifests/1.0.0"
    with place.site.raw() as raw:
        for method, signed, status in (("GET", target, 200), ("GET", "/v2/bert/manifests/1.0.0", 401)):
            headers = sign_request(key, method, signed, now=time.time())
            assert raw.request("GET", target, headers=headers).status_code == status
        upload = "/v2/anna/blobs/uploads/"
        headers = sign_request(key, "POST", upload, now=time.time())
        assert raw.request("POST", upload, headers=headers).status_code == 403
