"""Reads what a message must hold, with its type."""

from flwr.app import ArrayRecord, ConfigRecord, Message


def arrays_of(message: Message) -> ArrayRecord:
    """Return the inbound weights.

    Raises:
        TypeError: the message has none.
    """
    arrays = message.content["arrays"]
    if not isinstance(arrays, ArrayRecord):
        raise TypeError("the message has no arrays")
    return arrays


def settings_of(message: Message) -> dict[str, float]:
    """Return the hyperparameters, all of them numbers.

    Raises:
        TypeError: the message has no config.
    """
    config = message.content["config"]
    if not isinstance(config, ConfigRecord):
        raise TypeError("the message has no config")
    return {name: float(value) for name, value in config.items() if isinstance(value, int | float)}
