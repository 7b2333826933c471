"""The JSON heads of the container protocol, parsed strictly, and the closed list of what can be wrong with a message.

A head comes from hostile code. Whatever its bytes are, parsing ends in an object or in one :class:`ProtocolError`, takes time
linear in the bytes, and at most 64 bytes of memory for each of them.
"""

import json
import math
from enum import StrEnum
from typing import Final, NoReturn

from pydantic import JsonValue

from policies.errors import WireError

MAX_JSON_DEPTH: Final = 16

_MAX_INTEGER_DIGITS: Final = 20
_MAX_FLOAT_CHARACTERS: Final = 64


class ProtocolReason(StrEnum):
    """Why a message was not accepted. A closed list: the values end up in audit records."""

    BAD_MAGIC = "bad-magic"
    HEAD_TOO_LARGE = "head-too-large"
    ARRAYS_TOO_LARGE = "arrays-too-large"
    CLOSED = "closed"
    TRUNCATED = "truncated"
    TIMEOUT = "timeout"
    TOO_SLOW = "too-slow"
    UNASKED = "unasked"
    NOT_JSON = "not-json"
    TOO_DEEP = "too-deep"
    NOT_AN_OBJECT = "not-an-object"
    DUPLICATE_KEY = "duplicate-key"
    NOT_FINITE = "not-finite"
    NUMBER_TOO_LONG = "number-too-long"


class ProtocolError(WireError):
    """A message that breaks the container protocol.

    Attributes:
        reason: the code; the text of the exception is made here and never holds bytes of the sender.
    """

    def __init__(self, reason: ProtocolReason) -> None:
        super().__init__(f"container protocol: {reason.value}")
        self.reason = reason


def parse_head(encoded: bytes) -> dict[str, JsonValue]:
    """Parse the head of a message strictly.

    Refused beside what is no JSON: a value that is no object, a key given twice, NaN and infinities (also as ``1e999``),
    integers of more than 20 digits, other numbers of more than 64 characters, nesting deeper than 16, and strings that UTF-8 cannot hold.

    Raises:
        ProtocolError: with the reason.

    >>> parse_head(b'{"type": "reply", "id": 1}')
    {'type': 'reply', 'id': 1}
    """
    try:
        value = json.loads(
            encoded.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short_integer,
        )
    except RecursionError as error:
        raise ProtocolError(ProtocolReason.TOO_DEEP) from error
    except ValueError as error:
        raise ProtocolError(ProtocolReason.NOT_JSON) from error
    if not isinstance(value, dict):
        raise ProtocolError(ProtocolReason.NOT_AN_OBJECT)
    _check_tree(value)
    return value


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ProtocolError(ProtocolReason.DUPLICATE_KEY)
    return made


def _refuse_constant(_name: str) -> NoReturn:
    raise ProtocolError(ProtocolReason.NOT_FINITE)


def _finite(text: str) -> float:
    if len(text) > _MAX_FLOAT_CHARACTERS:
        raise ProtocolError(ProtocolReason.NUMBER_TOO_LONG)
    value = float(text)
    if not math.isfinite(value):
        raise ProtocolError(ProtocolReason.NOT_FINITE)
    return value


def _short_integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_DIGITS:
        raise ProtocolError(ProtocolReason.NUMBER_TOO_LONG)
    return int(text)


def _check_tree(root: JsonValue) -> None:
    """Check depth and strings without recursion."""
    waiting: list[tuple[JsonValue, int]] = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, dict | list):
            if depth > MAX_JSON_DEPTH:
                raise ProtocolError(ProtocolReason.TOO_DEEP)
            if isinstance(value, dict):
                for key in value:
                    _check_text(key)
                waiting.extend((each, depth + 1) for each in value.values())
            else:
                waiting.extend((each, depth + 1) for each in value)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # a lone surrogate, written as \ud800
        raise ProtocolError(ProtocolReason.NOT_JSON) from error
