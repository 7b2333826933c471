"""One station on a slow line, one on a line that loses packets, one on a line that breaks, each among others on good ones."""

import statistics
from contextlib import ExitStack
from dataclasses import dataclass

from tests.bench.scale_links import Link, Quality
from tests.bench.scale_network import HERE, Cable, Line, why_not
from tests.bench.scale_room import Need, need_of
from tests.bench.scale_scenes import Bench

BITS_PER_S = 2e6
LOSS = 0.02
STATIONS, SIZE_MB, ROUNDS = 10, 2.0, 3


@dataclass(frozen=True, slots=True)
class Kind:
    """What kind of line the first station has.

    Attributes:
        line: a cable of its own; none: loopback.
        quality: of a relay; none: there is none, or it only leads to the cable.
        bits_per_s: what the line carries each way at most.
    """

    name: str
    line: Line | None = None
    quality: Quality | None = None
    bits_per_s: float | None = None


def links(bench: Bench) -> None:
    """What one bad line costs: the round, the others, and bytes."""
    lacking = why_not()
    slow_bytes_s = 2 * SIZE_MB * 1e6 * 8 / BITS_PER_S
    kinds = [Kind("all good")]
    if lacking is None:
        kinds += [
            Kind("one at 2 Mbit/s (tc tbf)", Line(bits_per_s=BITS_PER_S), bits_per_s=BITS_PER_S),
            Kind(f"one that loses {100 * LOSS:g} % of its packets each way", Line(loss=LOSS)),
        ]
    else:
        bench.report.left_out(
            f"a network of its own with tc tbf and lost packets: {lacking}; a relay is slow instead"
        )
        slow = Quality(BITS_PER_S / 8)
        kinds.append(Kind("one at 2 Mbit/s (relay)", quality=slow, bits_per_s=BITS_PER_S))
    kinds.append(Kind("one whose line breaks", quality=Quality(breaks_every=0.75e6, stall_s=1.0)))
    for kind in kinds:
        need = need_of(STATIONS, SIZE_MB, ROUNDS)
        seconds = need.seconds + (slow_bytes_s * (ROUNDS + 1) if kind.bits_per_s else 0.0)
        if bench.fits(f"ten stations, {kind.name}", Need(need.disk_mb, need.memory_mb, seconds)):
            _one(bench, kind)


def _one(bench: Bench, kind: Kind) -> None:
    report = bench.report
    report.say(f"{STATIONS} stations, {SIZE_MB:g} MB, {ROUNDS} rounds, {kind.name} ...")
    port = int(bench.consortium.url.rpartition(":")[2])
    with ExitStack() as stack:
        urls: dict[int, str] = {}
        entering: dict[int, list[str]] = {}
        link: Link | None = None
        if kind.line is not None:
            entering[0] = stack.enter_context(Cable(kind.line)).entering
            link = stack.enter_context(Link(port, Quality(), address=HERE))
            urls[0] = f"https://{HERE}:{link.port}"
        elif kind.quality is not None:
            link = stack.enter_context(Link(port, kind.quality, seed=7))
            urls[0] = f"https://localhost:{link.port}"
        stations = stack.enter_context(bench.stations(STATIONS, urls, entering))
        cost = bench.run(STATIONS, SIZE_MB, ROUNDS)
        counted = stations.counted()
    names = bench.consortium.names[:STATIONS]
    others = statistics.median(
        seconds for each in names[1:] for key in ("fetch_s", "push_s") for seconds in counted[each][key]
    )
    wall_s, found = cost.wall_s(), report.found.ratios
    report.ratio(f"s per round, {kind.name}", wall_s)
    report.ratio(f"the others' median transfer, s, {kind.name}", others)
    good = "all good"
    if kind.name != good and f"s per round, {good}" in found:
        report.ratio(f"time of a round / all good, {kind.name}", wall_s / found[f"s per round, {good}"])
        report.ratio(
            f"the others' median transfer / all good, {kind.name}",
            others / found[f"the others' median transfer, s, {good}"],
        )
    if kind.bits_per_s is not None:
        line_s = 2 * SIZE_MB * 1e6 * 8 / kind.bits_per_s
        report.ratio(f"time of a round / the line's own time for its bytes, {kind.name}", wall_s / line_s)
    done = len(cost.rounds)
    whole = sum(each.took_part == STATIONS for each in cost.rounds)
    report.ratio(f"rounds in which all took part / rounds, {kind.name}", whole / done)
    if link is not None:
        # Each round's weights and update, and the initial weights.
        needed = SIZE_MB * 1e6 * (2 * done + 1)
        report.ratio(
            f"bytes over the line / bytes of models, {kind.name}",
            (link.carried.up + link.carried.down) / needed,
        )
        if kind.quality is not None and kind.quality.breaks_every:
            report.ratio(f"connections that broke, {kind.name}", link.carried.breaks)
