"""The package's own data files."""

from importlib.resources import files

MAX_BYTES = 1 << 20


def resource(name: str) -> bytes:
    """Return a data file that lies beside this module."""
    return files("station.pseudonymisation").joinpath(name).read_bytes()
