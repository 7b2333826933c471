"""From images to patients: one row each, in the order in which the cohort lists patients.

Of several images of a patient the highest score counts, and the finding is there when one of them shows it: who reads a patient's
radiographs calls a finding when one of them shows it. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from algorithms.model_evaluation.calibration import Values


@dataclass(frozen=True, slots=True)
class PatientScores:
    """Scores and findings of patients.

    Attributes:
        scores: 0 to 1. Shape (patients,).
        labels: 0 or 1. Shape (patients,).
    """

    scores: Values
    labels: Values

    def rows(self, threshold: float) -> dict[str, list[float] | list[int]]:
        """Return what the station counts: columns of one value per patient, categories by their place.

        Args:
            threshold: scores on it and above are called positive.
        """
        return {
            "score": self.scores.tolist(),
            "label": self.labels.astype(int).tolist(),
            "called": (self.scores >= threshold).astype(int).tolist(),
            "squared_error": ((self.scores - self.labels) ** 2).tolist(),
        }


def of_patients(patients: Sequence[str], scores: Sequence[float], labels: Sequence[float]) -> PatientScores:
    """Put the images of each patient together, patients in the order of their first image.

    Args:
        patients: of each image.
        scores: of each image, 0 to 1.
        labels: of each image, 0 or 1.
    """
    found: dict[str, tuple[float, float]] = {}
    for patient, score, label in zip(patients, scores, labels, strict=True):
        highest, positive = found.get(patient, (0.0, 0.0))
        found[patient] = (max(highest, score), max(positive, label))
    return PatientScores(
        np.array([score for score, _ in found.values()]), np.array([label for _, label in found.values()])
    )
