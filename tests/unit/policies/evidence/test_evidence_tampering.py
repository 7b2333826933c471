"""A pack that is not what it claims is refused, and the wrong place is named."""

import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from board_kit import BoardKit
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from evidence_kit import EvidenceRun, members, resigned, rewritten
from station_kit import MANIFEST

from policies.documents import canonical_json, digest_of
from policies.evidence import Finding, verify_pack
from policies.evidence.archive import CRATE, DIGESTS, LEDGER, ORDER, POLICY, STATEMENT, TARGETS, TRAIN
from policies.evidence.statement import MAX_FILES, PAYLOAD_TYPE, RunFact, RunStatement
from policies.opinions import OPINION_PAYLOAD_TYPE
from policies.signing import sign_envelope, unsafe_payload
from policies.wire.instructions import Kind


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvidenceRun]:
    """A finished run with another one among its messages, seen by every test of this file and changed by none."""
    made = EvidenceRun.make(tmp_path_factory.mktemp("evidence"))
    made.round(1, made.kit.ready())
    made.kit.message(made.envelope, Kind.FINISH)
    yield made
    made.kit.close()


@pytest.fixture(scope="module")
def pack(run: EvidenceRun) -> Path:
    return run.pack()


def broken(run: EvidenceRun, pack: Path, root: bytes | None = None) -> Finding:
    """The one step that does not hold."""
    verdict = verify_pack(pack, root or run.root, run.kit.clock())
    assert not verdict.holds
    assert verdict.run is None
    (found,) = [finding for finding in verdict.findings if not finding.holds]
    assert found is verdict.findings[-1]
    return found


