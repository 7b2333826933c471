"""The train: an ordinary Flower ClientApp with MONAI."""
