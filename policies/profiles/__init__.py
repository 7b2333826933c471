"""Minimal-dataset profiles: the clinical fields that a consortium agreed on, as data, by name and version.

A manifest names one (`thorax-1@1`), intake reads eCRF exports under it, a cohort's `clinical.csv` is banded as it says.
What a profile does not name does not exist for any of them.
"""

from policies.profiles.model import ClinicalValue, FieldName, Profile, ProfileField, ProfileId
from policies.profiles.shipped import DEFAULT_PROFILE, load_profile

__all__ = [
    "DEFAULT_PROFILE",
    "ClinicalValue",
    "FieldName",
    "Profile",
    "ProfileField",
    "ProfileId",
    "load_profile",
]
