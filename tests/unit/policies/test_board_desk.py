"""`pht-board`: purposes, conditions and dissents, withdrawals, decisions, rotation, and what signing shows."""

import json
from pathlib import Path

import pytest
import yaml
from board_desk import Desk, publish, verified, vouch

from policies.errors import ExitCode

PURPOSES = Path(__file__).parents[3] / "policies" / "examples" / "purposes.yaml"


def key(board: Desk, name: str) -> str:
    return (board / f"{name}.pub").read_text().strip()


def sign(board: Desk, *names: str, command: str = "sign", document: str = "policy.yaml") -> None:
    for name in names:
        board(command, board / document, "-k", board / f"{name}.pem", "--yes")


def revoke(board: Desk, *what: object, code: ExitCode = ExitCode.OK) -> str:
    return board(
        "revoke", *what, "--reason", "It is no longer wanted.", "-r", board / "repo", "-k", board / "secretary.pem",
        "--to", board / "mirror", code=code,
    )  # fmt: skip


def stations(board: Desk, *names: str) -> None:
    entries = [
        {
            "name": name,
            "organisation": name,
            "country": "NL",
            "identity_key": "ab" * 32,
            "node_key": "ecdsa-sha2-nistp384 AAAA",
            "agreement": {"reference": "Annex 1", "expires": "2099-12-31"},
        }
        for name in names
    ]
    document = {"schema_version": 1, "board": "thorax-board", "version": 1, "stations": entries}
    (board / "stations.yaml").write_text(yaml.safe_dump(document))
    sign(board, "alice", "carol", command="register", document="stations.yaml")


@pytest.fixture
def purposes(drafted: Desk) -> Desk:
    (drafted / "purposes.yaml").write_bytes(PURPOSES.read_bytes())
    return drafted


def test_a_table_of_purposes_is_signed_published_and_shown(purposes: Desk) -> None:
    board = purposes
    out = board("purposes", board / "purposes.yaml", "-k", board / "alice.pem", "--yes")
    assert "method-development, participant requester: research-participants" in out
    assert "commercial requester: research-third-parties and research-commercial" in out
    board(
        "publish",
        board / "purposes.yaml",
        "-r",
        board / "repo",
        "-k",
        board / "secretary.pem",
        code=ExitCode.REFUSED,
    )
    sign(board, "carol", command="purposes", document="purposes.yaml")
    sign(board, "alice", "carol")
    publish(board, board / "policy.yaml")
    (policy,) = board.json("status", "-r", board / "repo")["policies"]  # type: ignore[misc]
    assert policy["refusal"] == "PURPOSE_TABLE_MISSING"
    publish(board, board / "purposes.yaml")
    (policy,) = board.json("status", "-r", board / "repo")["policies"]  # type: ignore[misc]
    assert policy["refusal"] is None
    assert verified(board)["purposes"]["version"] == 1  # type: ignore[index]
    assert "Table of purposes: version 1" in board("status", "-r", board / "repo")


def test_a_table_of_purposes_only_goes_up(purposes: Desk) -> None:
    board = purposes
    sign(board, "alice", "carol", command="purposes", document="purposes.yaml")
    publish(board, board / "purposes.yaml")
    other = PURPOSES.read_text().replace(
        "external-validation, requester_class: commercial", "health-research, requester_class: commercial"
    )
    (board / "other.yaml").write_text(other)
    sign(board, "alice", "carol", command="purposes", document="other.yaml")
    board(
        "publish",
        board / "other.yaml",
        "-r",
        board / "repo",
        "-k",
        board / "secretary.pem",
        code=ExitCode.REFUSED,
    )
    assert "TRUST_ROLLBACK" in board.err
    assert "Give it version 2" in board.err


