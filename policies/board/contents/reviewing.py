"""Adds to a review what is in the image, where one of the named files is a packed bundle."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from policies.board.comparing.comparison import image_sections
from policies.board.comparing.images import image_changes
from policies.board.contents.describing import attention_of, sections_of
from policies.board.contents.report import is_bundle, layers_named_in, open_bundle, read_contents
from policies.board.reviewing.review import Review
from policies.errors import UsageError


def with_image(
    review: Review, paths: Sequence[Path | None], *, previous: Path | None, base: Iterable[Path]
) -> Review:
    """Return a review with the contents of the image of the first bundle that is named.

    Args:
        review: of the policy or the train.
        paths: files and folders that the command line names; those that are no bundle are passed over.
        previous: the bundle that was approved before.
        base: what names layers that are known.

    Raises:
        UsageError: layers to compare with are given, and no bundle.
        DocumentError: a layer is no tar archive as image builders write it, or beyond the ceilings.
        TrustError: the bundle holds other bytes than it names.
    """
    found = next((path for path in paths if path is not None and is_bundle(path)), None)
    if found is None:
        if previous is not None or tuple(base):
            raise UsageError("--base and --previous are for a packed bundle: give it with --train")
        return review
    known = {digest: "base" for path in base for digest in layers_named_in(path)}
    if previous is not None:
        known = dict.fromkeys(layers_named_in(previous), "approved before") | known
    bundle = open_bundle(found, known)
    contents = read_contents(bundle)
    changed = () if previous is None else image_sections(image_changes(open_bundle(previous), bundle))
    return replace(
        review,
        sections=(*review.sections, *sections_of(contents), *changed),
        attention=(*review.attention, *attention_of(contents)),
        contents=contents,
    )
