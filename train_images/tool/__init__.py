"""The use cases of `pht-train`, one module each; `train_images.cli` parses and shows."""
