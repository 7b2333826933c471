"""Federated regressions on files: cohorts as stations lay them, the train's ClientApp, the guard, FedAvg as the orchestrator has it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from algorithms.glm import client_app
from algorithms.glm.initial_weights import initial_weights
from orchestrator.federation.aggregation import Inbound, Update, aggregate, make_strategy
from orchestrator.federation.replies import Accepted, Verdict
from orchestrator.federation.strategies import StateFiles
from orchestrator.federation.strategies.state import State
from orchestrator.federation.updates_check import check_release
from policies.documents import load_yaml
from policies.manifest import TrainManifest
from policies.order import StrategyChoice
from policies.policy import ConsentMode, ConsentPurpose, Policy
from policies.splits import Split
from policies.strategies import parameters_of
from policies.wire.arrays import read_layout
from policies.wire.instructions import Blob
from policies.wire.releases import release_tensors
from station.cohorts.definition import CohortDefinition
from station.cohorts.layout import LaidCase, write_documents
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, Withheld

ROOT = Path(__file__).resolve().parents[1]
ORDER = "sha256:" + "5" * 64
SETTINGS: Mapping[str, float] = {
    "minimum_cell_count": 1,
    "minimum_joint_count": 1,
    "ridge": 0.0,
    "efron_ties": True,
}

Row = Mapping[str, Any]
"""What a patient's fields show: text, a number, true or false, or None."""


def train_manifest(name: str = "glm") -> TrainManifest:
    """The train's own manifest."""
    path = ROOT / "train_images" / name / "train.yaml"
    return load_yaml(TrainManifest, path.read_bytes(), what=path.name)


def example_policy(name: str = "glm") -> Policy:
    """The example policy that ships with the train."""
    path = ROOT / "policies" / "examples" / f"{name}.yaml"
    return load_yaml(Policy, path.read_bytes(), what=path.name)


def with_precision(policy: Policy, precision: str) -> Policy:
    """The policy with another precision of tensors."""
    document = policy.model_dump(mode="json")
    document["release"]["tensors"]["precision"] = precision
    return Policy.model_validate_json(json.dumps(document))


def lay_cohort(
    folder: Path, rows: Sequence[Row], *, manifest: TrainManifest, studies: int = 1
) -> CohortCounts:
    """Write a cohort as a station does: a fifth of its patients for validation; returns the station's own counts."""
    definition = CohortDefinition(
        kind=manifest.kind,
        policy_id=manifest.name,
        policy_version=1,
        manifest_digest="sha256:" + "1" * 64,
        collections=("thorax-cxr",),
        consent_purposes=(ConsentPurpose.RESEARCH_PARTICIPANTS,),
        consent_modes=(ConsentMode.OPT_IN,),
        modalities=manifest.data.modalities,
        profile=manifest.data.profile,
        clinical_fields=tuple(name for name in rows[0]),
        minimum_patients=1,
    )
    cases = [
        LaidCase(
            case=f"c{number:05d}-{study}",
            patient=f"p{number:05d}",
            image=f"images/c{number:05d}-{study}.nii",
            mask=None,
            split=Split.VALIDATION if number % 5 == 0 else Split.TRAINING,
            label=None,
            # What a later study shows is of no regression.
            clinical=row if study == 0 else dict.fromkeys(row),
        )
        for number, row in enumerate(rows)
        for study in range(studies)
    ]
    folder.mkdir(parents=True)
    write_documents(folder, definition, cases)
    counted: dict[Split, SplitCounts] = {}
    for split in (Split.TRAINING, Split.VALIDATION):
        inside = [case for case in cases if case.split is split]
        counted[split] = SplitCounts(len({case.patient for case in inside}), len(inside))
    return CohortCounts(counted)


@dataclass
class Hospital:
    """One station: where its cohort lies, and what it counts."""

    name: str
    folder: Path
    counts: CohortCounts


