"""``python -m train_images.base``: see that the base images are there, saying what is done."""

import argparse
import sys
from collections.abc import Sequence

from policies.console import exit_code_of, say
from train_images.base.build import TORCH_IMAGES, build_base_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train_images.base", description="See that the base images of trains are there."
    )
    parser.add_argument(
        "--variant", choices=list(TORCH_IMAGES), default="cpu", help="machines that torch is for"
    )
    parser.add_argument("--no-torch", action="store_true", help="the base alone")
    parser.add_argument("--system", metavar="IMAGE@sha256:...", help="pin the operating system by its digest")
    options = parser.parse_args(arguments)

    def make() -> None:
        images = build_base_images(
            say, torch=not options.no_torch, variant=options.variant, system=options.system
        )
        for image in images:
            say(f"{image.tag}: {image.size_bytes / 1e6:.0f} MB{' (was there)' if image.reused else ''}")

    return exit_code_of(make)


if __name__ == "__main__":
    sys.exit(main())
