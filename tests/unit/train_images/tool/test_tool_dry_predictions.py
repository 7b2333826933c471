"""What a dry run says of predictions: held to the manifest by a station's own code, counted by segment, told in words."""

from pathlib import Path
from typing import Any

import numpy as np
from cohort_files import DEFINITION, KEY, cases
from prediction_kit import predicting_manifest
from station_simulators import Answered, SandboxSimulator, TrainEndsError

from policies.manifest import TrainManifest
from station.cohorts import FrozenCohort, freeze
from station.sandbox.spec import ContainerSpec, ExitClass, TrainFailure, TrainRequest
from train_images.tool.dry_predictions import MOST_CASES, DryQuestion, dry_predictions, prediction_lines


def test_a_researcher_reads_what_a_hospital_would_keep(tmp_path: Path) -> None:
    cohort = freeze(DEFINITION, cases(tmp_path), tmp_path / "cohorts", KEY)
    assert isinstance(cohort, FrozenCohort)
    asked: list[str] = []

    def train(request: TrainRequest, _: Path) -> Answered:
        assert request.case is not None
        asked.append(request.case)
        marks = np.zeros((20, 12), np.uint8)
        if len(asked) == 2:
            raise TrainEndsError(TrainFailure(ExitClass.DECLARED_ERROR, "NO_LABELS", session_ended=False))
        if len(asked) == 3:
            return {}, {}, {"lungs": marks.T.copy()}
        marks[: len(asked), 0] = 1
        return {"involved": float(len(asked))}, {}, {"lungs": marks}

    spec = ContainerSpec(
        run_id="dry-run", image_config_digest=f"sha256:{'0' * 64}", cohort_dir=str(cohort.path), control_dir="/nowhere",
        memory_bytes=1 << 30, cpus=1.0, wall_clock_s=60,
    )  # fmt: skip
    session: Any = SandboxSimulator(train=train).start(spec)
    manifest = TrainManifest.model_validate_json(predicting_manifest())
    question = DryQuestion(1, {"rate": 1.0}, None, tmp_path / "answer.safetensors")
    found = dry_predictions(session, manifest, cohort, question)
    assert found.asked == len(asked) == MOST_CASES
    assert found.kept == MOST_CASES - 2
    assert found.marked == {"lungs: left_lung": MOST_CASES - 2, "lungs: right_lung": 0}
    assert found.measured == {"involved": (1.0, float(MOST_CASES))}
    assert sorted(found.problems.values()) == [1, 1]
    assert not question.arrays_to.exists()
    words = "\n".join(prediction_lines(found))
    assert f"{MOST_CASES - 2} of {MOST_CASES} cases would be kept" in words
    assert "lungs: left_lung marked in 6 of 6" in words
    assert "left out, 1: a label map has not the image's own shape" in words
    assert "left out, 1: it did not answer: NO_LABELS" in words
