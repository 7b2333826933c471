"""Where voxels lie: shape and affine, the same grid in RAS order, and with another spacing. Pure.

A grid's affine takes voxel indices to millimetres in RAS (right, anterior and superior grow), as NIfTI has it. Axes may be oblique
to the patient: they keep their direction and are only put in the order and sense nearest to RAS, as MONAI's `Orientation` does.
With another spacing the first voxel's middle stays where it is and the last one's comes within half a voxel of where it was, as with
MONAI's `Spacing` (`scale_extent=False`) on straight axes, so that a model that was trained with either sees the same voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import inv_ornt_aff, io_orientation
from numpy.typing import NDArray

Shape = tuple[int, int, int]
Affine = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """A box of voxels in space.

    Attributes:
        shape: voxels along each axis.
        affine: from voxel indices to RAS millimetres. Shape (4, 4).
    """

    shape: Shape
    affine: Affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance from voxel to voxel along each axis."""
        x, y, z = (float(value) for value in voxel_sizes(self.affine))  # type: ignore[no-untyped-call]
        return x, y, z

    @property
    def orientation(self) -> NDArray[np.float64]:
        """Which RAS axis each axis is nearest to, and whether it runs along (1) or against it (-1). Shape (3, 2)."""
        return np.asarray(io_orientation(self.affine), dtype=np.float64)  # type: ignore[no-untyped-call]

    def in_ras_order(self) -> "Grid":
        """Return the same voxels with axes in the order and sense nearest to right, anterior, superior."""
        turned = self.orientation
        order = np.argsort(turned[:, 0])
        x, y, z = (self.shape[int(axis)] for axis in order)
        return Grid((x, y, z), self.affine @ inv_ornt_aff(turned, self.shape))  # type: ignore[no-untyped-call]

    def with_spacing(self, spacing_mm: Sequence[float]) -> "Grid":
        """Return a grid along the same axes from the same first voxel, with another spacing.

        Args:
            spacing_mm: along each axis.
        """
        scale = np.asarray(spacing_mm, dtype=np.float64) / self.spacing_mm
        last = (np.asarray(self.shape) - 1) / scale
        x, y, z = (int(value) for value in np.round(last + 1))
        return Grid((x, y, z), self.affine @ np.diag([*scale, 1.0]))

    def part(self, start: Sequence[int], shape: Shape) -> "Grid":
        """Return the grid of a box of this one, which may begin outside it."""
        moved = np.eye(4)
        moved[:3, 3] = start
        return Grid(shape, self.affine @ moved)

    def lies_on(self, other: "Grid", tolerance_voxels: float = 0.02) -> bool:
        """Return whether both are one grid: no corner further off than a share of the other's smallest spacing."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, size - 1) for size in self.shape])).reshape(3, -1)
        apart = (self.affine - other.affine)[:3] @ np.vstack([corners, np.ones(corners.shape[1])])
        return float(np.abs(apart).max()) <= tolerance_voxels * min(other.spacing_mm)