def test_conditions_and_a_dissent_come_along_with_the_policy(drafted: Desk) -> None:
    board = drafted
    policy = board / "policy.yaml"
    out = board(
        "sign", policy, "-k", board / "alice.pem", "--yes", "--conditions", "A second reading after 50 cases."
    )
    assert "Your conditions, published with it: A second reading after 50 cases." in out
    sign(board, "carol")
    board("dissent", policy, "-k", board / "bob.pem", "--reason", "The benefit is not shown.", "--yes")
    publish(board, policy)
    said = [
        "Alice (clinician) approves under conditions: A second reading after 50 cases.",
        "Bob (lawyer) dissents: The benefit is not shown.",
    ]
    (found,) = verified(board)["policies"]  # type: ignore[misc]
    assert sorted(found["opinions"]) == said
    shown = board("status", "-r", board / "repo")
    assert all(sentence in shown for sentence in said)
    reviewed = board("review", policy, "-r", board / "repo")
    assert all(sentence in reviewed for sentence in said)
    # The opinion goes where its policy goes.
    revoke(board, "cxr-classification", 1)
    assert not [line for line in board("status", "-r", board / "repo").splitlines() if "dissents" in line]
    assert list((board / "repo" / "targets" / "opinions").rglob("*.json")), "the files stay, as evidence"


def test_nobody_both_signs_and_dissents(drafted: Desk) -> None:
    board, policy = drafted, drafted / "policy.yaml"
    board("dissent", policy, "-k", board / "alice.pem", "--reason", "No.", "--yes")
    board("sign", policy, "-k", board / "alice.pem", "--yes", code=ExitCode.USAGE)
    assert "has signed a dissent" in board.err
    sign(board, "bob", "carol")
    board("dissent", policy, "-k", board / "bob.pem", "--reason", "No.", "--yes", code=ExitCode.USAGE)
    assert "has signed the policy" in board.err


@pytest.mark.parametrize("who", ["requester", "secretary"])
def test_an_opinion_is_a_members(drafted: Desk, who: str) -> None:
    board = drafted
    sign(board, "alice", "carol")
    board("dissent", board / "policy.yaml", "-k", board / f"{who}.pem", "--reason", "No.", "--yes")
    board(
        "publish",
        board / "policy.yaml",
        "-r",
        board / "repo",
        "-k",
        board / "secretary.pem",
        code=ExitCode.TRUST,
    )
    assert not (board / "repo" / "metadata" / "1.targets.json").exists()


def test_a_dissent_of_who_signed_elsewhere_is_not_published(drafted: Desk) -> None:
    board, policy = drafted, drafted / "policy.yaml"
    board("dissent", policy, "-k", board / "alice.pem", "--reason", "No.", "--yes")
    (opinion,) = board.folder.glob("policy.yaml.opinion-*")
    kept = opinion.read_bytes()
    opinion.unlink()
    sign(board, "alice", "carol")
    opinion.write_bytes(kept)
    board("publish", policy, "-r", board / "repo", "-k", board / "secretary.pem", code=ExitCode.USAGE)
    assert "a dissent of a member who signed" in board.err


def test_an_opinion_of_other_bytes_is_not_published(drafted: Desk) -> None:
    board, policy = drafted, drafted / "policy.yaml"
    board("dissent", policy, "-k", board / "bob.pem", "--reason", "No.", "--yes")
    policy.write_text(policy.read_text() + "# a remark\n")
    sign(board, "alice", "carol")
    board("publish", policy, "-r", board / "repo", "-k", board / "secretary.pem", code=ExitCode.TRUST)
    assert "other bytes" in board.err


def test_a_requester_is_withdrawn(drafted: Desk) -> None:
    board = drafted
    sign(board, "alice", "carol")
    publish(board, board / "policy.yaml")
    assert len(verified(board)["policies"]) == 1  # type: ignore[arg-type]
    out = revoke(board, "--requester", board / "requester.pub")
    assert "the requester of cxr-classification version 1" in out
    vouch(board)
    found = verified(board)
    assert found["policies"] == []
    assert found["revoked"] == [f"requester {key(board, 'requester')}: It is no longer wanted."]
    (policy,) = board.json("status", "-r", board / "repo")["policies"]  # type: ignore[misc]
    assert policy["refusal"] == "REQUESTER_REVOKED"
    # A new version with the same requester is refused at the desk already.
    text = (board / "policy.yaml").read_text().replace("version: 1\n", "version: 2\n", 2)
    (board / "second.yaml").write_text(text.replace("schema_version: 2", "schema_version: 1"))
    sign(board, "alice", "carol", document="second.yaml")
    board(
        "publish",
        board / "second.yaml",
        "-r",
        board / "repo",
        "-k",
        board / "secretary.pem",
        code=ExitCode.REFUSED,
    )
    assert "REQUESTER_REVOKED" in board.err


