"""torch and MONAI in the sandbox: on a read-only root, without a name for the user, with workers that share memory."""

import pytest
from sandbox_kit import DOCKERFILE, Station, build_image, remove_image, store_image

from station.sandbox.spec import MIB
from train_images.base.build import BASE_IMAGE, TORCH_IMAGE, build_base_images

pytestmark = pytest.mark.docker

STEP = """
import warnings
import torch, monai, nibabel, sys
import monai.data, monai.transforms, monai.losses, monai.metrics
from monai.networks.nets import DenseNet121
from torch.utils.data import DataLoader
model = DenseNet121(spatial_dims=2, in_channels=1, out_channels=1)
optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
before = next(model.parameters()).detach().clone()
loss = torch.nn.functional.binary_cross_entropy_with_logits(model(torch.randn(2, 1, 64, 64)), torch.ones(2, 1))
loss.backward()
optimiser.step()
found = {
    "moved": bool((next(model.parameters()) != before).any()),
    "batches": len(list(DataLoader(list(range(20)), num_workers=2, batch_size=5))),
    "cuda": torch.cuda.is_available(),
    "cpu_build": torch.version.cuda is None,
    "threads": torch.get_num_threads(),
}
"""


def test_a_training_step_in_the_sandbox(station: Station) -> None:
    images = build_base_images(lambda _line: None)
    assert [image.tag for image in images] == [BASE_IMAGE, TORCH_IMAGE]
    assert images[1].size_bytes < 960e6, (
        "whole files only are left out: the board finds every wheel's bytes as they were"
    )
    tag = "pht-test-torch:1"
    build_image(tag, DOCKERFILE.replace(BASE_IMAGE, TORCH_IMAGE))
    digest = store_image(tag, station.store)
    remove_image(tag)
    with station.session(image_config_digest=digest, memory_bytes=2048 * MIB, pids=256) as session:
        found = station.find(session, STEP)
    assert found == {"moved": True, "batches": 4, "cuda": False, "cpu_build": True, "threads": 1}
