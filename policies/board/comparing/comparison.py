"""Compares what a command line names: two trains, or two policies; and says it in sections to read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.board.comparing.documents import FieldChange, changes_between, widest_first
from policies.board.comparing.images import FileChange, ImageChanges, PackageChange, image_changes
from policies.board.contents.licences import Family, family_of
from policies.board.contents.report import is_bundle, open_bundle
from policies.board.documents.documents_in import is_policy, read_file, read_train
from policies.board.documents.listed import policy_of
from policies.board.reviewing.section import Section
from policies.documents import load_yaml
from policies.errors import UsageError
from policies.manifest import TrainManifest
from policies.policy import Policy

_SHOWN: Final = 40
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed.

    Attributes:
        before: of what this is the comparison, with its version.
        after: likewise.
        fields: of the policy or the manifest.
        image: of two bundles; None otherwise.
    """

    before: str
    after: str
    fields: tuple[FieldChange, ...]
    image: ImageChanges | None


def compare(old: str, new: str, repository: Path | None) -> Comparison:
    """Compare two bundles, two manifests, or two policies.

    Args:
        old: a path, or ``policy-id@version`` as the repository lists it.
        new: likewise.
        repository: the board's, for policies named by id.

    Raises:
        UsageError: they cannot be compared with each other.
        NotFoundError: a policy is not listed.
    """
    before, after = _read(old, repository), _read(new, repository)
    if type(before) is not type(after):
        raise UsageError(
            "a policy and a train cannot be compared",
            hint="Compare two policies, two bundles or two train.yaml.",
        )
    image = None
    if is_bundle(Path(old)) and is_bundle(Path(new)):
        image = image_changes(open_bundle(Path(old)), open_bundle(Path(new)))
    return Comparison(_name(before), _name(after), changes_between(before, after), image)


def _read(name: str, repository: Path | None) -> Policy | TrainManifest:
    path = Path(name)
    if not path.exists() and "@" in name:
        if repository is None:
            raise UsageError(f"{name}: a policy named by its id needs --repository")
        return policy_of(repository, name)
    if path.is_dir() or is_bundle(path) or not is_policy(data := read_file(path)):
        return read_train(path).manifest
    return load_yaml(Policy, data, what=path.name)


def _name(document: Policy | TrainManifest) -> str:
    if isinstance(document, Policy):
        return f"policy {document.id}, version {document.version}"
    return f"train {document.name} {document.version}"


def sections_of(comparison: Comparison) -> tuple[Section, ...]:
    """Say what changed, in sections of bounded length."""
    sections = [fields_section("What changes in the document", comparison.fields)]
    if comparison.image is not None:
        sections += image_sections(comparison.image)
    return tuple(sections)


def image_sections(image: ImageChanges) -> tuple[Section, ...]:
    """Say what changed between two images, without the lines of the source."""
    return (_image_section(image), _packages_section(image.packages), _files_section(image.files))


def fields_section(heading: str, changes: Sequence[FieldChange]) -> Section:
    """Say which fields changed, what widens first."""
    return Section(heading, tuple(str(change) for change in widest_first(changes)) or ("Nothing.",))


def _image_section(image: ImageChanges) -> Section:
    if image.before == image.after:
        return Section("The image against the one before", (f"The same image, {image.after}.",))
    return Section(
        "The image against the one before",
        (
            f"{image.before} -> {image.after}",
            f"{image.shared_bytes / _MIB:,.1f} MiB in layers of before, {image.new_bytes / _MIB:,.1f} MiB new.",
            *image.settings,
        ),
    )


def _packages_section(packages: Sequence[PackageChange]) -> Section:
    lines = [_package_line(each) for each in packages[:_SHOWN]]
    return Section("Packages that changed", (*lines, *_more(len(packages) - _SHOWN)) or ("None changed.",))


def _package_line(change: PackageChange) -> str:
    name = f"{change.name} ({change.ecosystem})"
    if not change.before:
        return f"added: {name} {change.after}, {change.licence_after} [{family_of(change.licence_after)}]"
    if not change.after:
        return f"removed: {name} {change.before}"
    licence = f", licence {change.licence_before} -> {change.licence_after}" if change.licence_changed else ""
    return f"changed: {name} {change.before} -> {change.after}{licence}"


def _files_section(files: Sequence[FileChange]) -> Section:
    own = [each for each in files if each.own]
    lines = [
        f"{each.happened}: {each.path} ({', '.join(each.why)}; {each.size_before:,} -> {each.size_after:,} bytes)"
        for each in own[:_SHOWN]
    ]
    packaged = len(files) - len(own)
    return Section(
        "Files of no package that changed",
        (
            *(lines or ["None changed."]),
            *_more(len(own) - _SHOWN),
            f"Besides, {packaged:,} files of packages changed.",
        ),
    )


def attention_of(comparison: Comparison) -> tuple[str, ...]:
    """Return what a member should look at in a comparison."""
    points = [f"Wider than before: {each}." for each in comparison.fields if each.direction == "widens"]
    image = comparison.image
    if image is None:
        return tuple(points)
    doubtful = {Family.RESTRICTED, Family.UNKNOWN, Family.COPYLEFT}
    points += [
        f"Licence of {each.name} is {each.licence_after or 'not named'} now."
        for each in image.packages
        if each.ecosystem == "python"
        and each.after
        and (not each.before or each.licence_changed)
        and family_of(each.licence_after) in doubtful
    ]
    unread = [each.path for each in image.files if each.own and each.note and not each.path.endswith(".pyc")]
    if unread:
        points.append(f"{len(unread)} changed files cannot be read as text, such as {unread[0]}.")
    commit_changed = any(change.field == "source_commit" for change in comparison.fields)
    if not commit_changed and any(each.own for each in image.files):
        points.append("Files of no package changed, and the manifest names the same source commit.")
    return tuple(points)


def _more(left: int) -> tuple[str, ...]:
    return (f"... and {left:,} more (--json has them all)",) if left > 0 else ()