def test_a_station_is_withdrawn(board: Desk) -> None:
    stations(board, "amstel", "berkel")
    publish(board, board / "stations.yaml")
    assert "the station berkel" in revoke(board, "--station", "berkel")
    vouch(board)
    assert verified(board)["revoked"] == ["station berkel: It is no longer wanted."]
    assert "Withdrawn: station berkel: It is no longer wanted." in board("status", "-r", board / "repo")
    revoke(board, "--station", "nowhere", code=ExitCode.NOT_FOUND)


@pytest.mark.parametrize(
    "what",
    [
        (),
        ("cxr-classification",),
        ("cxr-classification", 1, "--station", "amstel"),
        ("--station", "amstel", "--requester", "ab" * 32),
    ],
)
def test_one_thing_is_withdrawn_at_a_time(board: Desk, what: tuple[object, ...]) -> None:
    revoke(board, *what, code=ExitCode.USAGE)
    assert not (board / "repo" / "staged").exists()


def test_decisions_for_the_public(drafted: Desk) -> None:
    board = drafted
    refused = ("--title", "Faces", "--organisation", "Acme", "--nl", "Nee.", "--en", "Not for this purpose.")
    board("decide", "refused", *refused, "-r", board / "repo")
    outcome = ("--nl", "Een model.", "--en", "A model.", "--reference", "https://doi.org/10.1/x")
    board("decide", "outcome", "cxr-classification", 1, *outcome, "-r", board / "repo")
    publish(board)
    (target,) = (board / "mirror" / "targets").glob("*.decisions.json")
    found = json.loads(target.read_bytes())
    assert found["refused"][0]["reason"] == {"nl": "Nee.", "en": "Not for this purpose."}
    assert found["outcomes"][0]["reference"] == "https://doi.org/10.1/x"
    assert verified(board)["policies"] == []
    insecure = ("--nl", "Een model.", "--en", "A model.", "--reference", "http://example.org")
    board(
        "decide", "outcome", "cxr-classification", 1, *insecure, "-r", board / "repo", code=ExitCode.DOCUMENT
    )


def test_signing_shows_the_capacity_and_whom_it_trusts_and_takes_a_typed_yes(drafted: Desk) -> None:
    board, policy = drafted, drafted / "policy.yaml"
    out = board("sign", policy, "-k", board / "alice.pem", "--yes")
    assert "What a hostile train could carry out" in out
    assert "radiograph" in out
    assert "orchestrator" in out.split("What a hostile train could carry out")[1]
    board("sign", policy, "-k", board / "carol.pem", "--json", code=ExitCode.USAGE)
    assert "--yes once you have read it" in board.err
    signed = board.json("sign", policy, "-k", board / "carol.pem", "--yes")
    assert signed["signatures"] == 2
    shown = json.dumps(signed["review"])
    assert "What a hostile train could carry out" in shown
    assert "bits_per_round" in shown or "capacity" in shown


