"""The networks: MONAI's residual 3-D UNet and its SegResNet, each in any width.

Which one trains follows from the weights that arrive: names and shapes tell the network, its width and its classes, so the weights that
an order signs are all there is to say, and a result is exported by what its manifest names. Neither has BatchNorm, whose statistics
would leave a hospital and fit none: instance and group normalisation look at one patch alone.
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from monai.networks.nets import SegResNet, UNet
from torch import nn

from algorithms.clientapp.failures import TrainError

UNET_WIDTH: Final = 16
SEGRESNET_WIDTH: Final = 16
MULTIPLE: Final = 16
"""A patch's sides are multiples of this: the UNet halves them four times."""

_MAX_WIDTH: Final = 256


def unet(classes: int, width: int = UNET_WIDTH) -> nn.Module:
    """Return an untrained residual UNet of five levels (Kerfoot et al. 2019), instance-normalised.

    Args:
        classes: background counted.
        width: channels of the first level; each level doubles them.
    """
    made: nn.Module = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=classes,
        channels=[width * 2**level for level in range(5)],
        strides=[2, 2, 2, 2],
        num_res_units=2,
    )
    return _laid_out(made)


def segresnet(classes: int, width: int = SEGRESNET_WIDTH) -> nn.Module:
    """Return an untrained SegResNet (Myronenko 2018, without its variational branch), group-normalised.

    Args:
        classes: background counted.
        width: channels of the first level, a multiple of 8: the groups of its normalisation.
    """
    made: nn.Module = SegResNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=classes,
        init_filters=width,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    )
    return _laid_out(made)


_FIRST_LAYERS: Final[Mapping[str, Callable[..., nn.Module]]] = {
    "model.0.conv.unit0.conv.weight": unet,
    "convInit.conv.weight": segresnet,
}


def network_for(shapes: Mapping[str, tuple[int, ...]], classes: int) -> nn.Module:
    """Build the network that weights of these names and shapes belong to.

    Args:
        shapes: of each inbound tensor.
        classes: of the cohort's label maps, background counted.

    Raises:
        TrainError: WEIGHTS_DO_NOT_FIT, they belong to no network that can be built, or to one for other structures.
    """
    for name, build in _FIRST_LAYERS.items():
        if name not in shapes:
            continue
        width = shapes[name][0] if shapes[name] else 0
        if not 1 <= width <= _MAX_WIDTH or (build is segresnet and width % 8):
            break
        # First without memory: what arrives decides sizes.
        with torch.device("meta"):
            expected = {key: tuple(value.shape) for key, value in build(classes, width).state_dict().items()}
        if expected != dict(shapes):
            break
        return build(classes, width)
    raise TrainError(
        "WEIGHTS_DO_NOT_FIT",
        f"the weights are of no UNet or SegResNet with {classes} classes: make them with the train's own image, or "
        "ask for as many masks as they have structures",
    )


def _laid_out(network: nn.Module) -> nn.Module:
    """Lay memory out channels last, in which 3-D convolutions are faster on CPUs and on tensor cores."""
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[no-any-return, call-overload]  # torch's stubs lack it
