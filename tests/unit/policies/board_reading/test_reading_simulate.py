"""`pht-board simulate`: the stations' own rules, asked of their profiles; what a profile cannot know is never a yes."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from admission_facts import order as run_order
from board_kit import NOW, BoardKit, register_yaml
from reading_kit import MANIFEST

from policies.board.simulation.answers import Simulation, StationAnswer, simulate
from policies.board.simulation.assumptions import Question, facts_for, hospital_rules
from policies.charter import REGISTER_PAYLOAD_TYPE
from policies.cli import app
from policies.console import run
from policies.documents import canonical_json, digest_of, format_moment, load_yaml
from policies.errors import DocumentError, ExitCode
from policies.manifest import TrainManifest
from policies.order import PAYLOAD_TYPE as ORDER_PAYLOAD_TYPE
from policies.policy import Policy
from policies.purposes import PURPOSES_PAYLOAD_TYPE
from policies.rules.admission import decide, explain
from policies.signing import Signer, generate_key, load_signer, sign_envelope
from policies.station_profile import PAYLOAD_TYPE, StationProfile
from station.catalogue.profile import station_profile
from station.catalogue.published import PublishedRow
from station.settings import example

IMAGE = "sha256:" + "1" * 64
TRAIN = MANIFEST.format(image=IMAGE).encode()
GRANT = {
    "manifest_digest": digest_of(TRAIN),
    "image_config_digests": [IMAGE],
    "data.clinical_fields": ["pneumonia"],
    "runs.minimum_stations": 3,
    "runs.releases": 400,
}
OFFER = {
    "name": "thorax-cxr",
    "marking": "patient",
    "consent_mode": "opt-out",
    "requester_classes": ["participant"],
    "purposes": ["method-development"],
    "countries": ["NL"],
    "counts": {"patients": 40, "studies": 40, "images": {"DX": 40}},
}


def profile(name: str = "amstel", offer: Mapping[str, Any] | None = None, **changes: Any) -> StationProfile:
    document = {
        "station": name,
        "made": format_moment(NOW),
        "collections": [{**OFFER, **(offer or {})}],
        "ceilings": {
            "memory_mib": 8192,
            "cpus": 4.0,
            "pids": 512,
            "scratch_mib": 1024,
            "message_timeout_s": 3600,
            "runs_at_once": 1,
        },
        "operator_approval": "never",
        "consent_max_age_days": 7,
        "failed_messages": 3,
        "timezone": "Europe/Amsterdam",
        "engine": {"name": "docker", "version": "20.10", "architecture": "x86_64"},
        **changes,
    }
    return StationProfile.model_validate_json(canonical_json(document))


def board_policy(board: BoardKit | None = None, **changes: Any) -> bytes:
    from board_kit import example_policy

    dotted = {path.replace("__", "."): value for path, value in changes.items()}
    if board is not None:
        return board.policy(1, {**GRANT, **dotted})
    return example_policy({**GRANT, **dotted})


def question(train: bytes | None = TRAIN, **changes: Any) -> Question:
    data = board_policy(**changes)
    return Question(
        policy=load_yaml(Policy, data, what="policy"),
        policy_digest=digest_of(data),
        manifest=None if train is None else load_yaml(TrainManifest, train, what="train.yaml"),
        order=None,
        register=None,
        purposes=None,
        revoked_stations=frozenset(),
        now=NOW,
    )


def asked(*profiles: StationProfile, train: bytes | None = TRAIN, **changes: Any) -> Simulation:
    return simulate(question(train, **changes), profiles)


def answers(station: StationAnswer) -> dict[str, str]:
    return {rule.rule: rule.answer for rule in station.rules}


def refusing(found: Simulation) -> dict[str, str]:
    """The codes of one station's refusals by rule."""
    (station,) = found.stations
    return {rule.rule: rule.reasons[0].partition(":")[0] for rule in station.rules if rule.answer == "no"}


def test_what_a_profile_knows_is_a_yes_and_the_rest_is_not() -> None:
    (station,) = asked(profile()).stations
    assert station.could_run
    assert answers(station) == {
        "withdrawals": "not known",
        "features": "yes",
        "time": "yes",
        "purpose": "not known",
        "register": "not known",
        "order": "not known",
        "manifest": "not known",
        "hospital": "yes",
        "consent": "not known",
        "data": "not known",
        "budgets": "not known",
        "operator": "yes",
        "cohort": "yes",
        "engine": "yes",
    }


