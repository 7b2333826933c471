"""Calls an ordinary Flower ``ClientApp`` for every request, in one warm process.

The one place of the runtime that touches private Flower modules: ``TaskIdentity`` must be set before a ``Message`` can be
made outside Flower's own processes (flwr 1.41.0).
"""

import importlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray
from safetensors import safe_open

from .frames import Json, Request
from .reply import Reply

# Inside a container there is one run, one task and one node; their numbers say nothing.
_RUN_ID = 1
_NODE_ID = 1
_TASK_ID = 1
_TTL_S = 365 * 24 * 3600.0

_TYPES = {
    "train": "train",
    "evaluate": "evaluate",
    "analyse": "query",
    "score": "query.score",
    "predict": "query.predict",
}
_ROWS = "rows"
_SCORES = "scores"
# Flower's own strategies want it, so ordinary ClientApps send it; the station counts patients itself.
_OWN_COUNT = "num-examples"


class FlowerTrain:
    """A ``ClientApp`` with one context for the life of the container."""

    def __init__(self, reference: str, node_config: Mapping[str, str]) -> None:
        """Import the app.

        Args:
            reference: ``module:attribute`` of the ``ClientApp``.
            node_config: what ``context.node_config`` will hold.
        """
        TaskIdentity.run_id = _RUN_ID
        TaskIdentity.node_id = _NODE_ID
        TaskIdentity.task_id = _TASK_ID
        module, _, attribute = reference.partition(":")
        app = getattr(importlib.import_module(module), attribute)
        if not isinstance(app, ClientApp):
            raise TypeError(f"{reference} is no flwr.clientapp.ClientApp")
        self._app = app
        self._context = Context(
            run_id=_RUN_ID, node_id=_NODE_ID, node_config=dict(node_config), state=RecordDict(), run_config={}
        )

    def answer(self, request: Request) -> Reply:
        """Turn a request into a Flower message, call the app, and map what it returns."""
        config = _config(request.head)
        self._context.run_config = {
            key: value for key, value in config.items() if isinstance(value, bool | int | float | str)
        }
        records: dict[str, ArrayRecord | ConfigRecord | MetricRecord] = {"config": ConfigRecord(config)}
        records["arrays"] = ArrayRecord(_read_arrays(request.arrays_path))
        if request.head["type"] == "predict":
            # A record of its own: a hyperparameter may be called "case".
            records["predict"] = ConfigRecord({"case": str(request.head["case"])})
        message = Message(
            content=RecordDict(records),
            dst_node_id=_NODE_ID,
            message_type=_TYPES[str(request.head["type"])],
            ttl=_TTL_S,
        )
        returned = self._app(message, self._context)
        if not returned.has_content():
            raise RuntimeError("the ClientApp answered with an error instead of content")
        if request.head["type"] == "score":
            return Reply(scores=_scores(returned.content))
        return _map(returned.content)


def _config(head: Mapping[str, Json]) -> dict[str, Any]:
    given = head.get("config") or {}
    if not isinstance(given, dict):
        raise TypeError("the request's config is no object")
    config: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    config["server-round"] = head.get("round", 0)
    return config  # ConfigRecord checks the values itself


def _read_arrays(path: str | None) -> dict[str, Array]:
    if path is None:
        return {}
    with safe_open(path, framework="numpy") as file:
        return {name: Array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - no mapping


def _map(content: RecordDict) -> Reply:
    if len(content.array_records) > 1:
        raise ValueError("a reply holds one ArrayRecord at most")
    arrays: dict[str, NDArray[np.generic]] = {}
    for record in content.array_records.values():
        arrays = {name: _view(array) for name, array in record.items()}
    metrics: dict[str, Json] = {}
    rows: dict[str, Json] = {}
    for record_name, values in content.metric_records.items():
        for key, value in values.items():
            if record_name == _ROWS:
                rows[key] = _column(value if isinstance(value, list) else [value])
            elif key in metrics:
                raise ValueError(f"the metric {key!r} stands in two records")
            elif key != _OWN_COUNT:
                metrics[key] = list(value) if isinstance(value, list) else value
    return Reply(metrics=metrics, rows=rows, arrays=arrays)


def _column(values: Sequence[float]) -> list[Json]:
    """Return a column of rows; Flower's lists hold numbers alone, so not-a-number stands for a missing value.

    >>> _column([0.5, float("nan")]), _column([3, 4]), _column([3.0, float("nan")])
    ([0.5, None], [3, 4], [3, None])
    """
    if not any(isinstance(value, float) and math.isnan(value) for value in values):
        return list(values)
    # A column of whole numbers with one missing came as floats.
    return [None if math.isnan(value) else int(value) if value == int(value) else value for value in values]


def _scores(content: RecordDict) -> list[Json]:
    record = content.metric_records.get(_SCORES)
    values = [] if record is None else list(record.values())
    if len(values) != 1 or not isinstance(values[0], list):
        raise ValueError("the answer to 'score' is a MetricRecord 'scores' with one list: a number per case")
    return list(values[0])


def _view(array: Array) -> NDArray[np.generic]:
    """Return the ndarray that an ``Array`` holds in the .npy format, without a second copy of its bytes."""
    stream = io.BytesIO(array.data)
    version = np.lib.format.read_magic(stream)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects cannot be sent")
    flat = np.frombuffer(array.data, dtype=dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")
