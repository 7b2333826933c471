"""Chest radiograph classification: MONAI's DenseNet121 as an ordinary Flower ClientApp."""
