"""What a draft leaves to the board: ``FILL IN`` where its own references, names and grounds belong.

An example shows how a finished policy reads, but who asks, who answers for the question, and what the lawyer found, no example
can know: a draft has a placeholder there, with the example's words for a hint. A file that still has one is not signed.
"""

from collections.abc import Iterator

import yaml
from pydantic import JsonValue

from policies.errors import DocumentError

FILL_IN = "FILL IN"

BOARDS_OWN = (
    "requester.organisation",
    "requester.contact",
    "radiologist",
    "legal.national_ground",
    "legal.controllers",
    "legal.dpia",
    "legal.ethics",
    "legal.agreement.reference",
)
"""The values of a policy that hold for one board and one study."""


def placeholder(example: JsonValue) -> JsonValue:
    """Return what stands in a draft instead of an example's value."""
    if isinstance(example, list):
        return [placeholder(item) for item in example]
    text = str(example)
    return text if FILL_IN in text else f"{FILL_IN} (for example {text})"


def unfinished(data: bytes) -> list[str]:
    """Return the keys of a YAML document whose values a person still has to fill in, in the order of the file.

    Raises:
        DocumentError: it is not YAML.
    """
    try:
        root = yaml.compose(data, Loader=yaml.SafeLoader)
        return list(_waiting(root, "")) if root is not None else []
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DocumentError("the document is not valid YAML") from error


def _waiting(node: yaml.Node, key: str) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _waiting(value, f"{key}.{name.value}" if key else str(name.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _waiting(value, f"{key}.{number}")
    elif FILL_IN in str(node.value):
        yield key
