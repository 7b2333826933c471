"""From a patient's scans to their one row."""

from typing import Final

from algorithms.ct_lung_involvement.lungs import NoLungsError
from algorithms.ct_lung_involvement.measuring import DARK_BELOW_HU, Bands, Involvement, Settings, measure
from algorithms.one_patient import NoRowError, Patient
from algorithms.one_patient.program import Row

NO_LUNGS: Final = "NO_LUNGS"
SETTINGS: Final = "SETTINGS"
"""Hyperparameters that contradict each other: bands that do not follow one another."""
_DECIMALS: Final = 6


def row_of(patient: Patient) -> Row:
    """Return the row of the scan that shows most disease, of those that show the lungs whole where there is one.

    A patient with several scans counts once, at the worst; a scan without lungs among others is passed over.

    Raises:
        NoRowError: no scan shows lungs, one is no volume, or the run's settings contradict each other.
    """
    settings = settings_of(patient)
    found: list[Involvement] = []
    for scan in patient.scans():
        try:
            found.append(measure(scan.image, settings))
        except NoLungsError:
            continue
    if not found:
        raise NoRowError(NO_LUNGS)
    worst = max(found, key=lambda each: (not each.cut_off, each.lungs.involved))
    return {
        "lung_volume_ml": round(worst.volume_ml, 1),
        "dark_share": round(worst.lungs.dark, _DECIMALS),
        "aerated_share": round(worst.lungs.aerated, _DECIMALS),
        "ground_glass_share": round(worst.lungs.ground_glass, _DECIMALS),
        "consolidation_share": round(worst.lungs.consolidation, _DECIMALS),
        "involved_share": round(worst.lungs.involved, _DECIMALS),
        **_of_third("apical", worst.apical),
        **_of_third("middle", worst.middle),
        **_of_third("basal", worst.basal),
        "coverage": "cut-off" if worst.cut_off else "whole",
    }


def settings_of(patient: Patient) -> Settings:
    """Return the run's settings.

    Raises:
        NoRowError: the bands do not follow one another.
    """
    config = patient.config
    settings = Settings(
        ground_glass_from_hu=int(config["ground_glass_from_hu"]),
        consolidation_from_hu=int(config["consolidation_from_hu"]),
        closing_mm=float(config["closing_mm"]),
        rim_mm=float(config["rim_mm"]),
    )
    if not DARK_BELOW_HU < settings.ground_glass_from_hu < settings.consolidation_from_hu:
        raise NoRowError(SETTINGS)
    return settings


def _of_third(third: str, bands: Bands | None) -> Row:
    return {
        f"{band}_{third}": None if bands is None else round(getattr(bands, band), _DECIMALS)
        for band in ("ground_glass", "consolidation", "involved")
    }
