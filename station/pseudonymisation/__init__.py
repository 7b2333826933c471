"""Pseudonymisation of DICOM by PS3.15 Annex E, keyed per hospital and project."""

from station.pseudonymisation.engine import PseudonymisedInstance, Pseudonymiser
from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.keys import PseudonymKey
from station.pseudonymisation.options import DeidentificationOptions, Option, options_of

__all__ = [
    "DeidentificationOptions",
    "Option",
    "PseudonymKey",
    "PseudonymisationError",
    "PseudonymisationFault",
    "PseudonymisedInstance",
    "Pseudonymiser",
    "options_of",
]
