"""What a profile says of a field."""

from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Sequence, StrictModel

ProfileId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}@[0-9]{1,4}$")]
"""Name and version, as in ``thorax-1@1``."""

FieldName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
ClinicalValue = bool | int | float | Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,32}$")] | None


class ProfileField(StrictModel):
    """One agreed field.

    Attributes:
        column: where it stands in the export; of kind `age`, the date of birth, which is never handed over.
        maximum: inclusive; of kind `age`, older patients share this value.
    """

    name: FieldName
    column: FieldName
    kind: Literal["integer", "number", "code", "flag", "age"]
    minimum: float | None = None
    maximum: float | None = None
    codes: Sequence[str] = ()


class Profile(StrictModel):
    """A minimal-dataset profile."""

    id: ProfileId
    fields: Annotated[Sequence[ProfileField], Field(min_length=1)]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns an export under this profile has."""
        return ("patient_id", "accession", *dict.fromkeys(field.column for field in self.fields))

    def band(self, field: str, value: ClinicalValue) -> ClinicalValue:
        """Return a value as a cohort shows it: in the band that the profile gives its field, or as it is.

        Raises:
            KeyError: the profile has no such field.
        """
        known = {entry.name: entry for entry in self.fields}
        known[field]
        return value
