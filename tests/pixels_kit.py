"""Films with text burned in: a drawn chest, words in a font, and whether a word can still be made out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from train_images.phantoms.anatomy import Appearance, draw_chest

Stencil = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Writing:
    """Words on a film.

    Attributes:
        top, left: where they begin, in pixels.
        size: of the font, in pixels.
        grey: 1 is the brightest that the film has, 0 the darkest.
        turned: along the columns, read from below.
    """

    text: str
    top: int
    left: int
    size: int = 22
    grey: float = 1.0
    turned: bool = False


def chest(side: int = 512, seed: int = 7) -> NDArray[np.float64]:
    """Draw a chest without any writing, 0 to 1."""
    generator = np.random.default_rng(seed)
    picture = draw_chest(generator, size=side, opacity=False, appearance=Appearance(noise=0.01))
    return 0.08 + 0.8 * np.clip(picture, 0, 1)


def stencil(shape: tuple[int, ...], writing: Writing) -> Stencil:
    """Return how much of each pixel the letters cover."""
    rows, columns = shape[0], shape[1]
    sheet = Image.new("L", (rows, columns) if writing.turned else (columns, rows), 0)
    font = ImageFont.load_default(size=writing.size)
    place = (writing.top, writing.left) if writing.turned else (writing.left, writing.top)
    ImageDraw.Draw(sheet).text(place, writing.text, fill=255, font=font)
    covered = np.asarray(sheet, dtype=np.float64) / 255
    return np.rot90(covered) if writing.turned else covered


def film(
    *writings: Writing, side: int = 512, bits: int = 12, inverted: bool = False, frames: int = 1
) -> Dataset:
    """Make a radiograph as an X-ray system sends it."""
    picture = chest(side)
    for writing in writings:
        covered = stencil(picture.shape, writing)
        picture = picture * (1 - covered) + writing.grey * covered
    if inverted:
        picture = 1 - picture
    kind = np.uint8 if bits <= 8 else np.dtype("<u2")
    values = np.round(picture * (2**bits - 1)).astype(kind)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.Modality, ds.ImageType, ds.BurnedInAnnotation = "DX", ["ORIGINAL", "PRIMARY", ""], "NO"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = side, side, 1
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 if bits <= 8 else 16, bits, bits - 1
    ds.PixelRepresentation = 0
    if frames > 1:
        ds.NumberOfFrames = frames
    ds.PixelData = values.tobytes() * frames
    ds["PixelData"].VR = "OB" if bits <= 8 else "OW"
    return ds


def pixels_of(ds: Dataset) -> NDArray[np.float64]:
    """Return the first frame's stored values of a plain film."""
    kind = np.uint8 if ds.BitsAllocated == 8 else np.dtype("<u2")
    count = ds.Rows * ds.Columns
    return (
        np.frombuffer(ds.PixelData, dtype=kind, count=count).reshape(ds.Rows, ds.Columns).astype(np.float64)
    )


def legibility(ds: Dataset, writing: Writing) -> float:
    """Return how well letters can be made out, 0 to 1: the best correlation of any quarter of them with the film."""
    pixels = pixels_of(ds)
    covered = stencil(pixels.shape, writing)
    rows, columns = np.nonzero(covered > 0.1)
    place = slice(rows.min() - 2, rows.max() + 3), slice(columns.min() - 2, columns.max() + 3)
    axis = 0 if writing.turned else 1
    best = 0.0
    for letters, shown in zip(
        np.array_split(covered[place], 4, axis=axis), np.array_split(pixels[place], 4, axis=axis), strict=True
    ):
        a, b = letters - letters.mean(), shown - shown.mean()
        best = max(best, abs(float((a * b).sum())) / float(np.sqrt((a**2).sum() * (b**2).sum()) + 1e-9))
    return best
