"""The route of the local API that says how every GPU is."""

from fastapi import FastAPI

from station.sandbox.gpu.model import GpuReport
from station.sandbox.spec import Launcher


def add_gpu_routes(app: FastAPI, launcher: Launcher) -> None:
    """Add the route to the local API, whose token gate stands before it too."""

    @app.get("/v1/gpus")
    def gpus() -> GpuReport:
        return launcher.gpus()
