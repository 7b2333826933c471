"""Radiomics features of one region as the Image Biomarker Standardisation Initiative defines them (IBSI 1).

Computed by MIRP (Zwanenburg and Löck, J Open Source Softw 9:6413, 2024), which was validated against the initiative's consensus
values (Zwanenburg et al., Radiology 295:328, 2020); this train's tests hold it to them again.

The scan is processed as the initiative's configuration C does it: cubes of one size by trilinear interpolation, whole Hounsfield
units, only voxels from -1000 to 400 HU, and textures on bins of one width. Only the features asked for are computed: MIRP's own
choice is by families, of which one (spatial autocorrelation) takes longer than all others together.

MIRP's functions take files or its own image objects; those and its generator of features are no public interface, so the train's
list of wheels holds one version of it.
"""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from algorithms.radiomics.cubes import TooManyCubesError, on_cubes
from algorithms.radiomics.stand_ins import stand_in

stand_in()

from mirp import extract_images  # noqa: E402 - after the stand-ins
from mirp._features.feature_generator import feature_to_table, generate_features  # noqa: E402
from mirp._images.ct_image import CTImage  # noqa: E402
from mirp._masks.base_mask import BaseMask  # noqa: E402
from mirp.settings.feature_parameters import FeatureExtractionSettingsClass  # noqa: E402

FEATURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "volume_mm3": "morph_volume",
        "sphericity": "morph_sphericity",
        "max_diameter_mm": "morph_diam",
        "mean_hu": "stat_mean",
        "variance": "stat_var",
        "skewness": "stat_skew",
        "kurtosis": "stat_kurt",
        "p10_hu": "stat_p10",
        "p90_hu": "stat_p90",
        "glcm_joint_entropy": "cm_joint_entr",
        "glcm_contrast": "cm_contrast",
        "glcm_correlation": "cm_corr",
        "glcm_inverse_difference": "cm_inv_diff",
        "glrlm_short_runs": "rlm_sre",
        "glszm_zone_percentage": "szm_z_perc",
        "ngtdm_coarseness": "ngt_coarseness",
        "ngtdm_busyness": "ngt_busyness",
    }
)
"""Our columns, and MIRP's names of them; the initiative's codes stand in the train's README."""

_PERCENTILES: Final = "stat_p"
"""What MIRP calls all of its percentiles together: the 10th and the 90th."""
_KEPT_HU: Final = [-1000.0, 400.0]
_VOXELS: Final = (64, 400_000)
"""Of a region at the size of the cubes: fewer have no texture, more do not fit the train's memory."""


class NoFeaturesError(ValueError):
    """A region has no features.

    Attributes:
        code: why; what the row says of the lesion.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Processing:
    """How a region is made ready.

    Attributes:
        spacing_mm: sides of the cubes; None leaves the voxels as they are.
        bin_width_hu: of the textures' bins; None takes intensities as they are.
        keep_lung_and_tissue: leave voxels outside -1000 to 400 HU out.
    """

    spacing_mm: float | None = 2.0
    bin_width_hu: float | None = 25.0
    keep_lung_and_tissue: bool = True


def features_of(
    hounsfield: NDArray[Any],
    region: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    processing: Processing,
) -> dict[str, float]:
    """Compute every feature of one region.

    Args:
        hounsfield: (z, y, x), of the whole scan: the cubes lie about its middle.
        region: likewise; what is described.
        spacing_mm: along z, y, x.
        processing: how it is made ready.

    Raises:
        NoFeaturesError: the region is empty, too small or too large, or a feature has no value for it (one grey level only).
    """
    if not region.any():
        raise NoFeaturesError("none")
    cube = np.prod(spacing_mm) if processing.spacing_mm is None else processing.spacing_mm**3
    if float(region.sum() * np.prod(spacing_mm) / cube) > _VOXELS[1]:
        raise NoFeaturesError("too-large")
    if processing.spacing_mm is not None:
        try:
            hounsfield, region = on_cubes(hounsfield, region, spacing_mm, processing.spacing_mm)
        except TooManyCubesError as error:
            raise NoFeaturesError("too-large") from error
        spacing_mm = (processing.spacing_mm,) * 3
    with _silence():
        image, mask = _processed(hounsfield, region, spacing_mm, processing)
    if mask is None or int(np.sum(mask.roi_intensity.get_voxel_grid())) < _VOXELS[0]:
        raise NoFeaturesError("too-small")
    wanted = [*FEATURES.values(), _PERCENTILES]
    found = list(generate_features(settings=_settings(processing), features=wanted))
    # What it warns of (a single grey level) ends below as a value that is none.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for feature in found:
            feature.compute(image=image, mask=mask)
    table = feature_to_table(found)
    values = {column: _named(table, name) for column, name in FEATURES.items()}
    if not np.isfinite(list(values.values())).all():
        raise NoFeaturesError("undefined")
    return values


@contextmanager
def _silence() -> Iterator[None]:
    """Keep MIRP, which writes to the root logger, from saying which scan it works on; as it was before, after."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def _processed(
    hounsfield: NDArray[Any],
    region: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    processing: Processing,
) -> tuple[Any, Any]:
    """Return MIRP's image and mask, resegmented; no mask where nothing is left of it."""
    place = {
        "image_spacing": spacing_mm,
        "image_origin": (0.0, 0.0, 0.0),
        "image_orientation": np.eye(3),
        "image_dimensions": hounsfield.shape,
        "image_modality": "ct",
        "sample_name": "patient",
    }
    options: dict[str, object] = {}
    if processing.keep_lung_and_tissue:
        options |= {"resegmentation_method": "range", "resegmentation_intensity_range": _KEPT_HU}
    (made,) = extract_images(
        image=CTImage(image_data=hounsfield.astype(np.float64), **place),
        mask=BaseMask(roi_name="lesion", image_data=region, **place),
        image_export_format="native",
        export_images=True,
        write_images=False,
        **options,
    )
    images, masks = made
    return images[0], masks[0] if masks else None


def _settings(processing: Processing) -> FeatureExtractionSettingsClass:
    binned: dict[str, object] = {"base_discretisation_method": "none"}
    if processing.bin_width_hu is not None:
        binned = {
            "base_discretisation_method": "fixed_bin_size",
            "base_discretisation_bin_width": processing.bin_width_hu,
        }
    return FeatureExtractionSettingsClass(
        by_slice=False,
        stat_percentile=[10.0, 90.0],
        no_approximation=True,
        base_feature_families="all",
        glcm_spatial_method="3d_volume_merge",
        glrlm_spatial_method="3d_volume_merge",
        glszm_spatial_method="3d",
        ngtdm_spatial_method="3d",
        **binned,
    )


def _named(table: Any, name: str) -> float:  # noqa: ANN401 - a pandas table
    """Return a feature by MIRP's name, to which it adds how a texture was computed: `cm_corr_d1_3d_v_mrg_fbs_w25.0`."""
    wanted = re.compile(rf"{name}(_d1)?(_3d\w*)?(_fbs_w[\d.]+)?")
    (column,) = [each for each in table.columns if wanted.fullmatch(each)]
    return float(table[column].iloc[0])
