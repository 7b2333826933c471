"""Segmentation of structures on CT: MONAI's 3-D UNet and SegResNet as an ordinary Flower ClientApp."""
