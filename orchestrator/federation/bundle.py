"""The Flower app bundle of every run: it names what is installed here and holds no code."""

import io
import zipfile

_PYPROJECT = """\
[project]
name = "pht-order"
version = "1.0.0"
description = "Names the orchestrator's installed ServerApp; holds no code."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "pht"

[tool.flwr.app.components]
serverapp = "orchestrator.federation.server_app:app"
clientapp = "orchestrator.federation.server_app:app"
"""


def build_bundle() -> bytes:
    """The Flower app bundle of every run: a pyproject that names our installed module, the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo("pyproject.toml", date_time=(2026, 1, 1, 0, 0, 0))
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, _PYPROJECT)
    return buffer.getvalue()
