"""An image's contents in plain words: sections to read, and points to look at. Bounded; all of it is in the report itself."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from policies.board.contents import marks
from policies.board.contents.licences import Family
from policies.board.contents.packages import Origin, Package
from policies.board.contents.report import ImageContents, ImageFile, ImageLayer
from policies.board.contents.tar_stream import Kind
from policies.board.reviewing.section import Section

SHOWN: Final = 12
_MIB: Final = 1 << 20
_T = TypeVar("_T")
_MAX_SHOWN_TEXT: Final = 160


def sections_of(contents: ImageContents) -> tuple[Section, ...]:
    """Describe an image in sections of bounded length."""
    return (_layers(contents), _settings(contents), _packages(contents), _files(contents))


def _layers(contents: ImageContents) -> Section:
    new = contents.size - contents.known_bytes
    lines = [f"Image {contents.config_digest}: {_size(contents.size)} in {len(contents.layers)} layers."]
    if contents.known_bytes:
        lines.append(f"{_size(contents.known_bytes)} of it is known already; {_size(new)} is new.")
    else:
        lines.append("No layer was compared with a known one: give --base or --previous for that.")
    lines += _first(contents.layers, _layer_line)
    return Section("What is in the image", tuple(lines))


def _layer_line(layer: ImageLayer) -> str:
    hides = f", hides {layer.hides:,}" if layer.hides else ""
    known = f", known: {layer.known}" if layer.known else ""
    step = f" ({_short(layer.step)})" if layer.step else ""
    return f"Layer {layer.number}: {_size(layer.size)}, {_count(layer.files)}{hides}{known}{step}"


def _settings(contents: ImageContents) -> Section:
    found = contents.settings
    lines = [
        f"Built {found.created or 'at an unknown time'} for {found.platform}.",
        f"Entrypoint: {_short(' '.join(found.entrypoint)) or 'none'}. Command: {_short(' '.join(found.command)) or 'none'}.",
        f"User: {_short(found.user) or 'not set (root)'}. Folder: {_short(found.folder) or '/'}.",
        f"Environment: {_short(', '.join(found.environment)) or 'none'}. Labels: {len(found.labels)}.",
        *_first(found.others, _short),
        "The station sets entrypoint, command, user and environment itself: a train runs without network and without root.",
    ]
    return Section("What the image asks to be started as", tuple(lines))


def _packages(contents: ImageContents) -> Section:
    python = [each for each in contents.packages if each.ecosystem == "python"]
    debian = [each for each in contents.packages if each.ecosystem == "debian"]
    families = ", ".join(f"{count} {name}" for name, count in sorted(contents.licence_families.items()))
    lines = [
        f"{len(debian)} Debian packages, {len(python)} Python distributions, as the image's own lists have them.",
        f"Licences: {families or 'none'}.",
        # The highest layer is the train's own, and what it brings is what is new.
        *_first(sorted(python, key=lambda each: (-each.layer, each.name.casefold())), _package_line, 40),
    ]
    if contents.packages_not_read:
        lines.append(f"Not listed here: {', '.join(contents.packages_not_read)}.")
    return Section("Packages", tuple(lines))


def _package_line(package: Package) -> str:
    licence = _short(package.licence) or "no licence named"
    return f"{package.name} {package.version}: {licence} [{package.family}]"


def _files(contents: ImageContents) -> Section:
    files = contents.files
    origins = Counter(file.origin for file in files)
    own = [file for file in files if file.origin in {Origin.OWN, Origin.ALTERED}]
    source = [file for file in own if marks.COMPILED not in file.marks and file.kind is Kind.FILE]
    lines = [
        (
            f"{_count(len(files))} in layers that are not known: {origins[Origin.DEBIAN]:,} that Debian packages list, "
            f"{origins[Origin.PYTHON]:,} as Python packages installed them, {origins[Origin.UNCHECKED]:,} that these list "
            f"without a digest (compiled Python mostly: it may be of another source), {len(own):,} of no package."
        ),
        *_first(source, _file_line, 30),
    ]
    return Section("Files of no package, the topmost layer first", tuple(lines))


def _file_line(file: ImageFile) -> str:
    remarks = f" [{', '.join(file.marks)}]" if file.marks else ""
    return f"{_short(file.path)}: {file.size:,} bytes, {file.digest[:19]}, layer {file.layer}{remarks}"


def attention_of(contents: ImageContents) -> tuple[str, ...]:
    """Return the points of an image that a member should look at."""
    foreign = [file for file in contents.files if file.origin in {Origin.OWN, Origin.ALTERED}]
    points = [f"The image: {text}." for text in contents.oddities]
    checks: tuple[tuple[Iterable[ImageFile], str], ...] = (
        (
            (file for file in contents.files if file.origin is Origin.ALTERED),
            "other than the package installed them",
        ),
        (
            _marked(foreign, marks.SETUID, marks.SETGID, marks.CAPABILITIES),
            "with setuid, setgid or capabilities (a station starts nothing with them)",
        ),
        (
            (each for each in _marked(contents.files, marks.DEVICE) if not each.path.startswith("dev/")),
            "devices or pipes",
        ),
        (
            _marked(foreign, marks.STARTS_ITSELF),
            "that run or load by themselves when Python or a program starts",
        ),
        (
            (each for each in _marked(foreign, marks.REPLACES) if each.kind is Kind.FILE),
            "that take the place of a lower layer's",
        ),
        (
            _marked(contents.files, marks.IMAGE_DATA, origin=Origin.OWN),
            "that look like images: whose are they?",
        ),
        (
            _marked(foreign, marks.WEIGHTS),
            "that look like weights: they came with the image, not with an order",
        ),
        (_marked(foreign, marks.PICKLE), "that are pickled: reading them runs code"),
        (_marked(foreign, marks.PACKED), "that are packed: what is inside was not looked at"),
        (_marked(foreign, marks.PROGRAM), "that are compiled programs: nobody reads these"),
        (_without_source(foreign, contents.files), "that are compiled Python without its source"),
        (_marked(contents.files, marks.STRANGE_NAME), "with names that a terminal does not show as they are"),
        (_elsewhere(foreign), "outside the places that trains use"),
    )
    points += [text for files, what in checks if (text := _files_point(tuple(files), what))]
    points += _licence_points(contents.packages)
    if contents.packages_not_read:
        points.append(f"The image holds {', '.join(contents.packages_not_read)}: these are not listed here.")
    return tuple(points)


def _marked(files: Iterable[ImageFile], *names: str, origin: Origin | None = None) -> list[ImageFile]:
    return [file for file in files if not set(names).isdisjoint(file.marks) and origin in {None, file.origin}]


def _without_source(files: Sequence[ImageFile], among: Sequence[ImageFile]) -> list[ImageFile]:
    there = {file.path for file in among}
    return [file for file in _marked(files, marks.COMPILED) if _source_of(file.path) not in there]


def _source_of(path: str) -> str:
    """Return where the source of a compiled file lies.

    >>> _source_of("a/__pycache__/b.cpython-311.pyc"), _source_of("a/b.pyc")
    ('a/b.py', 'a/b.py')
    """
    folder, _, name = path.rpartition("/")
    return f"{folder.removesuffix('__pycache__').rstrip('/')}/{name.split('.', 1)[0]}.py".lstrip("/")


def _elsewhere(files: Sequence[ImageFile]) -> list[ImageFile]:
    # What an operating system makes of its packages when it is set up lies in its lowest layer.
    return [file for file in _marked(files, marks.UNUSUAL) if file.layer > 1]


def _files_point(files: Sequence[ImageFile], what: str) -> str:
    if not files:
        return ""
    named = ", ".join(_short(file.path) for file in files[:3])
    more = f" and {len(files) - 3:,} more" if len(files) > 3 else ""
    return f"Files {what}: {named}{more}."


def _licence_points(packages: Sequence[Package]) -> list[str]:
    python = [each for each in packages if each.ecosystem == "python"]
    points = []
    for family in (Family.RESTRICTED, Family.UNKNOWN, Family.COPYLEFT, Family.WEAK_COPYLEFT):
        # Debian's own parts are under copyleft for the most part, and its archive holds nothing restricted.
        named = [each for each in packages if each.family is family and each.ecosystem == "python"]
        if family is Family.RESTRICTED:
            named = [each for each in packages if each.family is family]
        if named:
            points.append(f"Licence {family}: {_names(named)}.")
    debian = [
        each for each in packages if each not in python and each.family in {Family.COPYLEFT, Family.UNKNOWN}
    ]
    if debian:
        points.append(
            f"Debian packages under copyleft, or whose licence is not said in a form to read: {len(debian)}; "
            "whoever passes the image on passes these on."
        )
    return points


def _names(packages: Sequence[Package]) -> str:
    names = [each.name for each in packages]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(_short(name) for name in names[:SHOWN]) + more


def _first(items: Sequence[_T], line: Callable[[_T], str], most: int = SHOWN) -> list[str]:
    shown = [line(item) for item in items[:most]]
    left = len(items) - len(shown)
    return [*shown, f"... and {left:,} more (--json has them all)"] if left else shown


def _short(text: str) -> str:
    """Bring a text of the image's onto one line of bounded length."""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_SHOWN_TEXT else text[: _MAX_SHOWN_TEXT - 3] + "..."


def _count(files: int) -> str:
    return f"{files:,} file{'' if files == 1 else 's'}"


def _size(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB" if size >= _MIB else f"{size / 1024:,.1f} KiB"
