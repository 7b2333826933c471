"""A made-up chest with disease of known extent, sampled on any scanner's grid: what the lung train is held against.

Analytic in the patient's own millimetres (x to the right, y to the front, z to the head), so the truth needs no segmentation of
anything: lungs with a heart beside and domes below them, a trachea that divides and runs into both, gas in the bowel, a hollow table.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algorithms.one_patient import Volume
from station.cohorts import nifti

Points = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

CONFIG: Mapping[str, float] = {
    "ground_glass_from_hu": -700, "consolidation_from_hu": -250, "closing_mm": 30.0, "rim_mm": 2.5
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ball:
    """A ball of disease; what of it lies outside the lungs is none."""

    x: float
    y: float
    z: float
    radius: float
    hounsfield: float

    def holds(self, at: Points) -> NDArray[np.bool_]:
        x, y, z = at
        return np.asarray((x - self.x) ** 2 + (y - self.y) ** 2 + (z - self.z) ** 2 <= self.radius**2)


@dataclass(frozen=True, slots=True)
class Chest:
    """One chest; `aerated_hu` of healthy lung."""

    disease: tuple[Ball, ...] = ()
    aerated_hu: float = -850.0
    lungs: bool = True
    gas: bool = True

    def in_lung(self, at: Points) -> NDArray[np.bool_]:
        """Which points are lung, sick or not; airways are none."""
        x, y, z = at
        if not self.lungs:
            return np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), bool)
        lobe = ((np.abs(x) - 80) / 58) ** 2 + (y / 75) ** 2 + (z / 130) ** 2 <= 1
        heart = ((x + 30) / 55) ** 2 + ((y - 25) / 50) ** 2 + ((z + 40) / 60) ** 2 <= 1
        dome = (np.abs(x) - 80) ** 2 + y**2 + (z + 170) ** 2 <= 90**2
        return np.asarray(lobe & ~heart & ~dome & ~self._airway(at))

    def _airway(self, at: Points) -> NDArray[np.bool_]:
        x, y, z = at
        trachea = (x**2 + (y + 20) ** 2 <= 9**2) & (z >= 30)
        # From the division, 30 mm up, to 30 mm aside and 20 mm up.
        main = (np.abs(x) <= 30) & (z <= 40) & ((z - 30 + np.abs(x) / 3) ** 2 + (y + 20) ** 2 <= 6**2)
        return np.asarray(trachea | main)

    def hounsfield(self, at: Points) -> NDArray[np.float64]:
        x, y, z = at
        inside = (x / 165) ** 2 + (y / 110) ** 2 <= 1
        values = np.where(inside, 40.0, -1000.0) + 0 * z
        values = np.where(x**2 + (y + 85) ** 2 <= 18**2, 700.0, values)
        if self.gas:
            values = np.where((x - 60) ** 2 + (y - 20) ** 2 + (z + 150) ** 2 <= 40**2, -1000.0, values)
        sick = values * 0 + self.aerated_hu
        for ball in self.disease:
            sick = np.where(ball.holds(at), ball.hounsfield, sick)
        values = np.where(self.in_lung(at), sick, values)
        values = np.where(self._airway(at) & inside, -1000.0, values)
        table = (np.abs(x) <= 200) & (np.abs(y + 140) <= 15)
        hollow = (np.abs(x) <= 196) & (np.abs(y + 140) <= 11)
        return np.asarray(np.where(table, np.where(hollow, -960.0, 100.0), values))


@dataclass(frozen=True, slots=True)
class Scanner:
    """How a chest is cut.

    Attributes:
        spacing_mm: along the axes, before they are turned.
        turned_deg: about x and then about z.
        bottom_mm, top_mm: of the stack, along its own axis.
    """

    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 3.0)
    turned_deg: tuple[float, float] = (0.0, 0.0)
    bottom_mm: float = -165.0
    top_mm: float = 165.0
    noise_hu: float = 15.0
    width_mm: tuple[float, float] = field(default=(430.0, 350.0))

    def affine(self) -> NDArray[np.float64]:
        about_x, about_z = np.radians(self.turned_deg)
        c, s, d, t = np.cos(about_x), np.sin(about_x), np.cos(about_z), np.sin(about_z)
        turn = np.array([[d, -t, 0], [t, d, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        affine = np.eye(4)
        affine[:3, :3] = turn * np.array(self.spacing_mm)
        low = np.array([-self.width_mm[0] / 2, -self.width_mm[1] / 2, self.bottom_mm])
        affine[:3, 3] = turn @ low
        return affine

    def shape(self) -> tuple[int, int, int]:
        sides = (*self.width_mm, self.top_mm - self.bottom_mm)
        x, y, z = (int(side / step) + 1 for side, step in zip(sides, self.spacing_mm, strict=True))
        return x, y, z


def points(affine: NDArray[np.float64], shape: tuple[int, int, int]) -> Points:
    """The middles of voxels, in millimetres; as thin as the axes allow, to be broadcast."""
    indices = np.ogrid[: shape[0], : shape[1], : shape[2]]
    x, y, z = (
        np.asarray(sum((step * index for step, index in zip(row, indices, strict=False) if step), row[3]))
        for row in affine[:3]
    )
    return x, y, z


def scan(chest: Chest, scanner: Scanner = Scanner(), seed: int = 0) -> Volume:
    """Cut a chest: each voxel is the mean over eight points in it, with noise."""
    affine, shape = scanner.affine(), scanner.shape()
    total = np.zeros(shape)
    for offset in np.ndindex(2, 2, 2):
        moved = affine.copy()
        moved[:3, 3] += affine[:3, :3] @ (np.array(offset) / 2 - 0.25)
        total += chest.hounsfield(points(moved, shape))
    total = total / 8 + np.random.default_rng(seed).normal(0, scanner.noise_hu, shape)
    return Volume(np.asfortranarray(np.clip(np.rint(total), -1024, 3000).astype(np.int16)), affine)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a chest: millilitres, shares of its lungs, and of each third of their height from the feet up.

    Of a third: ground glass, and consolidation.
    """

    volume_ml: float
    ground_glass: float
    consolidation: float
    thirds: tuple[tuple[float, float], ...]


