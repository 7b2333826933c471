"""One question under way: who is asked when, what comes back, and when waiting is of no more use.

A station where a person looks at what is to leave says so (`REVIEW_PENDING`). It is no straggler: the question waits for it
until the policy's hours are over, asked at a slow pace, whatever the others have answered; a stop and a quorum that cannot be
reached any more end it all the same. A station whose own measured times say that it needs longer than the others has that long,
within what those took.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ConfigRecord, ConfigRecordValues, Message, RecordDict
from flwr.serverapp import Grid

from orchestrator.federation.answers import (
    LATE,
    LOST,
    Answered,
    Judge,
    Looking,
    Missing,
    Outcome,
    Patience,
)
from orchestrator.federation.asked import AskedStation, Unanswered
from orchestrator.federation.looks import Looks
from orchestrator.federation.received import HELD, is_failure, is_finished_there, passes, read_answer
from orchestrator.federation.reviews import Reviews
from orchestrator.federation.speeds import Late, longest_allowed_s
from policies.errors import WireError
from policies.refusals import RefusalCode
from policies.wire.instructions import (
    ARRAYS_KEY,
    BODY_KEY,
    MESSAGE_TYPE,
    OLDEST_VERSION,
    RECORD_KEY,
    WIRE_VERSION,
    Instruction,
    Status,
    encode,
)

log = logging.getLogger(__name__)

_PENDING_MAX_S = 15.0
_REVIEW_PACE_MAX_S = 60.0
_REVIEW_MESSAGE_S = 3600.0
"""A station where a person looks answers each question at once: a message to it need not live for days."""
_SILENCE_MAX_S = 900.0
_LOOK_S = 0.25
"""For so long replies are looked at before a stop, what is due and new replies have their turn: a large update takes seconds."""
_LATE_PACE_S = 1.0
_LATE_S = 4 * 3600.0
"""For so long the answer to a question that is over is looked for."""


@dataclass(slots=True)
class Asking:
    """One question under way.

    Attributes:
        in_hand: messages that were taken and not looked at yet, with the moment at which they came, by what they answer.
        judging: stations whose update is looked at, with what follows from it, and the moment at which their answer came.
    """

    grid: Grid
    question: Instruction
    arrays: bytes | None
    patience: Patience
    judge: Judge
    reviews: Reviews
    looks: Looks = field(default_factory=Looks)
    stations: dict[str, AskedStation] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    late: dict[str, Unanswered] = field(default_factory=dict)
    in_hand: dict[str, tuple[Message, float]] = field(default_factory=dict)
    judging: dict[str, tuple[Callable[[Any], Outcome], float]] = field(default_factory=dict)
    late_asked_at: float = 0.0
    started: float = field(default_factory=time.monotonic)
    enough_at: float | None = None
    online_asked_at: float = 0.0
    pull_s: float = 0.0

    def expect(self, nodes: Mapping[str, int]) -> None:
        """Begin with these stations; one where a person looked before has what is left of that."""
        for name, node_id in nodes.items():
            until = self.started + self.patience.deadline_s
            entry = AskedStation(
                node_id, ask_at=0.0, silence_s=self.patience.silence_s, until=until, version=WIRE_VERSION
            )
            if (left_s := self.reviews.left_s(name)) is not None:
                entry.under_review, entry.last_code = True, RefusalCode.REVIEW_PENDING.value
                entry.review_until = self.started + left_s
                entry.until = max(until, entry.review_until)
            self.stations[name] = entry

    def is_over(self, now: float) -> bool:
        """Whether every station has an outcome or no time left, or waiting for the rest is of no use."""
        open_ = [entry for entry in self.stations.values() if entry.outcome is None and now < entry.until]
        answered = sum(isinstance(entry.outcome, Answered) for entry in self.stations.values())
        here = self.in_hand or self.judging
        if not here and (not open_ or answered + len(open_) < self.patience.enough):
            return True
        if answered >= self.patience.enough and self.enough_at is None:
            self.enough_at = now
        if here or self.enough_at is None:
            return False
        if any(entry.under_review and now < entry.review_until for entry in open_):
            return False
        return all(now >= self._waited_until(name, entry) for name, entry in self._open(now))

    def _open(self, now: float) -> list[tuple[str, AskedStation]]:
        return [
            (name, entry)
            for name, entry in self.stations.items()
            if entry.outcome is None and now < entry.until
        ]

    def _rest_s(self) -> float:
        """How long the rest may take once enough have answered."""
        taken_s = 0.0 if self.enough_at is None else self.enough_at - self.started
        return max(self.patience.grace_s, taken_s) + self.patience.quantum_s

    def _waited_until(self, name: str, entry: AskedStation) -> float:
        """Return until when a station is waited for.

        Its own deadline, or once enough have answered: what the rest may take, or what its own speed says where that is longer, as
        far as the others' answers to this question bear it out.
        """
        if self.enough_at is None:
            return entry.until
        until = self.enough_at + self._rest_s()
        if entry.asked_at is not None and not entry.offline:
            until = max(until, entry.asked_at + self._allowed_s(name))
        return min(until, entry.until)

    def _allowed_s(self, name: str) -> float:
        others = [
            entry.taken_s
            for other, entry in self.stations.items()
            if other != name and entry.taken_s is not None and not entry.held
        ]
        longest_s = longest_allowed_s(others, self.patience.grace_s) + self.patience.quantum_s
        return min(self.patience.speeds.allowed_s(name), longest_s)

    def close(self, now: float) -> None:
        """Write down how long each station was given; what comes from now on is late."""
        for name, entry in self.stations.items():
            if entry.asked_at is not None and not entry.under_review:
                self.patience.speeds.given(name, self._waited_until(name, entry) - entry.asked_at)
        for message_id, name in self.sent.items():
            entry = self.stations[name]
            if entry.outcome is None and entry.asked_at is not None:
                until = now + _LATE_S
                self.late[message_id] = Unanswered(self.question, name, entry.asked_at, until, entry.held)

    def longest_wait_s(self) -> float:
        """How long one may look away: where only people are waited for, longer."""
        open_ = [entry for entry in self.stations.values() if entry.outcome is None]
        return min(2.0, self.patience.review_pace_s) if all(entry.under_review for entry in open_) else 0.25

    def send_due(self, now: float) -> None:
        """Send the question to the stations whose time has come."""
        self._look_who_is_online(now)
        answered = {self.sent.get(message_id) for message_id in self.in_hand}
        due = {
            name: entry
            for name, entry in self.stations.items()
            if entry.outcome is None and not entry.offline and entry.ask_at <= now < entry.until
            if name not in answered and name not in self.judging
        }
        if not due:
            return
        ids = self.grid.push_messages([self._message(entry, now) for entry in due.values()])
        for (name, entry), message_id in zip(due.items(), ids, strict=True):
            entry.attempt += 1
            entry.asked_at = now if entry.asked_at is None else entry.asked_at
            entry.ask_at = now + entry.silence_s
            entry.silence_s = min(entry.silence_s * 2, max(_SILENCE_MAX_S, entry.silence_s))
            if message_id:
                self.sent[message_id] = name

    def look(self) -> bool:
        """Look at some of the replies that are in hand, and at what came of judging others; whether there was one."""
        got_one = False
        for station, found in self.looks.done():
            got_one = True
            settle, came_at = self.judging.pop(station)
            self._settle(station, self.stations[station], settle(found), came_at)
        begun = time.monotonic()
        while self.in_hand and (not got_one or time.monotonic() - begun < _LOOK_S):
            message_id, (message, came_at) = next(iter(self.in_hand.items()))
            del self.in_hand[message_id]
            name = self.sent.pop(message_id, None)
            if name is None or self.stations[name].outcome is not None or name in self.judging:
                continue
            got_one = True
            self._take(name, self.stations[name], message, came_at)
        return got_one

    def pull(self) -> None:
        """Take the replies that are there in hand."""
        open_ids = [
            key
            for key, name in self.sent.items()
            if self.stations[name].outcome is None and key not in self.in_hand
        ]
        open_ids += self._late_ids(time.monotonic())
        if not open_ids:
            return
        begun = time.monotonic()
        messages = self.grid.pull_messages(open_ids)
        came_at = time.monotonic()
        self.pull_s = came_at - begun
        for message in messages:
            message_id = message.metadata.reply_to_message_id
            if (unanswered := self.late.pop(message_id, None)) is not None:
                self._take_late(unanswered, message, came_at)
            elif message_id in self.sent:
                self.in_hand[message_id] = (message, came_at)

    def _late_ids(self, now: float) -> list[str]:
        """Once a second the messages of questions that are over: what they tell is how fast a station is."""
        if not self.late or now - self.late_asked_at < _LATE_PACE_S:
            return []
        self.late_asked_at = now
        for message_id in [key for key, unanswered in self.late.items() if now >= unanswered.until]:
            del self.late[message_id]
        return list(self.late)

    def _take_late(self, unanswered: Unanswered, message: Message, now: float) -> None:
        if message.has_error():
            return
        try:
            reply = read_answer(message).reply
        except WireError:
            return
        question = unanswered.question
        asked = (question.order_digest, question.kind, question.round)
        if (reply.order_digest, reply.kind, reply.round) != asked:
            return
        if reply.status in {Status.RELEASED, Status.ACCEPTED}:
            taken_s = now - unanswered.asked_at
            self.patience.speeds.late(Late(unanswered.station, reply, taken_s, unanswered.held))

    def _take(self, name: str, entry: AskedStation, message: Message, now: float) -> None:
        if message.has_error():
            # Flower's word, not the station's: the node counts as offline, or a reply was lost on the way.
            entry.offline, entry.last_code = True, LOST
            log.warning("reply_lost", extra={"station": name, "flower_code": message.error.code})
            self._again(entry, now)
            return
        try:
            answered = read_answer(message)
        except WireError:
            entry.outcome = Missing("REPLY_UNREADABLE", offence=True)
            return
        reply = answered.reply
        entry.last_code, entry.correlation_id = reply.code or LATE, reply.correlation_id
        if reply.code == RefusalCode.PROTOCOL_VERSION and entry.version > OLDEST_VERSION:
            entry.version -= 1
            self._again(entry, now)
        elif reply.status is Status.PENDING and reply.code == RefusalCode.REVIEW_PENDING:
            self._wait_for_a_person(name, entry, now)
        elif reply.status is Status.PENDING or passes(reply, begun=name in self.patience.begun):
            entry.held = entry.held or reply.code in HELD
            entry.ask_at = now + min(self.patience.pending_s * 1.12 ** min(entry.attempt, 40), _PENDING_MAX_S)
            entry.silence_s = self.patience.silence_s
        elif is_failure(reply) and entry.failures + 1 < self.patience.tries:
            entry.failures += 1
            self._person_is_done(name, entry)
            self._again(entry, now)
        elif reply.status in {Status.ACCEPTED, Status.RELEASED, Status.FINISHED} or is_finished_there(reply):
            judged = self.judge(name, answered)
            if isinstance(judged, Looking):
                self.judging[name] = (judged.settle, now)
                self.looks.begin(name, judged.work)
            else:
                self._settle(name, entry, judged, now)
        else:
            entry.outcome = Missing(reply.code or reply.status.name, reply.correlation_id)
        if entry.outcome is not None:
            self._person_is_done(name, entry)

    def _settle(self, name: str, entry: AskedStation, outcome: Outcome, came_at: float) -> None:
        """Take what an answer comes to; one whose bytes are not here is asked for again."""
        if isinstance(outcome, Missing) and outcome.again:
            entry.last_code = outcome.code
            entry.failures += 1
            if entry.failures < self.patience.tries:
                self._again(entry, time.monotonic())
                return
        entry.outcome = outcome
        if isinstance(outcome, Answered) and entry.asked_at is not None:
            entry.taken_s = came_at - entry.asked_at
            self.patience.speeds.answered(name, entry.taken_s, held=entry.held)
        self._person_is_done(name, entry)

    def _wait_for_a_person(self, name: str, entry: AskedStation, now: float) -> None:
        entry.review_until = now + self.reviews.begin(name)
        entry.until = max(entry.until, entry.review_until)
        entry.under_review = entry.held = True
        pace_s = self.patience.review_pace_s * 1.12 ** min(entry.review_asked, 40)
        entry.review_asked += 1
        entry.ask_at = now + min(pace_s, max(_REVIEW_PACE_MAX_S, self.patience.review_pace_s))
        entry.silence_s = self.patience.silence_s
        # Whatever else it was asked and has not answered, it has answered by this.
        self.sent = {key: station for key, station in self.sent.items() if station != name}

    def _person_is_done(self, name: str, entry: AskedStation) -> None:
        if not entry.under_review:
            return
        entry.under_review = False
        self.reviews.end(name)
        # Where it works again (a patient withdrew meanwhile), it has a straggler's time from now.
        self.enough_at = None

    def _again(self, entry: AskedStation, now: float) -> None:
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

    def _message(self, entry: AskedStation, now: float) -> Message:
        left_s = max(1.0, entry.until - now)
        if entry.under_review:
            left_s = min(left_s, _REVIEW_MESSAGE_S)
        question = self.question.model_copy(
            update={
                "version": entry.version,
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
