"""`pht-board` as people type it: from the first key to a published, withdrawn and verified policy, and bad input."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from board_desk import TRAIN, Desk, publish, verified
from reading_kit import Entry, pack, tar

from policies.board.contents.report import open_bundle
from policies.cli import app
from policies.console import run
from policies.errors import ExitCode


def test_from_an_empty_folder_to_a_policy_in_force_and_back(drafted: Desk) -> None:
    for name in ("alice", "carol"):
        out = drafted(
            "sign",
            drafted / "policy.yaml",
            "-k",
            drafted / f"{name}.pem",
            "--yes",
            "--train",
            drafted / "train.yaml",
        )
        assert "What a hostile train could carry out: at most" in out
        assert "This leaves to trust: whoever wrote" in out
    assert "2 signatures" in out
    publish(drafted, drafted / "policy.yaml")
    (policy,) = verified(drafted)["policies"]  # type: ignore[misc]
    assert (policy["id"], policy["version"]) == ("cxr-classification", 1)
    assert "Alice, Carol" in drafted("status", "-r", drafted / "repo")

    drafted(
        "revoke", "cxr-classification", 1, "--reason", "wrong label", "-r", drafted / "repo",
        "-k", drafted / "secretary.pem", "--to", drafted / "mirror",
    )  # fmt: skip
    assert verified(drafted)["policies"], "nothing changes before the witness has vouched for it"
    publish(drafted)
    assert verified(drafted)["policies"] == []
    drafted(
        "publish", drafted / "policy.yaml", "-r", drafted / "repo", "-k", drafted / "secretary.pem",
        code=ExitCode.REFUSED,
    )  # fmt: skip
    assert "POLICY_REVOKED" in drafted.err
    assert "Give the file version 2" in drafted.err


def test_a_draft_says_what_the_train_says(drafted: Desk) -> None:
    document = yaml.safe_load((drafted / "policy.yaml").read_text())
    assert document["data"]["clinical_fields"] == ["pneumonia"]
    assert document["release"]["metrics"] == ["loss", "auc"]
    assert document["resources"]["memory_mib"] == 6000
    assert list(document["runs"]["hyperparameters"]) == ["learning_rate"]
    assert document["requester"]["key"] == (drafted / "requester.pub").read_text().strip()
    out = drafted("review", drafted / "policy.yaml", "--train", drafted / "train.yaml")
    assert "To look at" not in out
    assert re.search(r"about [0-9,]+ radiographs", out)


def test_a_bundle_is_reviewed_and_drafted_from(board: Desk) -> None:
    layer = tar(Entry("train.py", b"x" * 2_000_000))
    config = {"config": {"Env": ["PATH=/bin", "SECRET=x"], "Labels": {"a": "b"}}}
    bundle = pack(board / "bundle", [layer, tar(Entry("b", b"y"))], config=config)
    opened = open_bundle(bundle)
    blobs, index = opened.blobs, opened.index
    out = board("review", bundle)
    assert "2 layers, 2 MiB;" in out
    assert "Environment: PATH, SECRET. Labels: 1." in out
    assert "SECRET=x" not in out
    assert "Layer 1: 1.9 MiB, 1 file (step 1)" in out
    board("draft", "--from", board / "bundle", "-o", board / "policy.yaml")
    document = yaml.safe_load((board / "policy.yaml").read_text())
    assert document["manifest_digest"] == index.manifest.digest
    assert document["image_config_digests"][0] == index.config.digest

    blobs.path(index.manifest.digest).chmod(0o640)
    blobs.path(index.manifest.digest).write_bytes(TRAIN.encode() + b"# changed")
    board("review", board / "bundle", code=ExitCode.TRUST)


def test_a_draft_never_overwrites(drafted: Desk) -> None:
    before = (drafted / "policy.yaml").read_bytes()
    drafted("draft", "--from", drafted / "train.yaml", "-o", drafted / "policy.yaml", code=ExitCode.USAGE)
    assert (drafted / "policy.yaml").read_bytes() == before


def test_an_unknown_train_gets_a_skeleton_that_cannot_be_signed(board: Desk) -> None:
    (board / "train.yaml").write_text(TRAIN.replace("name: cxr-classification", "name: lung-counts"))
    board("draft", "--from", board / "train.yaml", "-o", board / "new.yaml", "--board", "thorax-board")
    assert "FILL IN" in board.out
    review = board("review", board / "new.yaml")
    assert (
        "Not filled in yet, so nobody can sign it: title, summary.nl, summary.en, requester.organisation"
        in review
    )
    assert "all zeros" in review
    board("sign", board / "new.yaml", "-k", board / "alice.pem", "--yes", code=ExitCode.DOCUMENT)
    assert "still to be filled in" in board.err
    assert not (board / "new.yaml.dsse.json").exists()


def test_an_examples_names_and_references_are_nobodys_until_the_board_writes_its_own(board: Desk) -> None:
    board("draft", "--from", board / "train.yaml", "-o", board / "new.yaml", "--board", "thorax-board")
    board("sign", board / "new.yaml", "-k", board / "alice.pem", "--yes", code=ExitCode.DOCUMENT)
    assert (
        "still to be filled in: requester.organisation, requester.contact, radiologist, legal." in board.err
    )
    assert not (board / "new.yaml.dsse.json").exists()


@pytest.mark.parametrize(
    "setting", ["runs.rounds", "runs.rounds=none", "runs.none.x=1", "runs.minimum_stations=2", "x=1"]
)
def test_a_setting_that_fits_nothing_writes_nothing(board: Desk, setting: str) -> None:
    code = run(
        app, ["draft", "--from", str(board / "train.yaml"), "-o", str(board / "p.yaml"), "--set", setting]
    )
    assert code in {ExitCode.USAGE, ExitCode.DOCUMENT}
    assert not (board / "p.yaml").exists()


def test_what_differs_from_the_train_is_pointed_out(drafted: Desk) -> None:
    text = (drafted / "policy.yaml").read_text().replace("- auc", "- dice").replace("- pneumonia", "- sex")
    (drafted / "policy.yaml").write_text(text)
    out = drafted("review", drafted / "policy.yaml", "--train", drafted / "train.yaml")
    assert "Not declared by the train: dice." in out
    assert "Declared but withheld: auc." in out
    assert "asks for more clinical fields" in out


def test_a_new_version_is_compared_with_the_one_in_force(drafted: Desk) -> None:
    for name in ("alice", "carol"):
        drafted("sign", drafted / "policy.yaml", "-k", drafted / f"{name}.pem", "--yes")
    publish(drafted, drafted / "policy.yaml")
    text = (
        (drafted / "policy.yaml")
        .read_text()
        .replace("version: 1\nboard", "version: 2\nboard")
        .replace("rounds: 20", "rounds: 30")
    )
    (drafted / "second.yaml").write_text(text)
    out = drafted("review", drafted / "second.yaml", "-r", drafted / "repo")
    assert "What changes against version 1" in out
    assert "runs.rounds: 20 -> 30" in out
    assert "version: 1 -> 2" in out


def test_a_file_changed_after_signing_gets_no_second_signature(drafted: Desk) -> None:
    drafted("sign", drafted / "policy.yaml", "-k", drafted / "alice.pem", "--yes")
    envelope = (drafted / "policy.yaml.dsse.json").read_bytes()
    (drafted / "policy.yaml").write_text((drafted / "policy.yaml").read_text() + "# one more thing\n")
    drafted("sign", drafted / "policy.yaml", "-k", drafted / "carol.pem", "--yes", code=ExitCode.REFUSED)
    assert "other bytes" in drafted.err
    assert (drafted / "policy.yaml.dsse.json").read_bytes() == envelope


def test_one_signature_is_not_published(drafted: Desk) -> None:
    drafted("sign", drafted / "policy.yaml", "-k", drafted / "alice.pem", "--yes")
    arguments = ("publish", drafted / "policy.yaml", "-r", drafted / "repo", "-k", drafted / "secretary.pem")
    drafted(*arguments, "--json", code=ExitCode.REFUSED)
    error = json.loads(drafted.err)["error"]
    assert (error["code"], error["exit_code"]) == ("POLICY_SIGNATURES_TOO_FEW", 4)
    assert not list((drafted / "repo").glob("metadata/*.targets.json"))


def test_the_register_of_stations_is_signed_and_published(board: Desk) -> None:
    from board_kit import register_yaml

    (board / "stations.yaml").write_bytes(register_yaml(1, "amstel"))
    for name in ("alice", "carol"):
        out = board("register", board / "stations.yaml", "-k", board / f"{name}.pem", "--yes")
    assert "amstel: Amstel (NL)" in out
    publish(board, board / "stations.yaml")
    assert verified(board)["stations"] == ["amstel"]


def test_keys_with_passphrases(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk("member", "new", desk / "none.pem", code=ExitCode.USAGE)
    assert not (desk / "none.pem").exists()
    (desk / "phrase").write_text("correct horse\n")
    public = desk.json("member", "new", desk / "dora.pem", "--passphrase-file", desk / "phrase")["public_key"]
    desk("member", "show", "-k", desk / "dora.pem", code=ExitCode.TRUST)
    assert (
        desk("member", "show", "-k", desk / "dora.pem", "--passphrase-file", desk / "phrase").strip()
        == public
    )
    monkeypatch.setenv("PHT_PASSPHRASE", "correct horse")
    assert desk("member", "show", "-k", desk / "dora.pem").strip() == public


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("sign", "policy.yaml", "-k", "absent.pem", "--yes"), ExitCode.NOT_FOUND, "no such key file"),
        (("sign", "-k", "alice.pem", "--yes"), ExitCode.USAGE, "name a policy file"),
        (("sign", "policy.yaml", "-k", "alice.pem"), ExitCode.USAGE, "no terminal"),
        (("sign", "train.yaml", "-k", "alice.pem", "--yes"), ExitCode.DOCUMENT, "is not a known key"),
        (("sign", "absent.yaml", "-k", "alice.pem", "--yes"), ExitCode.DOCUMENT, "cannot be read"),
        (("register", "policy.yaml", "-k", "alice.pem", "--yes"), ExitCode.DOCUMENT, "is not a known key"),
        (("publish", "-r", "repo", "-k", "alice.pem"), ExitCode.TRUST, "not the secretary's"),
        (("publish", "policy.yaml", "-r", "repo", "-k", "secretary.pem"), ExitCode.NOT_FOUND, "no signatures lie"),
        (("witness", "-r", "repo", "-k", "alice.pem", "--once"), ExitCode.TRUST, "not the witness's"),
        (("witness", "-r", "repo", "-k", "witness.pem", "--once"), ExitCode.NOT_FOUND, "nothing is published"),
        (("witness", "-r", "repo", "-k", "witness.pem", "--every", "9", "--lifetime", "5"), ExitCode.USAGE, "--every"),
        (("revoke", "x", "1", "--reason", "y", "-r", "repo", "-k", "secretary.pem"), ExitCode.NOT_FOUND, "not published"),
        (("status", "-r", "absent"), ExitCode.TRUST, "not in force"),
        (("review", "charter.yaml"), ExitCode.DOCUMENT, "is not a known key"),
        (("review", "policy.yaml", "--weights", "train.yaml"), ExitCode.DOCUMENT, "safetensors"),
        (("verify", "mirror", "--root", "repo/metadata/1.root.json"), ExitCode.REFUSED, "never reached"),
        (("verify", "http://x", "--root", "repo/metadata/1.root.json"), ExitCode.USAGE, "https"),
        (("verify", "mirror", "--root", "train.yaml"), ExitCode.TRUST, "root"),
        (("init", "repo", "--charter", "charter.yaml", "--secretary-key", "x", "--witness-key", "y"), ExitCode.DOCUMENT, "public key"),
        (("nonsense",), ExitCode.USAGE, "nonsense"),
        (("status",), ExitCode.USAGE, "repository"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_message_and_its_exit_code(
    drafted: Desk, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: ExitCode, said: str
) -> None:
    monkeypatch.chdir(drafted.folder)
    before = sorted(path for path in drafted.folder.rglob("*") if path.is_file() and path.name != ".lock")
    drafted(*arguments, code=code)
    assert said in drafted.err
    assert "Traceback" not in drafted.err
    drafted(*arguments, "--json", code=code)
    assert json.loads(drafted.err)["error"]["exit_code"] == code
    after = sorted(path for path in drafted.folder.rglob("*") if path.is_file() and path.name != ".lock")
    assert [path.name for path in after if path not in before] in ([], ["state.json"])


def start(*arguments: object, **options: object) -> "subprocess.Popen[bytes]":
    program = "from policies.cli import main; main()"
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(("answer", "signed"), [("yes", True), ("no", False), ("", False)])
def test_a_person_types_yes(drafted: Desk, answer: str, signed: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        process = start(
            "sign",
            drafted / "policy.yaml",
            "-k",
            drafted / "alice.pem",
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        os.write(ours, f"{answer}\n".encode())
        out, _ = process.communicate(timeout=300)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"Sign cxr-classification, version 1? Type yes:" in out
    assert (process.returncode == 0) is signed
    assert (drafted / "policy.yaml.dsse.json").exists() is signed


def test_the_witness_daemon_stops_when_asked(drafted: Desk) -> None:
    drafted("publish", "-r", drafted / "repo", "-k", drafted / "secretary.pem")
    process = start(
        "witness", "-r", drafted / "repo", "-k", drafted / "witness.pem", "--every", 600, "--publish-to", drafted / "mirror",
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (drafted / "mirror" / "metadata" / "timestamp.json").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert b"witness_vouched snapshot=1" in err


def test_every_command_explains_itself(desk: Desk) -> None:
    out = desk("--help")
    for name in (
        "init",
        "member",
        "draft",
        "review",
        "sign",
        "register",
        "purposes",
        "dissent",
        "publish",
        "decide",
        "rotate",
        "witness",
        "revoke",
        "status",
        "verify",
        "schema",
        "root",
    ):
        assert name in out
        assert desk(name, "--help")
