"""What codes mean here: which purpose a code of a FHIR Consent is, and which issuer an identifier system is.

FHIR leaves purposes open, and every hospital's forms have codes of their own: a person writes down what each of them means.

    {"schema_version": 1,
     "purposes": [{"system": "https://example.org/consent", "code": "b", "purpose": "research-participants"}],
     "issuers":  [{"system": "urn:oid:2.16.528.1.1007.3.3.1", "issuer": "Amstelrijk"}]}
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.documents import MAX_DOCUMENT_BYTES, Sequence, StrictModel, load_json
from policies.errors import DataError, SettingsError
from station.intake.consent.decisions import Purpose

Uri = Annotated[str, Field(min_length=1, max_length=500)]


class PurposeCode(StrictModel):
    """A code by which the hospital's forms name a purpose."""

    system: Uri
    code: Annotated[str, Field(min_length=1, max_length=200)]
    purpose: Literal["registry", "research-participants", "research-third-parties", "research-commercial"]


class IssuerSystem(StrictModel):
    """An identifier system, and the issuer that images name for the same ids; empty where they name none."""

    system: Uri
    issuer: Annotated[str, Field(max_length=64)]


class ConsentCodes(StrictModel):
    """What codes mean here."""

    schema_version: Literal[1]
    purposes: Sequence[PurposeCode] = Field(min_length=1)
    issuers: Sequence[IssuerSystem] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        codes = [(one.system, one.code) for one in self.purposes]
        systems = [one.system for one in self.issuers]
        if len(set(codes)) != len(codes) or len(set(systems)) != len(systems):
            raise ValueError("a code or an identifier system stands twice")
        return self

    def purpose(self, system: object, code: object) -> Purpose | None:
        """Return what a coding means, or None where nobody wrote it down."""
        found = (each.purpose for each in self.purposes if (each.system, each.code) == (system, code))
        return next(map(Purpose, found), None)

    def issuer(self, system: object) -> str | None:
        """Return the issuer behind an identifier system, or None where nobody wrote it down."""
        return next((each.issuer for each in self.issuers if each.system == system), None)


def load_codes(path: Path | None) -> ConsentCodes:
    """Read what codes mean here.

    Raises:
        DataError: the station's settings name no such file.
        SettingsError: it cannot be read.
        DocumentError: it is not such a document; names the key.
    """
    if path is None:
        raise DataError(
            "what the codes of a FHIR Consent mean here is not written down",
            hint="Write it in a JSON file and name that in consent.codes_file of station.toml.",
        )
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"consent.codes_file cannot be read ({error.strerror})") from error
    return load_json(ConsentCodes, data, what="consent.codes_file")
