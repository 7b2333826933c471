"""The agent's durable memory: messages that are not answered yet, answers that are not delivered yet, runs at work.

The SuperLink hands a message out once and may lose a reply, so both are on disk before they count. It remembers
bytes and addresses only; what an instruction means, and that answering it twice gives the same release, is the
handler's business. Each file is written under another name, synced and renamed: a crash leaves the old or the new.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from pathlib import Path

from policies.documents import parse_json
from policies.errors import DocumentError, StateError, StorageError
from policies.files import write_atomically
from station.agent.messages import Answer, IncomingMessage

MAX_MESSAGES = 256
_MAX_FILE_BYTES = 4 * 1024 * 1024
_MESSAGE_NAME = re.compile(r"(\d{1,20})-([0-9a-f]{64})\.json")


@dataclass(frozen=True, slots=True)
class Spooled:
    """A stored message, and its answer once there is one."""

    message: IncomingMessage
    answer: Answer | None


class Spool:
    """A folder of messages and answers. One process uses it; each message is written by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        _make_folder(folder / "messages")
        for left in (folder / "messages").glob(".*"):
            left.unlink(missing_ok=True)

    def is_full(self) -> bool:
        """Whether as many messages wait as may wait."""
        return sum(1 for _ in (self._folder / "messages").iterdir()) >= MAX_MESSAGES

    def keep(self, message: IncomingMessage) -> None:
        """Store a message before it is confirmed."""
        self._write(message, None)

    def keep_answer(self, message: IncomingMessage, answer: Answer) -> None:
        """Store the answer to a message before it is sent."""
        self._write(message, answer)

    def forget(self, message: IncomingMessage) -> None:
        """Drop a message that is answered, expired, or of a run that is over."""
        self._path(message).unlink(missing_ok=True)

    def waiting(self) -> list[Spooled]:
        """What a crash left, oldest first. A damaged file is dropped: the orchestrator asks again."""
        found: list[tuple[float, Spooled]] = []
        for path in (self._folder / "messages").iterdir():
            if not _MESSAGE_NAME.fullmatch(path.name):
                continue
            try:
                found.append((path.stat().st_mtime, _read(path)))
            except StateError:
                path.unlink(missing_ok=True)
        return [spooled for _, spooled in sorted(found, key=lambda item: item[0])]

    def read_state(self) -> dict[str, object]:
        """The agent's own small state (node id, runs at work); empty when there is none."""
        path = self._folder / "agent.json"
        try:
            state = parse_json(path.read_bytes(), what=path.name)
        except FileNotFoundError:
            return {}
        except (OSError, DocumentError):
            # Nothing here is needed to be right: a node id is asked for anew, runs announce themselves again.
            return {}
        return state if isinstance(state, dict) else {}

    def write_state(self, state: dict[str, object]) -> None:
        """Replace the agent's own small state."""
        write_atomically(self._folder / "agent.json", json.dumps(state, sort_keys=True).encode(), mode=0o600)

    def _write(self, message: IncomingMessage, answer: Answer | None) -> None:
        document = {
            "run_id": message.run_id,
            "message_id": message.message_id,
            "expires": message.expires,
            "reply_to": _text(message.reply_to),
            "body": _text(message.body),
            "arrays": _text(message.arrays),
            "answer": None
            if answer is None
            else {"body": _text(answer.body), "arrays": _text(answer.arrays), "answered": answer.answered},
        }
        write_atomically(self._path(message), json.dumps(document, sort_keys=True).encode(), mode=0o600)

    def _path(self, message: IncomingMessage) -> Path:
        name = f"{message.run_id}-{message.message_id}.json"
        if not _MESSAGE_NAME.fullmatch(name):
            raise StateError("a message id is not one of Flower's")
        return self._folder / "messages" / name


def _read(path: Path) -> Spooled:
    try:
        document = parse_json(path.read_bytes(), what=path.name, max_bytes=_MAX_FILE_BYTES)
        message = IncomingMessage(
            run_id=int(document["run_id"]),
            message_id=str(document["message_id"]),
            body=_bytes(document["body"]),
            arrays=_bytes(document["arrays"]),
            reply_to=_bytes(document["reply_to"]) or b"",
            expires=float(document["expires"]),
        )
        stored = document["answer"]
        answer = None
        if stored is not None:
            answer = Answer(
                reply_to=message.reply_to,
                body=_bytes(stored["body"]) or b"",
                arrays=_bytes(stored["arrays"]),
                answered=float(stored["answered"]),
            )
    except (OSError, DocumentError, KeyError, TypeError, ValueError, binascii.Error):
        raise StateError(f"the stored message {path.name} is damaged") from None
    return Spooled(message, answer)


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the agent's folder ({error.strerror})") from error
