"""Asks stations and waits for them: each one under its own deadline, asked again after any error or silence.

The SuperLink delivers an instruction once, may lose a reply, and answers for a node that it takes for offline. So a
question is (order, round, kind) and every message that carries it another attempt; the first answer of a station
counts. Nothing here relies on Flower's message ids beyond fetching, on acknowledgements or on the online state,
which only says when asking again is of use.

A station where a person looks at what is to leave says so (`REVIEW_PENDING`). It is no straggler: the question waits for it
until the policy's hours are over, asked at a slow pace, whatever the others have answered; a stop and a quorum that cannot be
reached any more end it all the same.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, ConfigRecordValues, Message, RecordDict
from flwr.serverapp import Grid

from orchestrator.federation.reviews import NoReviews, Reviews
from orchestrator.federation.tasks import SuperLinkDownError
from policies.errors import WireError
from policies.refusals import RefusalCode
from policies.wire.instructions import (
    ARRAYS_KEY,
    BODY_KEY,
    MAX_INLINE_ARRAYS_BYTES,
    MESSAGE_TYPE,
    RECORD_KEY,
    Instruction,
    StationReply,
    Status,
    decode_reply,
    encode,
)

log = logging.getLogger(__name__)

_PASSING = frozenset(
    {
        RefusalCode.TRUST_UNREACHABLE.value,
        RefusalCode.RESOURCES_BUSY.value,
        RefusalCode.ENGINE_UNAVAILABLE.value,
        RefusalCode.DATA_NOT_READY.value,
        RefusalCode.STATION_STORAGE.value,
        RefusalCode.HOSPITAL_QUIET_HOURS.value,
    }
)
"""Refusals that may be another answer later."""

_PENDING_MAX_S = 15.0
_REVIEW_PACE_S = 5.0
_REVIEW_PACE_MAX_S = 60.0
_REVIEW_MESSAGE_S = 3600.0
"""A station where a person looks answers each question at once: a message to it need not live for days."""
_SILENCE_MAX_S = 900.0

LATE = "LATE"
LOST = "LOST"


class StoppedError(Exception):
    """An operator asked to stop, or the task is not ours any more."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A station's answer, as it came; `replies` judges it."""

    reply: StationReply
    arrays: bytes | None


@dataclass(frozen=True, slots=True)
class Missing:
    """No answer of use.

    Attributes:
        code: a refusal code, `LATE`, `LOST`, or why the reply was not acceptable.
        correlation_id: what the station calls its run, to ask its operator about; empty where it said none.
    """

    code: str
    correlation_id: str = ""