@pytest.mark.parametrize(
    ("strategy", "ranges"),
    [
        ("FedAdam", {"eta": {"minimum": 0.2, "maximum": 0.5}}),
        ("Krum", {"num_malicious_nodes": {"minimum": 1, "maximum": 2}}),
        ("FedTrimmedAvg", {}),
        ("FedProx", {}),
    ],
)
def test_the_order_that_is_assumed_is_within_the_granted_strategy(
    strategy: str, ranges: dict[str, Any]
) -> None:
    granted = {
        "runs__strategies": [strategy],
        "runs__strategy_parameters": {strategy: ranges} if ranges else {},
        "runs__minimum_stations": 5,
        "release__station_results": True,
        "runs__hyperparameters": {"proximal-mu": {"type": "float", "minimum": 0, "maximum": 1, "default": 0}},
    }
    found = asked(profile(), train=None, **granted)
    assert refusing(found) == {}
    assert found.stations[0].could_run


def test_without_the_train_less_is_known() -> None:
    known = answers(asked(profile(), train=None).stations[0])
    assert {rule for rule, answer in known.items() if answer == "yes"} == {"time", "operator", "engine"}


@pytest.mark.parametrize(
    ("station", "changes", "refused"),
    [
        (profile(offer={"name": "other"}), {}, {"hospital": "HOSPITAL_COLLECTION"}),
        (profile(offer={"requester_classes": ["commercial"]}), {}, {"hospital": "HOSPITAL_REQUESTER_CLASS"}),
        (profile(offer={"purposes": []}), {}, {"hospital": "HOSPITAL_PURPOSE"}),
        (profile(offer={"countries": ["BE"]}), {}, {"hospital": "HOSPITAL_COUNTRY"}),
        (profile(offer={"consent_mode": "opt-in"}), {"data__consent_modes": ["opt-out"]}, {"hospital": "HOSPITAL_COLLECTION"}),
        (profile(quiet_hours=[["12:00", "14:00"]]), {}, {"hospital": "HOSPITAL_QUIET_HOURS"}),
        (profile(), {"data__minimum_patients": 50}, {"data": "DATA_TOO_FEW_PATIENTS"}),
        (profile(), {"valid_until": format_moment(NOW - timedelta(hours=1))}, {"time": "POLICY_EXPIRED", "order": "ORDER_BEYOND_POLICY"}),
        (profile(engine={"name": "podman", "version": "4", "architecture": "x", "unfit": ["memory"]}), {}, {"engine": "The container engine cannot enforce memory"}),
    ],
)  # fmt: skip
def test_a_rule_that_refuses_is_named(
    station: StationProfile, changes: dict[str, Any], refused: dict[str, str]
) -> None:
    found = asked(station, **changes)
    assert refusing(found) == refused
    assert not found.stations[0].could_run


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("profile: thorax-1@1", "profile: thorax-99@1", "DATA_FIELDS"),
        ("label: pneumonia", "label: smoking_status_of_nobody", "DATA_FIELDS"),
        ("modalities: [DX]", "modalities: [DX], masks: [lung]", "DATA_NOT_READY"),
    ],
)
def test_a_train_for_which_no_cohort_can_be_defined(before: str, after: str, code: str) -> None:
    train = TRAIN.replace(before.encode(), after.encode())
    assert train != TRAIN
    fields = ["pneumonia", "smoking_status_of_nobody"]
    found = asked(profile(), train=train, data__clinical_fields=fields, data__masks=["lung"])
    assert refusing(found) == {"cohort": code}


def test_a_train_larger_than_the_hospitals_ceilings() -> None:
    ceilings = profile().ceilings.model_copy(update={"memory_mib": 100})
    small = profile().model_copy(update={"ceilings": ceilings})
    assert refusing(asked(small)) == {"hospital": "HOSPITAL_RESOURCES"}
    # Without the train nobody knows what it asks for.
    assert answers(asked(small, train=None).stations[0])["hospital"] == "not known"


def data_answer(minimum: int, patients: int) -> tuple[str, str]:
    counts = {"patients": patients, "studies": 0, "images": {}}
    (station,) = asked(profile(offer={"counts": counts}), data__minimum_patients=minimum).stations
    (rule,) = (rule for rule in station.rules if rule.rule == "data")
    return rule.answer, rule.note


