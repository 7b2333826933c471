"""Minimal-dataset profiles: the clinical fields that a consortium agreed on, as data, by name and version.

A manifest names one (`thorax-1@1`), intake reads eCRF exports under it, a cohort's `clinical.csv` is banded as it says.
What a profile does not name does not exist for any of them.
"""

from policies.profiles.anonymity import Anonymity, k_anonymity
from policies.profiles.model import (
    ClinicalValue,
    FieldName,
    Profile,
    ProfileField,
    ProfileId,
    ValueFault,
)
from policies.profiles.shipped import DEFAULT_PROFILE, load_profile, shipped_profiles

__all__ = [
    "DEFAULT_PROFILE",
    "Anonymity",
    "ClinicalValue",
    "FieldName",
    "Profile",
    "ProfileField",
    "ProfileId",
    "ValueFault",
    "k_anonymity",
    "load_profile",
    "shipped_profiles",
]