class TestRotation:
    """`pht-board rotate`: what changes is named, the rest stays."""

    def sign_root(self, board: Desk, *names: str) -> str:
        out = ""
        for name in names:
            out = board("sign", "--root", board / "repo", "-k", board / f"{name}.pem", "--yes")
        return out

    def new_key(self, board: Desk, name: str) -> None:
        board("member", "new", board / f"{name}.pem", "--no-passphrase")

    def test_the_secretary_gets_another_key(self, drafted: Desk) -> None:
        board = drafted
        sign(board, "alice", "carol")
        self.new_key(board, "second")
        board("rotate", board / "repo", "--secretary-key", board / "second.pub")
        out = board("sign", "--root", board / "repo", "-k", board / "alice.pem", "--yes")
        assert f"Changes: the secretary gets the key {key(board, 'second')}" in out
        assert "in force" in self.sign_root(board, "bob")
        old = ("publish", board / "policy.yaml", "-r", board / "repo", "-k", board / "secretary.pem")
        board(*old, code=ExitCode.TRUST)
        assert "not the secretary's" in board.err
        board("publish", board / "policy.yaml", "-r", board / "repo", "-k", board / "second.pem")

    def test_the_witness_gets_another_key(self, board: Desk) -> None:
        self.new_key(board, "second")
        publish(board)
        board("rotate", board / "repo", "--witness-key", board / "second.pub")
        self.sign_root(board, "alice", "carol")
        old = ("witness", "-r", board / "repo", "-k", board / "witness.pem", "--once")
        board(*old, code=ExitCode.TRUST)
        board("publish", "-r", board / "repo", "-k", board / "secretary.pem", "--to", board / "mirror")
        board(
            "witness",
            "-r",
            board / "repo",
            "-k",
            board / "second.pem",
            "--once",
            "--publish-to",
            board / "mirror",
        )
        assert verified(board)["state"]["root_version"] == 2  # type: ignore[index]

    def test_a_members_old_key_signs_nothing_any_more_and_what_it_signed_is_named(
        self, drafted: Desk
    ) -> None:
        board = drafted
        sign(board, "alice", "carol")
        publish(board, board / "policy.yaml")
        self.new_key(board, "alice2")
        out = board("rotate", board / "repo", "--member", f"Alice={board / 'alice2.pub'}")
        assert "! cxr-classification version 1 lacks signatures with the keys of this root" in out
        # Old and new members: the root before and the new one each take two.
        self.sign_root(board, "alice", "carol")
        assert "in force" in self.sign_root(board, "alice2")
        assert board.json("status", "-r", board / "repo")["policies"][0]["refusal"] is not None  # type: ignore[index]
        assert "not a member's" in self.refused(board, "alice")
        sign(board, "alice2")
        publish(board, board / "policy.yaml")
        assert len(verified(board)["policies"]) == 1  # type: ignore[arg-type]

    def refused(self, board: Desk, name: str) -> str:
        board("rotate", board / "repo")
        board("sign", "--root", board / "repo", "-k", board / f"{name}.pem", "--yes", code=ExitCode.TRUST)
        return board.err

    def test_a_new_lifetime_and_nothing_else(self, board: Desk) -> None:
        board("rotate", board / "repo")
        out = board("sign", "--root", board / "repo", "-k", board / "alice.pem", "--yes")
        assert "Changes: a new lifetime, and the same people and keys" in out
        assert "in force" in self.sign_root(board, "carol")
        publish(board)
        assert verified(board)["state"]["root_version"] == 2  # type: ignore[index]

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (("--member", "Dave={bob}"), "no member Dave"),
            (("--member", "Alice"), "NAME=key.pub"),
            (("--remove-member", "Alice"), "required role clinician"),
            (("--remove-member", "Bob", "--member", "Bob={alice}"), "Bob"),
            (("--member", "Alice={bob}"), "share a key"),
            (("--witness-key", "{secretary}"), "key of its own"),
        ],
    )
    def test_what_cannot_be(self, board: Desk, change: tuple[str, ...], says: str) -> None:
        files = {name: str(board / f"{name}.pub") for name in ("alice", "bob", "secretary")}
        board("rotate", board / "repo", *(word.format(**files) for word in change), code=ExitCode.USAGE)
        assert says in board.err
        assert not (board / "repo" / "draft" / "root.json").exists()

    def test_one_root_waits_at_a_time(self, board: Desk) -> None:
        board("rotate", board / "repo", "--remove-member", "Bob")
        board("rotate", board / "repo", code=ExitCode.USAGE)
        assert "waits for signatures already" in board.err
        (board / "repo" / "draft" / "root.json").unlink()
        board("rotate", board / "repo")

    def test_a_member_leaves(self, board: Desk) -> None:
        board("rotate", board / "repo", "--remove-member", "Bob")
        out = board("sign", "--root", board / "repo", "-k", board / "alice.pem", "--yes")
        assert "Changes: Bob leaves" in out
        self.sign_root(board, "carol")
        assert "not a member's" in self.refused(board, "bob")
