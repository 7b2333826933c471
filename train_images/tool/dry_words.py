"""A dry run's report in words: what would have left a hospital, what not, and by which rule. Pure."""

from collections.abc import Iterator

from policies.refusal_texts import CATALOGUE
from policies.refusals import RefusalCode
from policies.rules.capacity import bits_in_words
from station.egress.canary.decision import MembershipScore, Unscored
from train_images.tool.dry_messages import DryMessage
from train_images.tool.dry_predictions import prediction_lines
from train_images.tool.dry_privacy import cost_lines, update_line
from train_images.tool.dry_run import DryReport

MEASURED_COLUMNS = ("measured", "took", "asked for", "remark")
COLUMNS = ("round", "message", "outcome", "what would leave", "seconds")
_LOG_LINES = 20
_OF_FEW = {
    RefusalCode.RELEASE_TOO_FEW_PATIENTS,
    RefusalCode.RELEASE_CELL_TOO_SMALL,
    RefusalCode.RELEASE_DOMINATED,
}
"""Why an output is left out where too few patients stand behind it."""


def rows(report: DryReport) -> Iterator[tuple[str, ...]]:
    """Yield one row per message, in the order of `COLUMNS`."""
    for message in report.messages:
        yield (
            str(message.round),
            message.stage,
            message.outcome,
            _released(message),
            f"{message.seconds:.2f}",
        )


def measured_rows(report: DryReport) -> Iterator[tuple[str, ...]]:
    """Yield one row per measure, in the order of `MEASURED_COLUMNS`."""
    for each in report.measures:
        unit = "" if each.unit == "processors" else f" {each.unit}"
        asked = "" if each.asked is None else f"{each.asked:g}{unit}"
        yield each.what, f"{each.measured:g}{unit}", asked, each.remark


def lines_before(report: DryReport) -> Iterator[str]:
    """Yield what the train was given."""
    patients = ", ".join(f"{count} {split}" for split, count in report.patients.items())
    yield f"{report.train} {report.version}, held to {report.policy}"
    images = f", images of {'x'.join(map(str, report.image_shape))}" if report.image_shape else ""
    yield f"Cohort: patients {patients}{images}"
    if report.left_out:
        yield "Left out: " + ", ".join(f"{count} {reason}" for reason, count in report.left_out.items())
    if report.hyperparameters:
        yield "Hyperparameters: " + ", ".join(
            f"{name}={value}" for name, value in report.hyperparameters.items()
        )
    yield from (f"Note: {note}" for note in report.notes)


def lines_after(report: DryReport) -> Iterator[str]:
    """Yield what a rule left out, what it took, and where something went wrong, what."""
    for message in report.messages:
        for each in message.suppressed:
            why = each.detail or CATALOGUE[each.code].means
            yield f"Left out of round {message.round}, {message.stage}: {each.key} ({each.code}): {why}"
        if message.membership is not None:
            yield f"Membership, round {message.round}: {_membership(message.membership)}"
    if report.privacy is not None:
        yield from cost_lines(report.privacy)
        yield from (
            update_line(message.round, message.noise)
            for message in report.messages
            if message.noise is not None
        )
    if report.predictions is not None:
        yield from prediction_lines(report.predictions)
    problem = report.problem
    if problem is None:
        suppressed = [each for message in report.messages for each in message.suppressed]
        without = ", without what is left out above" if suppressed else ""
        yield f"Every message would have been released{without}."
        if any(each.code in _OF_FEW for each in suppressed):
            yield "With more patients less is hidden: --patients makes up more."
        return
    for reason in problem.reasons:
        yield f"{reason.code}: {reason.detail or CATALOGUE[reason.code].means}"
    if problem.outcome == "failed" and report.log.strip():
        yield "The end of what the train printed (at a hospital only its operator sees this):"
        yield from (f"  {line}" for line in report.log.rstrip().splitlines()[-_LOG_LINES:])


def refusal(problem: DryMessage) -> tuple[str, str, str]:
    """Return code, message and hint for a message that released nothing."""
    code = RefusalCode(problem.code)
    happened = "would be withheld" if problem.outcome == "withheld" else "was not answered"
    return code, f"round {problem.round}: {problem.stage} {happened}", CATALOGUE[code].do


def _released(message: DryMessage) -> str:
    if message.outcome != "released":
        return ""
    parts = [f"{name} {value:g}" for name, value in message.metrics.items()]
    parts += [f"table {name}, {len(table)} rows" for name, table in message.tables.items()]
    if message.arrays_bytes:
        parts.append(f"update of {_size(message.arrays_bytes)}")
    parts.append(f"about {message.num_examples} images")
    if message.capacity_bits is not None:
        parts.append(f"room for {bits_in_words(message.capacity_bits)}")
    return ", ".join(parts)


def _membership(score: MembershipScore | Unscored) -> str:
    if isinstance(score, Unscored):
        return f"no score: {score.value}"
    return (
        f"the update tells its own patients from as many others with an area of {score.area:.2f} under the ROC curve "
        f"(0.5 is not at all; {score.patients} made-up patients a side, give or take {score.uncertainty:.2f})"
    )


def _size(count: int) -> str:
    return f"{count} bytes" if count < 10_000 else f"{count / 1e6:.2f} MB"
