"""What the hospital says about burned-in text. Pure settings: no image library is needed to read them."""

from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Sequence, StrictModel

Word = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,16}$")]


class PixelSettings(StrictModel):
    """Burned-in text and faces."""

    inspect: Literal["require", "detect-only", "off"] = Field(
        default="require",
        description="'require': films are searched for burned-in text by both detectors, and wait in quarantine where one of "
        "them is missing. 'detect-only': without tesseract the station's own detector masks alone, and nothing is claimed. "
        "'off': nobody looks, and nothing is claimed.",
    )
    allowed_words: Sequence[Word] = Field(
        default=(),
        description="Words that may stay in a film beside the shipped ones (L, R, AP, PA, PORTABLE, LIGGEND).",
    )
    tesseract: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        default="libtesseract.so.5",
        description="The library of the second detector, by name or path (Debian: libtesseract5 and tesseract-ocr-eng).",
    )
    tesseract_timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(
        default=20.0,
        description="Seconds it may take for one picture; a film that takes longer waits in quarantine.",
    )
    most_masked: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.15, description="A film of which more than this share would be masked waits for a person."
    )