@dataclass
class Federation:
    """Hospitals, an orchestrator's files, and a policy under which everything leaves."""

    folder: Path
    model: Mapping[str, Any]
    hospitals: list[Hospital]
    policy: Policy
    manifest: TrainManifest
    settings: Mapping[str, float] = field(default_factory=lambda: SETTINGS)
    weights: Path = field(init=False)
    releases: dict[str, Release] = field(default_factory=dict)
    strategy: str = "FedAvg"
    moments: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "model.json").write_text(json.dumps(self.model))
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.weights = self.folder / "initial"
        with self.inside(self.hospitals[0].folder):
            save_file(initial_weights(), self.weights)

    @contextmanager
    def inside(self, data: Path) -> Iterator[None]:
        """As in a container: the cohort and the model where the train looks for them."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PHT_DATA", str(data))
            patch.setenv("PHT_MODEL", str(self.folder / "model.json"))
            client_app._warm.clear()
            yield

    def ask(self, hospital: Hospital) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What the train answers at a hospital: arrays and metrics."""
        arrays = ArrayRecord({name: Array(each) for name, each in load_file(self.weights).items()})
        config = ConfigRecord({**self.settings, "server-round": 1})
        message = Message(RecordDict({"arrays": arrays, "config": config}), 1, "train")
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
        with self.inside(hospital.folder):
            content = client_app.app(message, context).content
        metrics = content["metrics"]
        answered = content["arrays"]
        assert isinstance(metrics, MetricRecord)
        assert isinstance(answered, ArrayRecord)
        return {name: each.numpy() for name, each in answered.items()}, dict(metrics)

    def guarded(self, hospital: Hospital, number: int) -> Release | Withheld:
        """What leaves a hospital."""
        arrays, metrics = self.ask(hospital)
        reply = self.folder / f"reply-{hospital.name}"
        save_file(arrays, reply)
        contract = ReleaseContract.build(self.manifest, self.policy, read_layout(self.weights))
        out = self.folder / f"release-{hospital.name}"
        request = GuardRequest(ORDER, number, "train", self.weights, out)
        head = {"type": "reply", "id": 1, "metrics": metrics, "rows": {}, "error": None}
        return Guard(contract, hospital.counts).check(request, head, reply)

    def judged(self, release: Release) -> Verdict:
        """What the orchestrator thinks of a release's bytes, before a strategy sees them."""
        assert release.arrays is not None
        outputs, rules = self.manifest.outputs.tensors, self.policy.release
        assert outputs is not None
        assert rules.tensors is not None
        expected = release_tensors(outputs, rules.tensors, read_layout(self.weights).tensors)
        blob = Blob(digest=release.arrays.digest, size=release.arrays.size)
        return check_release(blob, release.arrays.path, self.weights, expected, rules)

    def round(self, number: int, missing: Sequence[str] = ()) -> None:
        """One round: every hospital but the missing ones."""
        updates = []
        for hospital in self.hospitals:
            if hospital.name in missing:
                continue
            release = self.guarded(hospital, number)
            assert isinstance(release, Release), release
            assert release.arrays is not None
            self.releases[hospital.name] = release
            assert self.judged(release) == Accepted()
            updates.append(Update(hospital.name, release.arrays.path, release.num_examples))
        name = self.strategy
        choice = StrategyChoice.model_validate({"name": name, "parameters": parameters_of(name, {})})  # type: ignore[arg-type]
        outputs = self.manifest.outputs.tensors
        assert outputs is not None
        names = [tensor.name for tensor in read_layout(self.weights).tensors]
        buffers = frozenset(each for each in names if outputs.role_of(each) == "buffer")
        files = StateFiles(self.folder / "moments")
        found = aggregate(
            make_strategy(choice), number, Inbound(self.weights, buffers, self.moments), updates, files
        )
        self.moments = found.state
        self.weights = self.folder / found.weights.digest.removeprefix("sha256:")

    def run(self, rounds: int) -> "Federation":
        """So many rounds of all hospitals."""
        for number in range(1, rounds + 1):
            self.round(number)
        return self

    @property
    def examples(self) -> int:
        """N: what the orchestrator's provenance statement has as the last round's examples."""
        return sum(release.num_examples for release in self.releases.values())


def federation(
    folder: Path,
    model: Mapping[str, Any],
    rows: Sequence[Sequence[Row]],
    *,
    name: str = "glm",
    policy: Policy | None = None,
    studies: int = 1,
    **settings: float,
) -> Federation:
    """A consortium of one hospital for each list of rows, under the train's example policy."""
    manifest = train_manifest(name)
    hospitals = [
        Hospital(
            f"hospital-{place}",
            folder / f"cohort-{place}",
            lay_cohort(folder / f"cohort-{place}", some, manifest=manifest, studies=studies),
        )
        for place, some in enumerate(rows)
    ]
    chosen = {**SETTINGS, **settings}
    return Federation(
        folder / "run", model, hospitals, policy or example_policy(name), manifest, settings=chosen
    )