def test_a_rounded_count_refuses_only_beyond_its_bound() -> None:
    # Told as 40, so 49 patients at most: 50 cannot be reached, 49 could.
    assert data_answer(49, 40)[0] == "not known"
    assert data_answer(50, 40)[0] == "no"
    # And never a yes: how many of them agreed, the profile does not say.
    assert data_answer(1, 40)[0] == "not known"


def test_a_count_of_zero_is_too_few_to_say() -> None:
    answer, note = data_answer(50, 0)
    assert answer == "not known"
    assert "0 also stands for too few to say" in note


def test_the_operators_word() -> None:
    assert answers(asked(profile(operator_approval="always")).stations[0])["operator"] == "not known"
    assert answers(asked(profile(operator_approval="training")).stations[0])["operator"] == "not known"


def test_a_hospital_that_asks_for_k_and_an_engine_that_did_not_answer() -> None:
    known = answers(asked(profile(minimum_k=5, engine=None)).stations[0])
    assert (known["anonymity"], known["engine"]) == ("not known", "not known")


def test_hours_that_are_none_are_refused() -> None:
    for changes in (
        {"quiet_hours": [["25:00", "26:00"]]},
        {"timezone": "Mars/Olympus"},
        {"timezone": "../../etc"},
    ):
        with pytest.raises(DocumentError, match="quiet hours"):
            asked(profile(**changes))


def test_enough_stations_or_not() -> None:
    three = [profile(name) for name in ("amstel", "berkel", "dommel")]
    assert asked(*three).verdict == "3 stations do not refuse, 3 are needed: that could be reached."
    closed = profile("dommel", offer={"countries": ["BE"]})
    found = asked(*three[:2], closed)
    assert (found.possible, found.needed) == (2, 3)
    assert found.verdict == "2 of the 3 stations that a run takes: not with these profiles alone."


def test_the_profile_of_a_station_tells_its_own_rules() -> None:
    settings = example()
    table = [PublishedRow(each.name, 30, 30, {}) for each in settings.collections]
    for hour in range(24):
        now = NOW + timedelta(hours=hour)
        assert hospital_rules(station_profile(settings, table, None, now), now) == settings.hospital_rules(
            now
        )


def test_a_refusal_holds_whatever_is_not_known() -> None:
    """The facts that are assumed permit: no rule but a known one refuses under them."""
    facts = facts_for(question(), profile(), ["amstel", "berkel", "dommel"])
    assert not [verdict for verdict in explain(facts) if verdict.reasons]
    assert type(decide(facts)).__name__ == "Permitted"


