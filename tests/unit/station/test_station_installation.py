"""What `init` makes: closed folders whatever the umask, keys that are their owner's, and nothing where it fails."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from board_kit import BoardKit

from policies.errors import SettingsError, StateError, StorageError, TrustError
from station.installation import Choices, first_settings, install
from station.layout import StationPaths
from station.runs.chains import load_identity
from station.settings import load_settings

CA = b"-----BEGIN CERTIFICATE-----\n"


def choices(**changes: object) -> Choices:
    fields = {
        "name": "amstel", "orchestrator": "https://orchestrator.example/", "collections": ("thorax-cxr",),
        "marking": "patient", "approval": "always", "separated": False,
    }  # fmt: skip
    return Choices(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return BoardKit.found(tmp_path_factory.mktemp("board")).repository.root.pinnable()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def] # noqa: ANN201
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_home_is_closed_whatever_the_umask(tmp_path: Path, root: bytes, umask: int) -> None:
    home = tmp_path / "home"
    install(home, first_settings(choices()), root, CA)
    paths = StationPaths(home)
    assert mode(home) == 0o711
    closed = (
        paths.run,
        paths.logs,
        paths.keys,
        paths.trust,
        paths.releases,
        paths.reviews,
        paths.work,
        paths.agent,
        paths.train_logs,
    )
    assert {mode(path) for path in (*closed, home / "intake")} == {0o700}
    assert {mode(path) for path in (paths.compute, paths.layers, paths.cohorts, paths.control)} == {0o750}
    secrets = (
        paths.node_key, paths.identity_key, paths.cohort_key, paths.api_token, paths.run / "intake.token",
        home / "intake" / "keys" / "pseudonym.key", home / "intake" / "keys" / "handover.key",
    )  # fmt: skip
    assert {mode(path) for path in secrets} == {0o600}
    # What the services read although root wrote it.
    assert {mode(path) for path in (paths.settings, paths.card, home / "ca.pem")} == {0o644}
    everything = [path for path in home.rglob("*") if not path.is_symlink()]
    assert not [path for path in everything if mode(path) & 0o002], "nothing is writable by others"


def test_what_is_made_can_be_used(tmp_path: Path, root: bytes) -> None:
    home = tmp_path / "home"
    card = install(home, first_settings(choices()), root, CA)
    paths = StationPaths(home)
    settings = load_settings(home, {})
    assert (settings.name, settings.services.separation) == ("amstel", "none")
    assert settings.orchestrator.mirror_url == "https://orchestrator.example/api/v1/mirror"
    assert load_identity(paths.identity_key).public_key().public_bytes_raw().hex() == card.identity_key
    assert card.node_key.startswith("ecdsa-sha2-nistp384 ")
    assert paths.handover_key.read_bytes() == (paths.handover / "handover.pub").read_bytes()
    assert (paths.trust / "root.json").read_bytes() == root
    assert len(paths.api_token.read_text()) == 64


def test_two_stations_share_no_secret(tmp_path: Path, root: bytes) -> None:
    for name in ("one", "two"):
        install(tmp_path / name, first_settings(choices()), root, CA)
    one, two = (
        {
            path.relative_to(home): path.read_bytes()
            for path in home.rglob("*")
            if path.suffix in {".pem", ".key", ".token"}
        }
        for home in (tmp_path / "one", tmp_path / "two")
    )
    assert one.keys() == two.keys()
    assert {str(name) for name in one if one[name] == two[name]} == {"ca.pem"}


def test_the_defaults_are_the_careful_ones() -> None:
    settings = first_settings(choices())
    assert settings.hospital.operator_approval == "always"
    assert all(c.consent_mode == "opt-in" and c.countries == ("NL",) for c in settings.collections)
    assert all("commercial" not in c.requester_classes for c in settings.collections)


def test_a_home_is_never_overwritten(tmp_path: Path, root: bytes) -> None:
    home = tmp_path / "home"
    install(home, first_settings(choices()), root, CA)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    with pytest.raises(StateError, match="is not empty"):
        install(home, first_settings(choices(name="berkel")), root, CA)
    assert before == {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_a_file_in_its_place_stays(tmp_path: Path, root: bytes) -> None:
    (tmp_path / "home").write_text("mine")
    with pytest.raises(StateError):
        install(tmp_path / "home", first_settings(choices()), root, CA)
    assert (tmp_path / "home").read_text() == "mine"


@pytest.mark.parametrize("bad", [b"", b"{}", b"not a root"])
def test_a_root_that_is_none_leaves_nothing(tmp_path: Path, bad: bytes) -> None:
    with pytest.raises(TrustError):
        install(tmp_path / "home", first_settings(choices()), bad, CA)
    assert not (tmp_path / "home").exists()


def test_a_disk_that_fails_half_way_leaves_nothing(tmp_path: Path, root: bytes) -> None:
    (tmp_path / "root.json").write_bytes(root)
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from policies.errors import StorageError\n"
        "from station.installation import Choices, first_settings, install\n"
        "folder = Path(sys.argv[1])\n"
        "settings = first_settings(Choices('amstel', 'https://o.example', ('cxr',), 'patient', 'always', False))\n"
        "try: install(folder / 'home', settings, (folder / 'root.json').read_bytes(), b'')\n"
        "except StorageError: sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parents[3])],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert not (tmp_path / "home").exists()


def test_a_place_below_a_file_is_said(tmp_path: Path, root: bytes) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        install(tmp_path / "file" / "home", first_settings(choices()), root, CA)


@pytest.mark.parametrize(
    "wrong",
    [{"name": "Has Spaces"}, {"orchestrator": "http://plain"}, {"orchestrator": ""}, {"collections": ()},
     {"collections": ("a", "a")}, {"marking": "secret"}, {"approval": "sometimes"}],
)  # fmt: skip
def test_choices_that_are_none_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        first_settings(choices(**wrong))


def test_every_path_of_the_layout_lies_in_the_home_and_no_two_are_one(tmp_path: Path) -> None:
    paths = StationPaths(tmp_path)
    found = {
        name: getattr(paths, name) for name, kind in vars(StationPaths).items() if isinstance(kind, property)
    }
    assert len(set(found.values())) == len(found)
    assert all(path.is_relative_to(tmp_path) and path != tmp_path for path in found.values())
    # Compute's keys are no folder of intake's, and the other way round.
    assert not [name for name, path in found.items() if path.is_relative_to(tmp_path / "intake")]