def test_a_changed_byte_of_any_file_is_named(run: EvidenceRun, pack: Path, tmp_path: Path) -> None:
    whole = pack.read_bytes()
    with zipfile.ZipFile(pack) as archive:
        places = {info.filename: info.header_offset + 30 + len(info.filename) for info in archive.infolist()}
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    forged = tmp_path / "forged.zip"
    for name, start in places.items():
        for offset in (start, start + sizes[name] // 2, start + sizes[name] - 1):
            forged.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
            found = broken(run, forged)
            assert (found.step, found.where) == ("container", name)


def test_a_changed_byte_anywhere_else_is_found(run: EvidenceRun, pack: Path, tmp_path: Path) -> None:
    whole = pack.read_bytes()
    forged = tmp_path / "forged.zip"
    # Headers and the directory too: some of these bytes mean nothing to a zip tool, and could carry something.
    with zipfile.ZipFile(pack) as archive:
        headers = [info.header_offset + place for info in archive.infolist()[:3] for place in range(0, 30, 3)]
        directory = archive.start_dir
    for offset in [*headers, *range(directory, len(whole), 23), len(whole) - 1]:
        forged.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x41]) + whole[offset + 1 :])
        assert broken(run, forged).step == "container", offset
    for extra in (whole + b"\n", b"x" + whole, whole[:-1], whole[: len(whole) // 2], b"", b"no zip at all"):
        forged.write_bytes(extra)
        assert broken(run, forged).step == "container"


def test_a_file_changed_in_a_container_that_is_in_order_is_named(run: EvidenceRun, pack: Path) -> None:
    for name, data in members(pack).items():
        changed = data.replace(b"1", b"2", 1) if b"1" in data else data + b"\n"
        found = broken(run, rewritten(pack, {name: changed}))
        # The statement is the one file that vouches for itself.
        assert name in {found.where, STATEMENT}, (name, found)
    assert broken(run, rewritten(pack, {TRAIN: None})).where == TRAIN
    found = broken(run, rewritten(pack, {"notes.txt": b"patient 123"}))
    assert (found.step, found.where) == ("files", "notes.txt")


def test_a_pack_that_is_compressed_is_not_inflated(run: EvidenceRun, pack: Path, tmp_path: Path) -> None:
    forged = tmp_path / "bomb.zip"
    with zipfile.ZipFile(forged, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members(pack).items():
            archive.writestr(name, data)
        archive.writestr("zeros", bytes(50_000_000))
    assert broken(run, forged).text == "lists a file that is not stored as it is"


@pytest.mark.parametrize("count", [MAX_FILES + 1, 60_000, 70_000])
def test_a_directory_of_very_many_files_is_not_read(
    run: EvidenceRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    forged = tmp_path / "many.zip"
    with zipfile.ZipFile(forged, "w") as archive:
        for number in range(count):
            archive.writestr(str(number), b"")

    def never(*_: object) -> None:
        pytest.fail("the directory was read")

    monkeypatch.setattr(zipfile, "ZipFile", never)
    found = broken(run, forged)
    assert (found.step, found.where) == ("container", "the container's directory")
    # The count at the end may be a lie.
    whole = bytearray(forged.read_bytes())
    whole[-14:-10] = b"\x01\0\x01\0"
    forged.write_bytes(whole)
    if count > MAX_FILES + 1:
        assert broken(run, forged).where == "the container's directory"


def test_another_boards_root_verifies_nothing(run: EvidenceRun, pack: Path, tmp_path: Path) -> None:
    other = BoardKit.found(tmp_path).repository.root.pinnable()
    assert broken(run, pack, other).step == "repository"
    assert broken(run, pack, b"no root").step == "repository"


def test_another_key_than_the_registers_signs_no_statement(run: EvidenceRun, pack: Path) -> None:
    found = broken(run, resigned(run, pack, key=Ed25519PrivateKey.generate()))
    assert (found.step, found.where) == ("statement", STATEMENT)


def test_what_is_signed_anew_unchanged_holds(run: EvidenceRun, pack: Path) -> None:
    verdict = verify_pack(resigned(run, pack), run.root, run.kit.clock())
    assert verdict.holds, verdict.findings


def release(**changes: object) -> Callable[[RunFact], RunFact]:
    def change(said: RunFact) -> RunFact:
        first, *others = said.releases
        return said.model_copy(update={"releases": (first.model_copy(update=changes), *others)})

    return change


LIES: dict[str, tuple[Callable[[RunFact], RunFact], str, str]] = {
    "another digest of what left": (release(reply_digest=digest_of(b"x")), "ledger", STATEMENT),
    "fewer bytes than left": (release(arrays_bytes=1), "ledger", STATEMENT),
    "a release left out": (
        lambda said: said.model_copy(update={"releases": said.releases[1:]}), "ledger", STATEMENT,
    ),
    "a release of a round that was not ordered": (release(round=3), "statement", STATEMENT),
    "a release after the policy": (
        lambda said: release(recorded=said.as_of + timedelta(days=400))(said), "statement", STATEMENT,
    ),
    "another order": (
        lambda said: said.model_copy(
            update={"order": said.order.model_copy(update={"digest": digest_of(b"x")})}
        ), "order", STATEMENT,
    ),
    "another station": (lambda said: said.model_copy(update={"station": "berkel"}), "statement", STATEMENT),
    "another policy": (
        lambda said: said.model_copy(
            update={"policy": said.policy.model_copy(update={"digest": digest_of(b"x")})}
        ), "board", STATEMENT,
    ),
    "admitted while the state was stale": (
        lambda said: said.model_copy(
            update={
                "repository": said.repository.model_copy(
                    update={"admitted_at": said.as_of + timedelta(hours=9)}
                )
            }
        ), "repository", "trust/",
    ),
    "another state of the repository": (
        lambda said: said.model_copy(
            update={"repository": said.repository.model_copy(update={"targets_version": 99})}
        ), "repository", "trust/",
    ),
    "a release hours after it left": (
        lambda said: release(recorded=said.releases[0].recorded + timedelta(hours=3))(said), "ledger", STATEMENT,
    ),
    "a release before the run was admitted": (
        lambda said: release(recorded=said.repository.admitted_at - timedelta(seconds=1))(said),
        "statement", STATEMENT,
    ),
    "another end of the ledger": (
        lambda said: said.model_copy(
            update={
                "egress": said.egress.model_copy(
                    update={"head": said.egress.head.model_copy(update={"digest": digest_of(b"x")})}
                )
            }
        ), "ledger", STATEMENT,
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_station_cannot_sign_what_the_documents_contradict(run: EvidenceRun, pack: Path, lie: str) -> None:
    change, step, where = LIES[lie]
    found = broken(run, resigned(run, pack, change))
    assert (found.step, found.where) == (step, where), found


def test_a_station_cannot_take_an_entry_out_of_its_chain_or_change_one(run: EvidenceRun, pack: Path) -> None:
    content = members(pack)
    lines, digests = content[LEDGER].splitlines(keepends=True), content[DIGESTS].splitlines(keepends=True)
    entry = json.loads(lines[1])
    changed = canonical_json(entry | {"size": 1})
    forgeries: dict[str, dict[str, bytes | None]] = {
        "an entry less": {LEDGER: b"".join(lines[:1] + lines[2:])},
        "an entry changed": {LEDGER: b"".join([lines[0], changed + b"\n", *lines[2:]])},
        "an entry changed, its digest too": {
            LEDGER: b"".join([lines[0], changed + b"\n", *lines[2:]]),
            DIGESTS: content[DIGESTS].replace(
                digest_of(lines[1][:-1])[7:].encode(), digest_of(changed)[7:].encode()
            ),
        },
        "two entries exchanged": {LEDGER: b"".join([lines[1], lines[0], *lines[2:]])},
        "a digest less": {DIGESTS: b"".join(digests[:-1])},
        "a digest more": {DIGESTS: b"".join([*digests, digests[0]])},
        "no digests": {DIGESTS: b"what is this"},
        "an entry of another run": {
            LEDGER: b"".join([canonical_json(entry | {"order_digest": digest_of(b"x")}) + b"\n", *lines[1:]])
        },
        "an entry cut off": {LEDGER: content[LEDGER][:-1]},
        "an endless entry": {LEDGER: b"9" * 1_000_000},
    }
    for name, files in forgeries.items():
        found = broken(run, resigned(run, pack, files=files))
        assert found.step == "ledger", (name, found)
        assert found.where in {LEDGER, DIGESTS, STATEMENT}, name


def chained(
    pack: Path, change: Callable[[list[dict[str, Any]]], None]
) -> tuple[dict[str, bytes | None], RunFact]:
    """A pack's ledger with other entries, in a chain that is in order; entries of other runs left out."""
    content = members(pack)
    said = RunStatement.decode(unsafe_payload(content[STATEMENT], PAYLOAD_TYPE)).predicate
    entries = [json.loads(line) for line in content[LEDGER].splitlines()]
    change(entries)
    digests = [content[DIGESTS].splitlines()[0].decode()]
    lines = []
    for seq, entry in enumerate(entries, said.egress.first):
        lines.append(canonical_json(entry | {"seq": seq, "previous": f"sha256:{digests[-1]}"}))
        digests.append(digest_of(lines[-1]).removeprefix("sha256:"))
    places = [
        seq
        for seq, entry in enumerate(entries, said.egress.first)
        if entry["type"] == "release" and not entry.get("repeated")
    ]
    head = said.egress.head.model_copy(
        update={"seq": said.egress.first + len(lines) - 1, "digest": f"sha256:{digests[-1]}"}
    )
    return {
        LEDGER: b"".join(line + b"\n" for line in lines),
        DIGESTS: "".join(digest + "\n" for digest in digests).encode(),
    }, said.model_copy(
        update={
            "egress": said.egress.model_copy(update={"entries": len(lines), "head": head}),
            "releases": tuple(
                each.model_copy(update={"ledger_seq": place})
                for each, place in zip(said.releases, places, strict=False)
            ),
        }
    )


def test_a_repeat_repeats_what_left_before_it(run: EvidenceRun, pack: Path) -> None:
    def repeats(**changes: object) -> Callable[[list[dict[str, Any]]], None]:
        def change(entries: list[dict[str, Any]]) -> None:
            first = next(entry for entry in entries if entry["type"] == "release")
            again = {key: value for key, value in first.items() if key != "rules_digest"}
            entries.append(again | {"repeated": True} | changes)

        return change

    files, said = chained(pack, repeats())
    verdict = verify_pack(resigned(run, pack, lambda _: said, files), run.root, run.kit.clock())
    assert verdict.holds, verdict.findings
    lies: list[dict[str, object]] = [
        {"digest": digest_of(b"a leak")}, {"size": 1}, {"arrays_digest": digest_of(b"a leak")}, {"arrays_size": 1},
        {"round": 2}, {"stage": "evaluate"}, {"round": [1]},
    ]  # fmt: skip
    for lie in lies:
        files, said = chained(pack, repeats(**lie))
        found = broken(run, resigned(run, pack, lambda _, said=said: said, files))
        assert (found.step, found.where) == ("ledger", LEDGER), (lie, found)

    def too_early(entries: list[dict[str, Any]]) -> None:
        repeats()(entries)
        entries.insert(0, entries.pop())

    files, said = chained(pack, too_early)
    found = broken(run, resigned(run, pack, lambda _: said, files))
    assert (found.step, found.where) == ("ledger", LEDGER)


def test_a_release_has_a_time_and_a_round_of_its_own(run: EvidenceRun, pack: Path) -> None:
    def timeless(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            entry["time"] = "soon"

    files, said = chained(pack, timeless)
    found = broken(run, resigned(run, pack, lambda _: said, files))
    assert (found.where, found.text.endswith("has no time")) == (LEDGER, True)

    def same_round(entries: list[dict[str, Any]]) -> None:
        first, second, *_ = [entry for entry in entries if entry["type"] == "release"]
        second.update(round=first["round"], stage=first["stage"])

    files, said = chained(pack, same_round)
    first, second, *others = said.releases
    second = second.model_copy(update={"round": first.round, "stage": first.stage})
    said = said.model_copy(update={"releases": (first, second, *others)})
    found = broken(run, resigned(run, pack, lambda _: said, files))
    assert (found.where, found.text) == (STATEMENT, "tells of one release twice")


def test_a_release_that_never_was_has_no_place_in_the_ledger(run: EvidenceRun, pack: Path) -> None:
    def without_the_last(entries: list[dict[str, Any]]) -> None:
        entries.remove([entry for entry in entries if entry["type"] == "release"][-1])

    last = RunStatement.decode(unsafe_payload(members(pack)[STATEMENT], PAYLOAD_TYPE)).predicate.releases[-1]
    files, said = chained(pack, without_the_last)
    verdict = verify_pack(resigned(run, pack, lambda _: said, files), run.root, run.kit.clock())
    assert verdict.holds, verdict.findings
    # At the place of one that was made: the order grants as many.
    made = last.model_copy(
        update={"reply_digest": digest_of(b"x"), "ledger_seq": said.releases[0].ledger_seq}
    )
    said = said.model_copy(update={"releases": (made, *said.releases)})
    found = broken(run, resigned(run, pack, lambda _: said, files))
    assert (found.where, found.text) == (STATEMENT, "tells of one release twice")


def test_documents_of_the_board_and_the_order_are_held_to_their_signatures(
    run: EvidenceRun, pack: Path
) -> None:
    policy = TARGETS + "policies/cxr-classification/1.dsse.json"
    content = members(pack)
    forgeries: dict[str, tuple[dict[str, bytes | None], str, str]] = {
        "another policy": ({policy: content[ORDER]}, "board", policy),
        "a policy left out": ({policy: None}, "board", policy),
        "no register": ({TARGETS + "stations.dsse.json": None}, "board", TARGETS + "stations.dsse.json"),
        "a policy to read that nobody signed": ({POLICY: content[POLICY] + b"\n"}, "board", POLICY),
        "another train": ({TRAIN: MANIFEST + b"\n"}, "order", TRAIN),
        "an order of a stranger": ({ORDER: run.kit.order(signer="stranger")}, "order", ORDER),
        "no timestamp": ({"trust/timestamp.json": None}, "repository", "trust/"),
        "a root that is no root": ({"trust/1.root.json": b"{}"}, "repository", "trust/1.root.json"),
        "a root that nothing leads to": ({"trust/3.root.json": run.root}, "repository", "trust/3.root.json"),
        "a root under another name": ({"trust/01.root.json": run.root}, "repository", "trust/01.root.json"),
        "a file that is no metadata": ({"trust/mirrors.json": b"{}"}, "repository", "trust/mirrors.json"),
    }
    for name, (files, step, where) in forgeries.items():
        found = broken(run, resigned(run, pack, files=files))
        assert (found.step, found.where) == (step, where), (name, found)


def test_the_description_is_held_to_the_files(run: EvidenceRun, pack: Path) -> None:
    crate = json.loads(members(pack)[CRATE])
    crate["@graph"] = [entity for entity in crate["@graph"] if entity["@id"] != TRAIN]
    found = broken(run, resigned(run, pack, files={CRATE: canonical_json(crate)}))
    assert (found.step, found.where) == ("files", CRATE)


@pytest.mark.parametrize(
    "crate",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"@graph": 1}',
        b'{"@graph": [1]}',
        b'{"@graph": [{"@type": "File"}]}',
        b"\xff",
    ],
)
def test_a_description_of_anything_else_is_a_finding_and_no_crash(
    run: EvidenceRun, pack: Path, crate: bytes
) -> None:
    content = members(pack)
    said = RunStatement.decode(unsafe_payload(content[STATEMENT], PAYLOAD_TYPE)).predicate
    files = {name: digest_of(data) for name, data in (content | {CRATE: crate}).items() if name != STATEMENT}
    forged = RunStatement.about(said.model_copy(update={"files": files}))
    envelope = sign_envelope(forged.encode(), PAYLOAD_TYPE, run.kit.board.keys["stranger"])
    found = broken(run, rewritten(pack, {CRATE: crate, STATEMENT: envelope}))
    assert (found.step, found.where) == ("files", CRATE)


@pytest.mark.parametrize("statement", [b"", b"{}", b"[" * 100_000, b'{"payload": ""}', b"\x00" * 100])
def test_a_statement_that_is_none_is_a_finding_and_no_crash(
    run: EvidenceRun, pack: Path, statement: bytes
) -> None:
    found = broken(run, rewritten(pack, {STATEMENT: statement}))
    assert (found.step, found.where) == ("files", STATEMENT)


def test_a_dissent_cannot_be_left_out(tmp_path: Path) -> None:
    run = EvidenceRun.make(tmp_path)
    try:
        board = run.kit.board
        bob = board.keys["bob"]
        name = f"opinions/cxr-classification/1/{bob.public_hex}.dsse.json"
        opinion = {
            "schema_version": 1, "policy_id": "cxr-classification", "version": 1, "verdict": "dissent",
            "policy_digest": digest_of(run.kit.policy), "text": "Too many rounds.", "when": "2026-11-22T11:00:00Z",
        }  # fmt: skip
        board.repository.add_opinion(sign_envelope(canonical_json(opinion), OPINION_PAYLOAD_TYPE, bob))
        run.kit.policy_is_fresh()
        run.envelope = run.kit.ready()
        run.round(1)
        pack = run.pack("with.zip")
        assert TARGETS + name in members(pack)
        verdict = verify_pack(pack, run.root, run.kit.clock())
        assert verdict.holds, verdict.findings
        assert "1 members said more" in verdict.findings[3].text
        found = broken(run, resigned(run, pack, files={TARGETS + name: None}))
        assert (found.step, found.where) == ("board", TARGETS + name)
    finally:
        run.kit.close()
