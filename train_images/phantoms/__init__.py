"""Generated chest radiographs and CT series of made-up hospitals, for whoever has no real ones at hand."""

from train_images.phantoms.ct import CtFault, CtScanner, PhantomSeries, write_ct_series
from train_images.phantoms.hospitals import PhantomHospital, generate_hospitals
from train_images.phantoms.radiographs import RadiographKind

__all__ = [
    "CtFault",
    "CtScanner",
    "PhantomHospital",
    "PhantomSeries",
    "RadiographKind",
    "generate_hospitals",
    "write_ct_series",
]
