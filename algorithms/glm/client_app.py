"""The train's Flower ClientApp: one round is one Newton step, and a station's sums where it leads.

The model is fixed in the image (`/opt/pht/model.json`; outside a container PHT_MODEL says where). The cohort does not change while a
container lives, so its numbers are read once.
"""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from algorithms.clientapp.cohort import data_folder
from algorithms.clientapp.messages import arrays_of, settings_of
from algorithms.glm.design import Design, read_design
from algorithms.glm.disclosure import require_many
from algorithms.glm.errors import Code, GlmError
from algorithms.glm.newton import Ridge, Step, next_step
from algorithms.glm.specification import Family, Model, read_model
from algorithms.glm.state import State, Sums, read_state, write_state
from algorithms.glm.totals import Totals, start_at_means, totals_at

BOUND: Final = 1e5
"""The largest number that an answer may hold. Sums are divided by the examples, so it is one of a patient: standardised columns
stay far below."""
FARTHEST: Final = 1000.0
"""The largest step that is told: the manifest's range, outside which nothing at all would leave."""

app = ClientApp()

_warm: dict[tuple[Path, Path], tuple[Model, Design]] = {}


def model_file() -> Path:
    """Return where the model is; outside a container PHT_MODEL says."""
    return Path(os.environ.get("PHT_MODEL", "/opt/pht/model.json"))


def _model_and_design() -> tuple[Model, Design]:
    where = data_folder(), model_file()
    if where not in _warm:
        model = read_model(where[1])
        _warm[where] = model, read_design(where[0], model)
    return _warm[where]


@app.train()
def train_round(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Take the step that the inbound sums lead to; reply with this station's sums there."""
    settings = settings_of(message)
    model, design = _model_and_design()
    require_many(design, int(settings["minimum_cell_count"]), int(settings["minimum_joint_count"]))
    inbound = {name: np.asarray(array.numpy()) for name, array in arrays_of(message).items()}
    state = read_state(inbound, len(model.columns))
    ridge = Ridge(settings["ridge"], free=int(model.has_intercept))
    step = next_step(state, ridge, bounded=model.family is not Family.LINEAR)
    efron = bool(settings["efron_ties"])
    first = state.sums.patients <= 0
    found = (
        start_at_means(design, model.family, efron=efron)
        if first and not step.trial.any()
        else totals_at(design, model.family, step.trial, efron=efron)
    )
    answer = State(
        step.trial,
        Sums.of(_within_bounds(found, design, model, step), design),
        step.accepted,
        step.accepted_log_likelihood,
        step.accepted_population,
    )
    arrays = write_state(answer, inbound)
    metrics = MetricRecord({"complete_share": design.complete / max(1, design.listed)})
    if not first and step.largest <= FARTHEST:
        metrics["largest_step"] = step.largest
    content = RecordDict(
        {
            "arrays": ArrayRecord(OrderedDict((name, Array(each)) for name, each in arrays.items())),
            "metrics": metrics,
        }
    )
    return Message(content=content, reply_to=message)


def _within_bounds(found: Totals, design: Design, model: Model, step: Step) -> Totals:
    """Return the sums, or of a trial so far out that they have none, a log-likelihood that no station's good one outweighs.

    Raises:
        GlmError: no step is to blame: the numbers themselves are too large.
    """
    if found.largest <= BOUND * design.examples:
        return found
    if not step.largest or model.family is Family.LINEAR:
        raise GlmError(
            Code.OUT_OF_RANGE,
            "a sum is too large: choose centre and per in model.json so that columns lie around -10 to 10",
        )
    width = len(step.trial)
    return Totals(-BOUND * design.examples, np.zeros(width), np.zeros((width, width)), 0.0)
