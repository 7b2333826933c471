"""What the SuperLink is started with, and what its neighbours may reach."""

import io
import ssl
import tomllib
import zipfile
from pathlib import Path

import pytest
from cryptography import x509
from flwr.common.config import get_fab_config

from orchestrator.federation.bundle import build_bundle
from orchestrator.federation.superlink import (
    FLEET_ROUTES,
    SuperLinkFiles,
    flower_environment,
    superlink_command,
)


def test_the_bundle_holds_a_name_and_nothing_else() -> None:
    bundle = build_bundle()
    assert bundle == build_bundle()
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        assert archive.namelist() == ["pyproject.toml"]
        project = tomllib.loads(archive.read("pyproject.toml").decode())
    assert (
        project["tool"]["flwr"]["app"]["components"]["serverapp"] == "orchestrator.federation.server_app:app"
    )
    assert "dependencies" not in project["project"]
    # Flower takes it for a bundle.
    assert get_fab_config(bundle)["project"]["name"] == "pht-order"


def test_stations_reach_the_fleet_routes_without_registration_and_bundles() -> None:
    assert all(route.startswith("/v1/fleet/") for route in FLEET_ROUTES)
    for name in ("register-node", "unregister-node", "get-fab"):
        assert f"/v1/fleet/{name}" not in FLEET_ROUTES


def test_secrets_are_the_owner_s_alone_and_made_once(tmp_path: Path) -> None:
    files = SuperLinkFiles(tmp_path / "superlink")
    files.prepare()
    made = {path: path.read_bytes() for path in (files.secret, files.key, files.certificate, files.ca)}
    assert len(files.secret.read_bytes()) == 32
    for path in (files.secret, files.key):
        assert path.stat().st_mode & 0o777 == 0o600
    files.prepare()
    assert {path: path.read_bytes() for path in made} == made
    # The CA's own key is nowhere: nothing else can be issued under it.
    assert sorted(path.name for path in (files.folder / "tls").iterdir()) == [
        "ca.pem",
        "superlink.key",
        "superlink.pem",
    ]
    context = ssl.create_default_context(cafile=str(files.ca))
    assert context.check_hostname
    names = x509.load_pem_x509_certificate(files.certificate.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "127.0.0.1" in [str(entry) for entry in names.value.get_values_for_type(x509.IPAddress)]


def test_it_listens_on_loopback_with_everything_on(tmp_path: Path) -> None:
    command = superlink_command(SuperLinkFiles(tmp_path), 1234)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--isolation") + 1] == "process"
    for flag in ("--enable-supernode-auth", "--disable-runtime-dependency-installation", "--ssl-keyfile"):
        assert flag in command
    assert "--superexec-auth-secret-file" in command
    assert "--insecure" not in command


def test_flower_s_processes_inherit_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHT_SECRET", "x")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    environment = flower_environment(tmp_path)
    assert "PHT_SECRET" not in environment
    assert "HTTPS_PROXY" not in environment
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["FLWR_HOME"].startswith(str(tmp_path))
