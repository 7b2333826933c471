"""``python -m train_images.base``: see that the base images are there, saying what is done."""

import sys

from policies.console import say, show_error
from policies.errors import PhtError
from train_images.base.build import build_base_images


def main() -> int:
    """Build what is missing; returns the exit code."""
    try:
        for image in build_base_images(say):
            say(f"{image.tag}: {image.size_bytes / 1e6:.0f} MB{' (was there)' if image.reused else ''}")
    except PhtError as error:
        show_error(error, as_json=False)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
