"""Draws a chest-like radiograph: what a detector would show of a simple body, with or without an opacity.

The picture is a sum of smooth attenuation maps and noise. It is no model of disease: the opacity exists so that a network
has something to learn, and lies over the lungs only. Values are 0 (dark, air) to 1 (bright, bone), as MONOCHROME2 shows
them. Nothing here knows patients or DICOM.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float64]

_RIBS: Final = 9
_RIB_DISTANCE: Final = 0.075


@dataclass(frozen=True, slots=True)
class Appearance:
    """How one hospital's apparatus renders a chest.

    Attributes:
        contrast: exponent of the grey curve.
        noise: standard deviation of the quantum noise, of the full range.
        blur_px: sigma of the detector's blur.
    """

    contrast: float = 1.0
    noise: float = 0.02
    blur_px: float = 0.8


@dataclass(frozen=True, slots=True)
class _Chest:
    """Positions in units of the picture's side, origin in its middle."""

    lung_x: float
    lung_width: float
    lung_height: float
    heart: float
    tilt: float


def draw_chest(
    random: np.random.Generator, *, size: int, opacity: bool, appearance: Appearance, marker: bool = False
) -> Picture:
    """Draw one postero-anterior chest view.

    Args:
        random: the only source of variation; equal generators give equal pictures.
        size: rows and columns, in pixels.
        opacity: whether the lungs show the finding.
        appearance: the apparatus.
        marker: whether a side marker ("L") lies on the film.

    Returns:
        Shape (size, size), values in 0..1.
    """
    axis = np.linspace(-0.5, 0.5, size)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    chest = _Chest(
        lung_x=random.uniform(0.17, 0.20),
        lung_width=random.uniform(0.125, 0.155),
        lung_height=random.uniform(0.27, 0.33),
        heart=random.uniform(0.10, 0.14),
        tilt=random.uniform(-0.03, 0.03),
    )
    x = x + chest.tilt * y + random.uniform(-0.02, 0.02)
    y = y + random.uniform(-0.02, 0.02)
    lungs = _lungs(x, y, chest)
    picture = _body(x, y, chest) * (1 - 0.62 * lungs) + 0.10 * _ribs(x, y, chest) * lungs
    picture += _finding(random, x, y, chest, lungs, present=opacity)
    if marker:
        picture = np.maximum(picture, _letter_l(axis))
    picture = _blurred(picture, appearance.blur_px)
    picture = picture * random.uniform(0.92, 1.08) + random.normal(0.0, appearance.noise, picture.shape)
    clipped: Picture = np.clip(picture, 0.0, 1.0) ** appearance.contrast
    return clipped


def _soft(inside: Picture, sharpness: float) -> Picture:
    """Return about 1 where `inside` is positive and about 0 where it is negative."""
    result: Picture = 1.0 / (1.0 + np.exp(-np.clip(inside * sharpness, -50, 50)))
    return result


def _ellipse(x: Picture, y: Picture, centre: tuple[float, float], radii: tuple[float, float]) -> Picture:
    return 1.0 - ((x - centre[0]) / radii[0]) ** 2 - ((y - centre[1]) / radii[1]) ** 2


def _lungs(x: Picture, y: Picture, chest: _Chest) -> Picture:
    sides = [
        _soft(_ellipse(x, y, (side * chest.lung_x, -0.02), (chest.lung_width, chest.lung_height)), 9)
        for side in (-1, 1)
    ]
    heart = _soft(_ellipse(x, y, (0.05, 0.14), (chest.heart + 0.03, chest.heart)), 9)
    return np.clip((sides[0] + sides[1]) * (1 - 0.9 * heart), 0, 1)


def _body(x: Picture, y: Picture, chest: _Chest) -> Picture:
    trunk = _soft(0.46 - np.abs(x) - 0.06 * np.cos(4 * y), 40) * _soft(y + 0.47 - 0.25 * np.abs(x), 30)
    spine = np.exp(-((x / 0.035) ** 2)) * (0.9 + 0.1 * np.cos(90 * y))
    heart = _soft(_ellipse(x, y, (0.05, 0.14), (chest.heart + 0.03, chest.heart)), 9)
    belly = _soft(y - 0.27 - 0.35 * (np.abs(x) - chest.lung_x) ** 2, 25)
    return trunk * np.clip(0.62 + 0.16 * spine + 0.14 * heart + 0.12 * belly, 0, 1)


def _ribs(x: Picture, y: Picture, chest: _Chest) -> Picture:
    # Ribs lie further apart than they are thick, so the nearest one is all that shows.
    height = y + 0.33 - 0.9 * (np.abs(x) - chest.lung_x) ** 2
    nearest = np.clip(np.rint(height / _RIB_DISTANCE), 0, _RIBS - 1)
    arcs: Picture = np.exp(-(((height - nearest * _RIB_DISTANCE) / 0.011) ** 2))
    return arcs


def _finding(
    random: np.random.Generator, x: Picture, y: Picture, chest: _Chest, lungs: Picture, *, present: bool
) -> Picture:
    # Films without the finding get faint shadows too, so that brightness alone does not tell.
    patches = int(random.integers(1, 4)) if present else int(random.integers(0, 3))
    strength = (0.22, 0.36) if present else (0.02, 0.10)
    shadow = np.zeros_like(x)
    for _ in range(patches):
        centre = (
            float(random.choice((-1.0, 1.0))) * chest.lung_x + random.uniform(-0.05, 0.05),
            random.uniform(0.0, 0.20) if present else random.uniform(-0.2, 0.2),
        )
        radii = (random.uniform(0.05, 0.10), random.uniform(0.05, 0.12))
        edge = np.exp(-np.maximum(1.0 - _ellipse(x, y, centre, radii), 0.0))
        shadow = np.maximum(shadow, random.uniform(*strength) * edge)
    return shadow * lungs


def _letter_l(axis: Picture) -> Picture:
    size = axis.size
    film = np.zeros((size, size))
    top, left, step = round(0.08 * size), round(0.88 * size), max(1, size // 64)
    film[top : top + 7 * step, left : left + step] = 0.95
    film[top + 6 * step : top + 7 * step, left : left + 4 * step] = 0.95
    return film


def _blurred(picture: Picture, sigma_px: float) -> Picture:
    reach = max(1, round(3 * sigma_px))
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel /= kernel.sum()
    for dimension in (0, 1):
        turned = np.moveaxis(picture, dimension, 0)
        padded = np.pad(turned, [(reach, reach), (0, 0)], mode="edge")
        summed = np.zeros_like(turned)
        for offset, weight in enumerate(kernel):
            summed += weight * padded[offset : offset + len(turned)]
        picture = np.moveaxis(summed, 0, dimension)
    return picture
