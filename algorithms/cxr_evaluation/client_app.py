"""The evaluation train's ClientApp: scores inbound weights on `testing` patients; returns AUC, loss and a coarse histogram.

The histogram has few bins on purpose: a cell with too few patients is withheld by the station, and the whole table with it.
"""

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from algorithms.cxr_classification.data import data_folder, load_split
from algorithms.cxr_classification.messages import arrays_of, settings_of
from algorithms.cxr_classification.model import build_model, device, load_weights
from algorithms.cxr_classification.training import auc, score

BINS = 4

app = ClientApp()


def histogram(probabilities: torch.Tensor, labels: torch.Tensor) -> list[int]:
    """Count images per score bin and class: BINS rows of (negative, positive), row after row."""
    bins = (probabilities * BINS).long().clamp(0, BINS - 1)
    counts = torch.zeros(BINS, 2, dtype=torch.long)
    counts.index_put_((bins, labels.long()), torch.ones(len(labels), dtype=torch.long), accumulate=True)
    return [int(count) for count in counts.flatten()]


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Score the inbound weights on testing patients."""
    settings = settings_of(message)
    data = load_split(data_folder(), "testing", int(settings["image_size"]))
    model = build_model()
    load_weights(model, arrays_of(message))
    probabilities, labels, loss = score(model, data, device())
    metrics = MetricRecord({"loss": loss})
    if (area := auc(probabilities, labels)) is not None:
        metrics["auc"] = area
    content = RecordDict(
        {
            "metrics": metrics,
            "tables": MetricRecord({"score_histogram": histogram(probabilities, labels)}),
        }
    )
    return Message(content=content, reply_to=message)