def truth(chest: Chest) -> Truth:
    """Count on a grid of 2 mm that no scanner has."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-160, -110, -140)
    at = points(affine, (161, 111, 141))
    lung = chest.in_lung(at)
    values = chest.hounsfield(at)
    height = np.broadcast_to(at[2], lung.shape)
    low, high = height[lung].min(), height[lung].max()
    third = np.clip(np.floor((height - low) / (high - low) * 3), 0, 2)
    glass, solid = lung & (values > -700) & (values < -250), lung & (values >= -250)
    of_lung = [third[lung] == each for each in range(3)]
    return Truth(
        volume_ml=float(lung.sum()) * 8 / 1000,
        ground_glass=float(glass[lung].mean()),
        consolidation=float(solid[lung].mean()),
        thirds=tuple((float(glass[lung][each].mean()), float(solid[lung][each].mean())) for each in of_lung),
    )


def write_patient(
    folder: Path,
    *volumes: Volume,
    config: Mapping[str, float] = CONFIG,
    labels: tuple[NDArray[np.uint8], ...] = (),
) -> None:
    """Lay a patient out as a station does, with the request that a map program finds."""
    for name in ("images", "labels", "request", "reply"):
        (folder / name).mkdir(exist_ok=True)
    entries = []
    for number, volume in enumerate(volumes):
        entry = {"image": f"images/{number}.nii", "case": str(number), "patient": "p"}
        write_volume(folder / entry["image"], volume.voxels, volume.affine)
        if labels:
            entry["label"] = f"labels/{number}.nii"
            write_volume(folder / entry["label"], labels[number], volume.affine)
        entries.append(entry)
    datalist = {"training": [], "validation": entries}
    (folder / "datalist.json").write_text(json.dumps(datalist))
    (folder / "request" / "head.json").write_text(json.dumps({"type": "analyse", "config": dict(config)}))


def write_volume(path: Path, voxels: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    """Write what a station's own code writes."""
    little = voxels.astype(voxels.dtype.newbyteorder("<"))
    path.write_bytes(nifti.header(voxels.shape, affine, voxels.dtype) + little.tobytes(order="F"))