class Site:
    """A board with a register of three real identities, a signed policy file, and profiles that stations signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.board = BoardKit.found(folder)
        self.identities: dict[str, Signer] = {}
        document = yaml.safe_load(register_yaml(1, "amstel", "berkel", "dommel", "eem"))
        for entry in document["stations"]:
            path = folder / "stations" / f"{entry['name']}.pem"
            generate_key(path)
            self.identities[entry["name"]] = load_signer(path)
            entry["identity_key"] = self.identities[entry["name"]].public_hex
        register = self.board.signed(yaml.safe_dump(document).encode(), payload_type=REGISTER_PAYLOAD_TYPE)
        self.board.repository.set_register(register)
        table = {
            "schema_version": 1,
            "board": "thorax-board",
            "version": 1,
            "rules": [
                {
                    "purpose": "method-development",
                    "requester_class": "participant",
                    "consents": ["research-participants"],
                }
            ],
        }
        purposes = self.board.signed(yaml.safe_dump(table).encode(), payload_type=PURPOSES_PAYLOAD_TYPE)
        self.board.repository.set_purposes(purposes)
        self.board.publish()
        (folder / "policy.yaml").write_bytes(board_policy(self.board))
        (folder / "train.yaml").write_bytes(TRAIN)

    def profile(self, name: str, signer: str = "", **changes: Any) -> Path:
        path = self.folder / f"{name}.dsse.json"
        payload = canonical_json(profile(name, **changes))
        path.write_bytes(sign_envelope(payload, PAYLOAD_TYPE, self.identities[signer or name]))
        return path

    def order(self, signer: str = "requester", **changes: Any) -> Path:
        digest = digest_of((self.folder / "policy.yaml").read_bytes())
        document = run_order(
            digest,
            manifest_digest=digest_of(TRAIN),
            image_config_digest=IMAGE,
            hyperparameters={},
            **changes,
        )
        path = self.folder / "order.json"
        path.write_bytes(sign_envelope(canonical_json(document), ORDER_PAYLOAD_TYPE, self.board.keys[signer]))
        return path

    def arguments(self, *profiles: Path, **options: object) -> list[str]:
        found = ["simulate", str(self.folder / "policy.yaml"), "--at", format_moment(NOW)]
        for path in profiles:
            found += ["--profile", str(path)]
        for name, value in {"repository": self.board.repository.folder, **options}.items():
            found += [f"--{name}", str(value)] if value is not None else []
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def simulated(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, Any]:
    assert run(app, [*arguments, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_on_the_command_line_with_everything_known(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [site.profile(name) for name in ("amstel", "berkel")]
    arguments = site.arguments(*paths, train=site.folder / "train.yaml", order=site.order())
    found = simulated(capsys, arguments)
    known = {rule["rule"]: rule["answer"] for rule in found["stations"][0]["rules"]}
    assert {rule for rule, answer in known.items() if answer == "not known"} == {
        "order",
        "consent",
        "data",
        "budgets",
    }
    assert set(known.values()) == {"yes", "not known"}
    assert (
        found["verdict"] == "2 of the 3 stations that a run takes; not known of dommel: no profile was given."
    )
    assert run(app, arguments) == 0
    out = capsys.readouterr().out
    assert "Would it run there?" in out
    assert "amstel: nothing refuses (profile of 2026-11-22)" in out


def test_a_station_that_the_order_does_not_name(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = site.arguments(site.profile("eem"), order=site.order())
    (station,) = simulated(capsys, arguments)["stations"]
    assert not station["could_run"]
    assert any("ORDER_STATION" in reason for rule in station["rules"] for reason in rule["reasons"])


def test_an_order_of_somebody_else_is_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, site.arguments(site.profile("amstel"), order=site.order("stranger"))) == ExitCode.REFUSED
    assert "ORDER_SIGNATURE" in capsys.readouterr().err


def test_a_profile_of_somebody_else_is_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    path = site.profile("amstel", signer="berkel")
    for identity in (None, site.identities["berkel"].public_hex):
        # The register says whose key it is; one given by hand does not override it.
        assert run(app, site.arguments(path, identity=identity)) == ExitCode.TRUST
    assert "not signed by the key of amstel" in capsys.readouterr().err


def test_a_key_given_by_hand(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    path = site.profile("amstel")
    arguments = site.arguments(path, repository=None, identity=site.identities["amstel"].public_hex)
    assert simulated(capsys, arguments)["stations"][0]["could_run"]
    assert run(app, site.arguments(path, repository=None)) == ExitCode.TRUST
    assert run(app, site.arguments(path, path)) == ExitCode.USAGE


def test_a_station_that_the_board_withdrew(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.board.repository.revoke_station("amstel", "It left.", now=NOW)
    site.board.publish()
    (station,) = simulated(capsys, site.arguments(site.profile("amstel")))["stations"]
    (rule,) = (rule for rule in station["rules"] if rule["rule"] == "register")
    assert rule["answer"] == "no"
    assert rule["reasons"][0].startswith("STATION_REVOKED")


def test_a_policy_that_was_withdrawn_or_replaced_and_a_requester_who_was(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> list[str]:
        (station,) = simulated(capsys, site.arguments(site.profile("amstel")))["stations"]
        (rule,) = (rule for rule in station["rules"] if rule["rule"] == "withdrawals")
        assert rule["answer"] == ("no" if rule["reasons"] else "yes")
        return [reason.partition(":")[0] for reason in rule["reasons"]]

    data = (site.folder / "policy.yaml").read_bytes()
    site.board.publish(site.board.signed(data))
    assert refused() == []
    site.board.publish(site.board.signed(site.board.policy(2, GRANT)))
    assert refused() == ["POLICY_REVOKED"]
    site.board.repository.revoke_requester(site.board.keys["requester"].public_hex, "key lost", now=NOW)
    assert refused() == ["POLICY_REVOKED", "REQUESTER_REVOKED"]


def test_another_train_than_the_policys(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "other.yaml").write_bytes(TRAIN + b"# changed\n")
    code = run(app, site.arguments(site.profile("amstel"), train=site.folder / "other.yaml"))
    assert code == ExitCode.USAGE
    assert "another train than the policy names" in capsys.readouterr().err


def test_a_moment_that_is_none(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "soon" if each == format_moment(NOW) else each for each in site.arguments(site.profile("amstel"))
    ]
    assert run(app, arguments) == ExitCode.USAGE
    assert "2026-01-31T12:00:00Z" in capsys.readouterr().err