AGES = ("20-29", "40-49", "60-69", "80-89")


def patients(seed: int, count: int, *, shift: float = 0.0, missing: float = 0.0) -> list[dict[str, Any]]:
    """Made-up patients of one hospital; `shift` makes a hospital's sicker than another's.

    The outcomes follow from what is known of each: pneumonia, `days` in hospital (a count, over a `stay` that it is per), a blood
    value, and `weeks` until the event `worse`.
    """
    random = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for _ in range(count):
        age, male = str(random.choice(AGES)), bool(random.random() < 0.5)
        temperature = round(2 * float(random.normal(37.5 + shift, 1))) / 2
        linear = -0.5 + 0.6 * (age > "5") + 0.3 * male + 0.5 * (temperature - 37)
        crp = max(0, round((60 + 30 * linear + 25 * float(random.normal())) / 10) * 10)
        stay = int(random.integers(1, 15))
        hazard = 0.15 * np.exp(0.5 * linear)
        until = int(random.exponential(1 / hazard)) + 1
        row: dict[str, Any] = {
            "pneumonia": int(random.random() < 1 / (1 + np.exp(-linear))),
            "age_years": age,
            "sex": "M" if male else "F",
            "temperature_c": temperature,
            "crp_mg_l": crp,
            "stay": stay,
            "days": int(random.poisson(stay * np.exp(-1 + 0.3 * linear))),
            "weeks": min(until, 9),
            "worse": until <= 9 and bool(random.random() < 0.85),
        }
        for name in ("age_years", "temperature_c", "sex"):
            if random.random() < missing:
                row[name] = None
        found.append(row)
    return found


HOSPITALS = (patients(1, 123, missing=0.03), patients(2, 77, shift=0.7), patients(3, 251, shift=-0.3))
"""Three hospitals of different sizes, whose patients differ; the first has gaps."""

COVARIATES: list[dict[str, Any]] = [
    {
        "field": "age_years",
        "groups": {"under 50": ["20-29", "40-49"], "50 and over": ["60-69", "80-89"]},
        "reference": "under 50",
    },
    {"field": "sex", "groups": {"F": ["F"], "M": ["M"]}, "reference": "F", "excluded": ["O", "U"]},
    {"field": "temperature_c", "centre": 37, "per": 1},
]
LOGISTIC: dict[str, Any] = {
    "family": "logistic",
    "outcome": {"field": "pneumonia", "values": {"0": 0, "1": 1}},
    "covariates": [*COVARIATES, {"field": "crp_mg_l", "centre": 50, "per": 50}],
}
LINEAR: dict[str, Any] = {
    "family": "linear",
    "outcome": {"field": "crp_mg_l", "per": 10},
    "covariates": COVARIATES,
}
POISSON: dict[str, Any] = {
    "family": "poisson",
    "outcome": {"field": "days"},
    "exposure": {"field": "stay"},
    "covariates": COVARIATES,
}
COX: dict[str, Any] = {
    "family": "cox",
    "outcome": {"field": "worse", "values": {"false": 0, "true": 1}},
    "time": {"field": "weeks"},
    "covariates": COVARIATES,
}


def complete(rows: Sequence[Row]) -> list[Row]:
    """Those who lack nothing."""
    return [row for row in rows if None not in row.values()]


def columns_of(rows: Sequence[Row], *, crp: bool = False, intercept: bool = True) -> NDArray[np.float64]:
    """The columns of the models above, made without any code of the train."""
    return np.array(
        [
            [
                *([1.0] if intercept else []),
                float(row["age_years"] in {"60-69", "80-89"}),
                float(row["sex"] == "M"),
                row["temperature_c"] - 37,
                *([(row["crp_mg_l"] - 50) / 50] if crp else []),
            ]
            for row in rows
        ],
        np.float64,
    )


def pooled(rows: Sequence[Sequence[Row]] = HOSPITALS) -> list[Row]:
    """Complete patients of all hospitals, as nobody ever has them together."""
    return [row for some in rows for row in complete(some)]
