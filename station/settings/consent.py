"""Settings of the consent register: what was asked, and where its codes are explained."""

from pydantic import Field

from policies.documents import StrictModel
from station.settings.sections import FilePath


class ConsentSettings(StrictModel):
    """The consent register."""

    registry_asked_apart: bool = Field(
        default=False,
        description="Whether patients are asked about the supply to the registry in a question of its own. True: without "
        "that consent nothing of a patient is used. False: consent to research includes the supply, until a register "
        "states an answer to that question; from then on it is asked apart whatever stands here.",
    )
    codes_file: FilePath | None = Field(
        default=None,
        description="A JSON file that says which purpose a code of a FHIR Consent means and which issuer an identifier "
        "system is, relative to the station's home. Without it FHIR is not imported.",
    )
