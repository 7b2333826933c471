"""A train that does nothing, to see what a round costs besides: the weights come back as they went in."""

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def initial_weights() -> dict[str, np.ndarray]:
    return {"w": np.zeros(25_000, dtype=np.float32)}


@app.train()
def train(message: Message, context: Context) -> Message:
    content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"loss": 1.0})})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return Message(content=RecordDict({"metrics": MetricRecord({"loss": 1.0})}), reply_to=message)
