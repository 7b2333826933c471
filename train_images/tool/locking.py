"""Writes the closed list of the packages that a train brings along: versions and hashes, found by pip for the base image it is on."""

from policies.errors import NotFoundError
from train_images.base.lock import lock
from train_images.tool.building import base_images
from train_images.tool.folders import TrainFolder
from train_images.tool.own_wheels import INPUTS, REQUIREMENTS, lists_below


def lock_train(folder: TrainFolder, *, upgrade: bool) -> int:
    """Write a train's ``requirements.txt`` from its ``requirements.in``.

    Args:
        folder: the train's.
        upgrade: whether to forget the versions that the list has now.

    Returns:
        How many wheels it names.

    Raises:
        NotFoundError: the folder has no ``requirements.in``, or no Dockerfile.
        UsageError: this is not the images' Python.
        DocumentError: the inputs are not exact, or name what the base image has.
        UnavailableError: pip finds no solution, or no index.
    """
    if not (folder.path / INPUTS).is_file():
        raise NotFoundError(
            f"{folder.path}: holds no {INPUTS}",
            hint="Write one: NAME==VERSION for each package that the train imports and the base image lacks, and `without NAME` for "
            "what one of them needs and the train never runs.",
        )
    below = lists_below(base_images(folder))
    return lock(folder.path / REQUIREMENTS, below, upgrade=upgrade, command="pht-train lock")