Outcome = Answered | Missing
Judge = Callable[[str, Answered], Outcome]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a question waits, in seconds.

    Attributes:
        deadline_s: for each station.
        enough: how many answers make waiting for the rest optional.
        grace_s: how long the rest may take after that, or as long as it took until then if that is more.
        quantum_s: at multiples of which stations answer; the rest have one more, since an answer comes when a quantum is over.
        pending_s: before a station that answered "pending" is asked again; slowly grows to 15 s.
        silence_s: before a silent station is asked again; doubles.
        tries: how many answers "failed" end the question at a station.
        review_pace_s: before a station where a person looks is asked again; slowly grows to a minute.
    """

    deadline_s: float
    enough: int
    grace_s: float
    pending_s: float = 0.8
    silence_s: float = 30.0
    tries: int = 3
    review_pace_s: float = _REVIEW_PACE_S
    quantum_s: float = 0.0


@dataclass(slots=True)
class _Station:
    """What is known of one station while a question waits.

    Attributes:
        until: when it is not waited for any more.
        under_review: a person there looks at what is to leave.
    """

    node_id: int
    ask_at: float
    silence_s: float
    until: float
    under_review: bool = False
    review_asked: int = 0
    attempt: int = 0
    failures: int = 0
    backoff_s: float = 1.0
    offline: bool = False
    last_code: str = LATE
    correlation_id: str = ""
    outcome: Outcome | None = None


class Exchange:
    """Questions to the stations of one order over one grid."""

    def __init__(
        self, grid: Grid, nodes: Mapping[str, int], stop: threading.Event, poll_s: float = 0.02
    ) -> None:
        self._grid = grid
        self._nodes = dict(nodes)
        self._stop = stop
        self._poll_s = poll_s

    def online(self, stations: Iterable[str]) -> list[str]:
        """Those of the stations that the SuperLink takes for online; none while it is down."""
        try:
            nodes = set(self._grid.get_node_ids())
        except SuperLinkDownError:
            return []
        return [name for name in stations if self._nodes[name] in nodes]

    def ask(
        self,
        question: Instruction,
        arrays: bytes | None,
        stations: Iterable[str],
        patience: Patience,
        judge: Judge,
        reviews: Reviews | None = None,
    ) -> dict[str, Outcome]:
        """Put one question to stations and collect what they say.

        Args:
            question: the instruction; its attempt is set here.
            arrays: inline weights.
            stations: their names, each with a node id.
            patience: how long.
            judge: called once per answer that is not "pending" or worth another try; what it returns is kept.
            reviews: where people look, as it was known before.

        Raises:
            StoppedError: `stop` was set meanwhile.
            LeaseLostError: the task is not ours any more.
        """
        asking = _Asking(self._grid, question, arrays, patience, judge, reviews or NoReviews())
        asking.expect({name: self._nodes[name] for name in stations})
        wait_s = self._poll_s
        while not asking.is_over(time.monotonic()):
            try:
                asking.send_due(time.monotonic())
                got_one = asking.collect()
            except SuperLinkDownError as error:
                log.warning("superlink_down", extra={"reason": error.message})
                got_one, wait_s = False, 0.5
            # Short waits at first; a long computation is asked after four times a second, a person less often.
            wait_s = self._poll_s if got_one else min(wait_s * 1.1, asking.longest_wait_s())
            if self._stop.wait(wait_s):
                raise StoppedError
        return {
            name: entry.outcome or Missing(entry.last_code, entry.correlation_id)
            for name, entry in asking.stations.items()
        }


@dataclass(slots=True)
class _Asking:
    """One question under way."""

    grid: Grid
    question: Instruction
    arrays: bytes | None
    patience: Patience
    judge: Judge
    reviews: Reviews
    stations: dict[str, _Station] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    enough_at: float | None = None
    online_asked_at: float = 0.0

    def expect(self, nodes: Mapping[str, int]) -> None:
        """Begin with these stations; one where a person looked before has what is left of that."""
        for name, node_id in nodes.items():
            until = self.started + self.patience.deadline_s
            entry = _Station(node_id, ask_at=0.0, silence_s=self.patience.silence_s, until=until)
            if (left_s := self.reviews.left_s(name)) is not None:
                entry.under_review, entry.last_code = True, RefusalCode.REVIEW_PENDING.value
                entry.until = max(until, self.started + left_s)
            self.stations[name] = entry

    def is_over(self, now: float) -> bool:
        """Whether every station has an outcome or no time left, or waiting for the rest is of no use."""
        open_ = [entry for entry in self.stations.values() if entry.outcome is None and now < entry.until]
        answered = sum(isinstance(entry.outcome, Answered) for entry in self.stations.values())
        if not open_ or answered + len(open_) < self.patience.enough:
            return True
        if answered >= self.patience.enough and self.enough_at is None:
            self.enough_at = now
        if self.enough_at is None or any(entry.under_review for entry in open_):
            return False
        rest_s = max(self.patience.grace_s, self.enough_at - self.started)
        return now - self.enough_at >= rest_s + self.patience.quantum_s

    def longest_wait_s(self) -> float:
        """How long one may look away: where only people are waited for, longer."""
        open_ = [entry for entry in self.stations.values() if entry.outcome is None]
        return min(2.0, self.patience.review_pace_s) if all(entry.under_review for entry in open_) else 0.25

    def send_due(self, now: float) -> None:
        """Send the question to the stations whose time has come."""
        self._look_who_is_online(now)
        due = {
            name: entry
            for name, entry in self.stations.items()
            if entry.outcome is None and not entry.offline and entry.ask_at <= now < entry.until
        }
        if not due:
            return
        ids = self.grid.push_messages([self._message(entry, now) for entry in due.values()])
        for (name, entry), message_id in zip(due.items(), ids, strict=True):
            entry.attempt += 1
            entry.ask_at = now + entry.silence_s
            entry.silence_s = min(entry.silence_s * 2, max(_SILENCE_MAX_S, entry.silence_s))
            if message_id:
                self.sent[message_id] = name

    def collect(self) -> bool:
        """Take the replies that are there; whether there was one."""
        open_ids = [key for key, name in self.sent.items() if self.stations[name].outcome is None]
        if not open_ids:
            return False
        got_one = False
        for message in self.grid.pull_messages(open_ids):
            name = self.sent.pop(message.metadata.reply_to_message_id, None)
            if name is None or self.stations[name].outcome is not None:
                continue
            got_one = True
            self._take(name, self.stations[name], message)
        return got_one

    def _take(self, name: str, entry: _Station, message: Message) -> None:
        now = time.monotonic()
        if message.has_error():
            # Flower's word, not the station's: the node counts as offline, or a reply was lost on the way.
            entry.offline, entry.last_code = True, LOST
            log.warning("reply_lost", extra={"station": name, "flower_code": message.error.code})
            self._again(entry, now)
            return
        try:
            answered = _read(message)
        except WireError:
            entry.outcome = Missing("REPLY_UNREADABLE")
            return
        reply = answered.reply
        entry.last_code, entry.correlation_id = reply.code or LATE, reply.correlation_id
        if reply.status is Status.PENDING and reply.code == RefusalCode.REVIEW_PENDING:
            self._wait_for_a_person(name, entry, now)
        elif reply.status is Status.PENDING or (reply.status is Status.REFUSED and reply.code in _PASSING):
            entry.ask_at = now + min(self.patience.pending_s * 1.12 ** min(entry.attempt, 40), _PENDING_MAX_S)
            entry.silence_s = self.patience.silence_s
        elif reply.status is Status.FAILED and entry.failures + 1 < self.patience.tries:
            entry.failures += 1
            self._person_is_done(name, entry)
            self._again(entry, now)
        elif reply.status in {Status.ACCEPTED, Status.RELEASED, Status.FINISHED}:
            entry.outcome = self.judge(name, answered)
        else:
            entry.outcome = Missing(reply.code or reply.status.name, reply.correlation_id)
        if entry.outcome is not None:
            self._person_is_done(name, entry)

    def _wait_for_a_person(self, name: str, entry: _Station, now: float) -> None:
        entry.until = max(entry.until, now + self.reviews.begin(name))
        entry.under_review = True
        pace_s = self.patience.review_pace_s * 1.12 ** min(entry.review_asked, 40)
        entry.review_asked += 1
        entry.ask_at = now + min(pace_s, max(_REVIEW_PACE_MAX_S, self.patience.review_pace_s))
        entry.silence_s = self.patience.silence_s
        # Whatever else it was asked and has not answered, it has answered by this.
        self.sent = {key: station for key, station in self.sent.items() if station != name}

    def _person_is_done(self, name: str, entry: _Station) -> None:
        if not entry.under_review:
            return
        entry.under_review = False
        self.reviews.end(name)
        # Where it works again (a patient withdrew meanwhile), it has a straggler's time from now.
        self.enough_at = None

    def _again(self, entry: _Station, now: float) -> None:
        entry.ask_at = now + entry.backoff_s
        entry.backoff_s = min(entry.backoff_s * 2, 10.0)
        entry.silence_s = self.patience.silence_s

    def _look_who_is_online(self, now: float) -> None:
        waiting = [entry for entry in self.stations.values() if entry.offline and entry.outcome is None]
        if not waiting or now - self.online_asked_at < 1.0:
            return
        self.online_asked_at = now
        online = set(self.grid.get_node_ids())
        for entry in waiting:
            entry.offline = entry.node_id not in online

    def _message(self, entry: _Station, now: float) -> Message:
        left_s = max(1.0, entry.until - now)
        if entry.under_review:
            left_s = min(left_s, _REVIEW_MESSAGE_S)
        question = self.question.model_copy(
            update={
                "attempt": entry.attempt + 1,
                "deadline_s": min(int(left_s) + 1, self.question.deadline_s),
            }
        )
        record: dict[str, ConfigRecordValues] = {BODY_KEY: encode(question)}
        if self.arrays is not None:
            record[ARRAYS_KEY] = self.arrays
        # Flower drops a reply after the message's life; ours outlives the deadline, so a late answer can be seen.
        return Message(
            RecordDict({RECORD_KEY: ConfigRecord(record)}),
            dst_node_id=entry.node_id,
            message_type=MESSAGE_TYPE,
            ttl=left_s + 60.0,
            group_id=str(question.round),
        )


def _read(message: Message) -> Answered:
    try:
        record = message.content.config_records[RECORD_KEY]
        body, arrays = record[BODY_KEY], record.get(ARRAYS_KEY)
    except (KeyError, ValueError):
        raise WireError("the reply is not one of ours") from None
    if not isinstance(body, bytes) or not (arrays is None or isinstance(arrays, bytes)):
        raise WireError("the reply's record is not one of ours")
    if arrays is not None and len(arrays) > MAX_INLINE_ARRAYS_BYTES:
        raise WireError("the reply's inline arrays are too large")
    return Answered(decode_reply(body), arrays)
