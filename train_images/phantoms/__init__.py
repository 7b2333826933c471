"""Generated chest radiographs of made-up hospitals, for whoever has no real ones at hand."""

from train_images.phantoms.hospitals import PhantomHospital, generate_hospitals

__all__ = ["PhantomHospital", "generate_hospitals"]
