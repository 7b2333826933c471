"""The Python packages that a train brings along: wheels fetched beside its Dockerfile, exactly those that its author wrote down.

A train's folder with a ``requirements.txt`` has them in the build context as ``wheels/``, and its Dockerfile installs them
without a network (``pip install --no-index --no-deps --require-hashes``). The list is closed: every line names one version and
the SHA-256 of each file that may be taken for it, and nothing is resolved. So what a board has read in a train's folder is what
is in the image, and a wheel that was changed at its index since does not get in. Where a ``requirements.in`` lies beside it,
`pht-train lock` writes the list from that (`locking.py`), and a list that does not follow from it any more is not built.

Fetched as pip is configured here (index, proxy, certificate), and for the base images' Python, whatever Python runs this.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from policies.errors import DocumentError
from train_images.base.build import BASE_IMAGE, TORCH_IMAGES
from train_images.base.lock import BASE_LIST, HERE, TORCH_LISTS, is_current, versions
from train_images.base.wheels import closed_list, fetch_wheels

INPUTS: Final = "requirements.in"
REQUIREMENTS: Final = "requirements.txt"
WHEELS: Final = "wheels"


def fetch_own_wheels(folder: Path, context: Path) -> tuple[str, ...]:
    """Fetch what a train's ``requirements.txt`` lists into the build context's ``wheels/``.

    Args:
        folder: the train's.
        context: of the build; it holds a copy of the folder already.

    Returns:
        The wheels' file names, sorted; none where the train brings no packages.

    Raises:
        DocumentError: the list is not closed: a line without one version and a hash.
        TrustError: a wheel has other bytes than those whose hash is written down.
        UnavailableError: a wheel cannot be had.
    """
    requirements = folder / REQUIREMENTS
    if not requirements.is_file() or not closed_list(requirements):
        return ()
    failure = f"the packages of {folder.name}/{REQUIREMENTS} cannot be fetched"
    return fetch_wheels(requirements, context / WHEELS, failure)


def lists_below(bases: Iterable[str]) -> tuple[Path, ...]:
    """Return the lists of what a train's base image has, whichever variant it is."""
    on_torch = not set(TORCH_IMAGES.values()).isdisjoint(bases)
    return (HERE / BASE_LIST, *((HERE / TORCH_LISTS[0],) if on_torch else ()))


def check_own_list(folder: Path, bases: Collection[str]) -> None:
    """See that a train's list follows from its inputs; a list without inputs was written by hand, and is its author's.

    Neither may put another version in the place of what the base image has: the runtime and torch were tried with those.

    Raises:
        DocumentError: it is not closed, it names another version of what one of our base images has, it was made from other
            inputs, or for a base image with other packages, or was never made.
    """
    target = folder / REQUIREMENTS
    if target.is_file():
        # Now, and not after gigabytes of a base image.
        closed_list(target)
        _check_versions(target, bases)
    if not (folder / INPUTS).is_file() or (target.is_file() and is_current(target, lists_below(bases))):
        return
    raise DocumentError(
        f"{target}: does not follow from {INPUTS} and the base image as they are now",
        hint=f"Write it again and read what changed: pht-train lock {folder}",
    )


def _check_versions(target: Path, bases: Collection[str]) -> None:
    """See that a list names nothing in another version than the base image has it; of other people's images we know nothing."""
    if {BASE_IMAGE, *TORCH_IMAGES.values()}.isdisjoint(bases):
        return
    there = {name: version for path in lists_below(bases) for name, version in versions(path).items()}
    others = [
        f"{name} {version} (the base image has {there[name]})"
        for name, version in versions(target).items()
        if there.get(name, version) != version
    ]
    if others:
        raise DocumentError(
            f"{target}: would replace what the base image has: {', '.join(others)}",
            hint=f"Take these lines out, or keep a {INPUTS} and let pht-train lock write the list: it holds the base image's versions.",
        )
