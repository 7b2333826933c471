"""A made-up chest in three dimensions: how dense it is at any point of the patient, in Hounsfield units.

Defined in the patient's own millimetres (DICOM's x to the left, y to the back, z to the head), so that any stack of
slices, straight or oblique, shows the same body. Like the radiographs it is no model of disease: the nodule exists so
that there is something to find and to segment. Nothing here knows patients or DICOM.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Millimetres = NDArray[np.float64]

AIR_HU: Final = -1000.0
_LUNG_HU: Final = -850.0
_SOFT_HU: Final = 40.0
_BONE_HU: Final = 700.0
_NODULE_HU: Final = 60.0
_RIB_DISTANCE_MM: Final = 26.0
_RIB_MM: Final = 8.0


@dataclass(frozen=True, slots=True)
class Thorax:
    """One made-up person's chest, about the origin.

    Attributes:
        width_mm, depth_mm: the trunk's half axes.
        lung_mm: a lung's half axes in x, y, z.
        nodule: centre (x, y, z) and radius in millimetres; None without one.
    """

    width_mm: float
    depth_mm: float
    lung_mm: tuple[float, float, float]
    nodule: tuple[float, float, float, float] | None

    @classmethod
    def draw(cls, random: np.random.Generator, *, nodule: bool) -> "Thorax":
        """Make one up.

        Args:
            random: the only source of variation.
            nodule: whether there is one, inside a lung.
        """
        width, depth = random.uniform(150, 175), random.uniform(95, 115)
        lung = (
            width * random.uniform(0.34, 0.38),
            depth * random.uniform(0.66, 0.74),
            random.uniform(115, 140),
        )
        side = float(random.choice((-1.0, 1.0)))
        centre = (
            side * 0.5 * width + random.uniform(-12, 12),
            random.uniform(-20, 20),
            random.uniform(-25, 25),
            random.uniform(9, 16),
        )
        return cls(width, depth, lung, centre if nodule else None)

    def hounsfield(self, x: Millimetres, y: Millimetres, z: Millimetres) -> NDArray[np.float64]:
        """Return the density at points of the patient."""
        trunk = (x / self.width_mm) ** 2 + (y / self.depth_mm) ** 2
        a, b, c = self.lung_mm
        lungs = ((np.abs(x) - 0.5 * self.width_mm) / a) ** 2 + (y / b) ** 2 + (z / c) ** 2
        heart = ((x - 25) / 60) ** 2 + ((y + 30) / 50) ** 2 + ((z + 45) / 60) ** 2
        spine = x**2 + (y - 0.72 * self.depth_mm) ** 2
        values = np.where(trunk <= 1, _SOFT_HU, AIR_HU)
        values = np.where((lungs <= 1) & (heart > 1), _LUNG_HU + 30 * (y / self.depth_mm), values)
        ribs = (trunk > 0.86) & (trunk < 0.95) & (np.mod(z + 0.4 * y, _RIB_DISTANCE_MM) < _RIB_MM)
        values = np.where(ribs | (spine < 20**2), _BONE_HU, values)
        result: NDArray[np.float64] = np.where(self.inside_nodule(x, y, z), _NODULE_HU, values)
        return result

    def inside_nodule(self, x: Millimetres, y: Millimetres, z: Millimetres) -> NDArray[np.bool_]:
        """Return which points lie in the nodule: the true segmentation."""
        if self.nodule is None:
            return np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), dtype=bool)
        cx, cy, cz, radius = self.nodule
        return np.asarray((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 <= radius**2)
