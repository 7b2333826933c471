"""Which options of PS3.15 Annex E an instance is pseudonymised under, with their codes of PS3.16 CID 7050.

Values only: what an option does is in `rules`. The profile itself (113100) is no option. What was done to pixels
(113101) is no option either: it is claimed from what the inspection of an instance found, see
`attributes_written.PixelClaims`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from policies.documents import Sequence, StrictModel
from policies.errors import SettingsError

RECIPE_VERSION: Final = 2
"""Grows when the same input, key and options would give another output; stands in De-identification Method."""
MAX_SAFE_PRIVATE: Final = 256
_PRIVATE_ELEMENT = re.compile(r"([!-~](?:[ -~]{0,62}[!-~])?):([0-9a-f]{4}),xx([0-9a-f]{2}):([A-Z]{2})")


class Option(StrEnum):
    """The options that a collection may choose, as its settings name them."""

    MODIFIED_DATES = "modified-dates"
    PATIENT_CHARACTERISTICS = "patient-characteristics"
    DEVICE_IDENTITY = "device-identity"
    CLEAN_DESCRIPTORS = "clean-descriptors"
    SAFE_PRIVATE = "safe-private"


@dataclass(frozen=True, slots=True)
class MethodCode:
    """A code of CID 7050 (coding scheme DCM)."""

    value: str
    meaning: str


PROFILE: Final = MethodCode("113100", "Basic Application Confidentiality Profile")
CLEAN_PIXELS: Final = MethodCode("113101", "Clean Pixel Data Option")
CLEAN_FACES: Final = MethodCode("113102", "Clean Recognizable Visual Features Option")
OPTION_CODES: Final = {
    Option.CLEAN_DESCRIPTORS: MethodCode("113105", "Clean Descriptors Option"),
    Option.MODIFIED_DATES: MethodCode(
        "113107", "Retain Longitudinal Temporal Information Modified Dates Option"
    ),
    Option.PATIENT_CHARACTERISTICS: MethodCode("113108", "Retain Patient Characteristics Option"),
    Option.DEVICE_IDENTITY: MethodCode("113109", "Retain Device Identity Option"),
    Option.SAFE_PRIVATE: MethodCode("113111", "Retain Safe Private Option"),
}


def _private_element(text: str) -> str:
    match = _PRIVATE_ELEMENT.fullmatch(text)
    if match is None or int(match[2], 16) % 2 == 0 or int(match[2], 16) < 9:
        raise ValueError(
            "is not a private element: creator:gggg,xxee:VR, such as 'SIEMENS MR HEADER:0019,xx0c:IS'"
        )
    return text


PrivateElementText = Annotated[str, AfterValidator(_private_element)]
"""``creator:gggg,xxee:VR``, as PS3.15 table E.3.10-1 writes an element, in lower-case hex."""


@dataclass(frozen=True, slots=True)
class PrivateElement:
    """A private attribute: its creator, odd group, offset in the block, and VR."""

    creator: str
    group: int
    offset: int
    vr: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a `PrivateElementText`.

        >>> PrivateElement.parse("GEMS_PARM_01:0043,xx27:SH")
        PrivateElement(creator='GEMS_PARM_01', group=67, offset=39, vr='SH')
        """
        match = _PRIVATE_ELEMENT.fullmatch(text)
        if match is None:
            raise SettingsError("safe_private: not of the form creator:gggg,xxee:VR")
        return cls(match[1], int(match[2], 16), int(match[3], 16), match[4])


class DeidentificationOptions(StrictModel):
    """The options of one collection.

    Attributes:
        chosen: the options beside the Basic Profile, each once; without `modified-dates` no date stays.
        safe_private: private elements the hospital holds safe beside those of table E.3.10-1.
    """

    chosen: Sequence[Annotated[Option, Field(strict=False)]] = (Option.MODIFIED_DATES,)
    safe_private: Sequence[PrivateElementText] = Field(default=(), max_length=MAX_SAFE_PRIVATE)

    @field_validator("chosen")
    @classmethod
    def _in_order(cls, chosen: tuple[Option, ...]) -> tuple[Option, ...]:
        if len(set(chosen)) != len(chosen):
            raise ValueError("an option stands twice")
        # In one order, so that the same options written differently give the same bytes.
        return tuple(option for option in Option if option in chosen)

    @model_validator(mode="after")
    def _extra_elements_are_used(self) -> Self:
        if self.safe_private and Option.SAFE_PRIVATE not in self.chosen:
            raise ValueError("safe_private names elements, but the option safe-private is not chosen")
        return self

    def codes(self) -> tuple[MethodCode, ...]:
        """Return the codes of the profile and of the options chosen, by their number."""
        chosen = (OPTION_CODES[option] for option in self.chosen)
        return (PROFILE, *sorted(chosen, key=lambda code: code.value))

    def private_elements(self) -> tuple[PrivateElement, ...]:
        """Return the hospital's own safe private elements."""
        return tuple(PrivateElement.parse(text) for text in self.safe_private)


DEFAULT_OPTIONS: Final = DeidentificationOptions()


def options_of(deidentification: Iterable[str], safe_private: Iterable[str] = ()) -> DeidentificationOptions:
    """Return the options that the settings of a collection ask for.

    Args:
        deidentification: names of options, as `Option` has them.
        safe_private: ``creator:gggg,xxee:VR`` entries.

    Raises:
        SettingsError: an option or entry is not one.
    """
    try:
        return DeidentificationOptions.model_validate(
            {"chosen": tuple(deidentification), "safe_private": tuple(safe_private)}
        )
    except ValueError as error:
        raise SettingsError(
            "deidentification: an option or a safe private element is not one",
            hint=f"Options: {', '.join(Option)}. Elements: creator:gggg,xxee:VR.",
        ) from error
