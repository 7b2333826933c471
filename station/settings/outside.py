"""The sections of station.toml about what the hospital tells outside of its data: rounded counts, a catalogue entry."""

from typing import Annotated

from pydantic import Field

from policies.documents import Sequence, StrictModel

Line = Annotated[str, Field(max_length=500)]
Paragraph = Annotated[str, Field(max_length=4000)]
Email = Annotated[str, Field(pattern=r"^(?:[^@\s<>\"]{1,64}@[A-Za-z0-9.-]{1,190})?$")]
Page = Annotated[str, Field(pattern=r"^(?:https://[^\s<>\"{}|\\^`]{1,480})?$")]
Age = Annotated[int, Field(ge=0, le=120, multiple_of=10)]


class CountsSettings(StrictModel):
    """The table of rounded counts, the only counts that are told outside."""

    every_days: Annotated[int, Field(ge=1, le=366)] = Field(
        default=7, description="The table is looked at again after this many days, never sooner."
    )
    minimum_difference: Annotated[int, Field(ge=10, le=1000)] = Field(
        default=10,
        description="A count changes only when more patients than this came or went since it was set; with as many or "
        "fewer behind it, it is told as 0.",
    )


class DcatSettings(StrictModel):
    """What `pht-station catalogue dcat` writes of the hospital (HealthDCAT-AP); it refuses while something is missing."""

    base_url: Page = Field(default="", description="Datasets are named under this address.")
    access_url: Page = Field(default="", description="The page that says how access is asked for.")
    contact_email: Email = Field(default="", description="Who answers questions about the data.")
    publisher_name: Line = Field(default="", description="The hospital's name.")
    publisher_email: Email = Field(default="", description="How to reach it.")
    publisher_country: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = Field(
        default="NLD", description="Where it is (ISO 3166-1 alpha-3)."
    )
    hdab_name: Line = Field(default="", description="The health data access body in charge.")
    hdab_page: Page = Field(default="", description="Its contact page.")
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] = Field(
        default="nl", description="The language of the texts below."
    )
    description: Paragraph = Field(default="", description="What the collections are, in a paragraph.")
    provenance: Paragraph = Field(
        default="", description="Where the data come from and what was done to them."
    )
    intended_use: Paragraph = Field(default="", description="For what the data may be used.")
    population: Paragraph = Field(default="", description="Whom the data are about.")
    keywords: Sequence[Line] = Field(default=("radiology",), min_length=1, description="Words to find it by.")
    health_category: Annotated[str, Field(pattern=r"^[A-Z]{4}$")] = Field(
        default="EHRS", description="The EHDS category (art. 51), by its code in the EU's list."
    )
    minimum_age: Age | None = Field(
        default=None, description="The youngest patients to expect, in tens of years; stated, never computed."
    )
    maximum_age: Age | None = Field(
        default=None, description="The oldest patients to expect, in tens of years."
    )
