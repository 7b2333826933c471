"""A train or a policy in plain words, for people who decide: what it asks, who asks, what may leave, whom that trusts.

Describes; decides nothing. What it finds doubtful it lists as points to look at.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.board.comparing.documents import changes_between, widest_first
from policies.board.documents.documents_in import Train
from policies.board.documents.placeholders import unfinished
from policies.board.reviewing.metric_words import metric_attention, metric_line
from policies.documents import format_moment
from policies.manifest import AggregateOutput, Interface, Resources, TrainManifest
from policies.policy import Policy, ReleaseRules, ResourceGrant
from policies.predictions import prediction_in_words
from policies.rules.capacity import (
    Capacity,
    bits_in_words,
    capacity,
    in_words,
    tensors_released,
    trust_in_words,
)
from policies.rules.privacy_words import noise_attention, noise_in_words
from policies.strategies import strategy_in_words
from policies.wire.arrays import TensorShape
from policies.wire.releases import update_bytes

if TYPE_CHECKING:
    from policies.board.contents.report import ImageContents

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Section:
    """One heading and its lines."""

    heading: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Review:
    """What a person reads before deciding.

    Attributes:
        subject: of what this is the review, with its digest.
        sections: in the order to read them.
        attention: points that a member should look at.
        capacity: the upper bound, where a policy was given.
        contents: what is in the image, where a bundle was given and read.
    """

    subject: str
    sections: tuple[Section, ...]
    attention: tuple[str, ...]
    capacity: Capacity | None
    contents: "ImageContents | None" = None


def review_train(train: Train) -> Review:
    """Describe what a train asks for, without a policy."""
    manifest = train.manifest
    attention = [] if train.image_digests else ["The manifest names no image yet: it is not packed."]
    attention += [*_code_attention(train), *metric_attention(train.manifest)]
    sections = (*_train_sections(train), _outputs(train))
    return Review(
        f"train {manifest.name} {manifest.version}, {train.digest}", sections, tuple(attention), None
    )


def _code_attention(train: Train) -> list[str]:
    if train.manifest.source_commit == "unversioned":
        return ["The manifest names no source commit: nobody can tell which code was built."]
    return []


def review_policy(
    policy: Policy,
    data: bytes,
    digest: str,
    *,
    train: Train | None,
    weights: tuple[TensorShape, ...] | None,
    previous: Policy | None,
) -> Review:
    """Describe what a policy permits.

    Args:
        policy: the parsed file.
        data: its bytes.
        digest: of its bytes.
        train: the train it permits, to compare with.
        weights: the tensors that training starts from, where they are at hand.
        previous: the version in force now, to show what changes.
    """
    found = capacity(policy, train.manifest if train else None, weights)
    sections = [
        _who_and_why(policy),
        _legal(policy),
        _data(policy),
        _runs(policy),
        _release(policy, found, train),
    ]
    if train is not None:
        sections += [*_train_sections(train), _outputs(train)]
    if previous is not None:
        sections.append(_changes(previous, policy))
    attention = [
        *_policy_attention(policy, data),
        *noise_attention(policy, train.manifest if train else None),
        *((*_mismatches(policy, train), *_code_attention(train)) if train else ()),
        *_size_attention(policy, train.manifest if train else None, weights),
        *(metric_attention(train.manifest, policy.release) if train else ()),
    ]
    if previous is not None:
        attention += [
            f"Wider than version {previous.version}: {change}."
            for change in changes_between(previous, policy)
            if change.direction == "widens"
        ]
    if train is None:
        attention.append("Give --train to compare the policy with the train's own manifest.")
    subject = f"policy {policy.id}, version {policy.version}, {digest}"
    return Review(subject, tuple(sections), tuple(attention), found)


def _who_and_why(policy: Policy) -> Section:
    requester = policy.requester
    elsi = [f"{check.question} {check.answer}" for check in policy.elsi]
    return Section(
        "Who asks, and why",
        (
            policy.title,
            f"Put to the board {policy.board}; a {policy.role} policy for {policy.kind}.",
            f"In Dutch: {policy.summary.nl}",
            f"In English: {policy.summary.en}",
            f"Asked by {requester.contact}, {requester.organisation} ({requester.requester_class}, {requester.country}).",
            f"Runs are ordered with the key {requester.key}.",
            f"Answerable radiologist: {policy.radiologist}",
            f"Purpose: {policy.purpose.code}. {policy.purpose.statement}",
            f"Benefit: {policy.purpose.benefit}",
            f"Commercial use approved: {'yes' if policy.commercial_use_approved else 'no'}.",
            *elsi,
        ),
    )


def _legal(policy: Policy) -> Section:
    legal = policy.legal
    lines = [
        f"Ground: GDPR {legal.gdpr_article_6} and {legal.gdpr_article_9}; {legal.national_ground}.",
        f"Controllers: {'; '.join(legal.controllers)}.",
        f"DPIA: {legal.dpia}. Ethics: {legal.ethics}.",
        f"Agreement: {legal.agreement.reference}, until {legal.agreement.expires}.",
        f"Status of the resulting model: {legal.model_status}.",
    ]
    if legal.ehds_permit:
        lines.append(f"EHDS permit: {legal.ehds_permit}.")
    return Section("Legal", tuple(lines))


def _data(policy: Policy) -> Section:
    data = policy.data
    return Section(
        "What the train may see, inside each hospital",
        (
            f"Collections: {', '.join(data.collections)}; images: {', '.join(data.modalities)}.",
            f"Clinical fields: {', '.join(data.clinical_fields) or 'none'}.",
            f"How images were acquired: {', '.join(data.acquisition_fields) or 'nothing'}.",
            f"Masks: {', '.join(data.masks) or 'none'}.",
            f"Representations: {', '.join(data.representations)}.",
            f"Only patients who agreed to {' and '.join(data.consent_purposes)} ({' or '.join(data.consent_modes)}).",
            f"Only at stations with {data.minimum_patients} patients or more.",
        ),
    )


def _runs(policy: Policy) -> Section:
    runs, resources = policy.runs, policy.resources
    ranges = [
        f"{name}: {spec.type}" + ("" if spec.type == "bool" else f" from {spec.minimum} to {spec.maximum}")
        for name, spec in runs.hyperparameters.items()
    ]
    return Section(
        "What may run",
        (
            f"The train with the manifest {policy.manifest_digest}.",
            *(f"Image config {digest}." for digest in policy.image_config_digests),
            (
                f"{_count(runs.runs, 'run')} of at most {_count(runs.rounds, 'round')}, each with at least "
                f"{_count(runs.minimum_stations, 'station')}; {_count(runs.releases, 'release')} per station in all."
            ),
            *(
                f"Combined with {strategy_in_words(name, runs.strategy_parameters.get(name, {}))}."
                for name in runs.strategies
            ),
            f"Hyperparameters: {'; '.join(ranges) or 'none'}.",
            (
                f"At most {resources.memory_mib} MiB of memory, {resources.cpus:g} CPUs, "
                f"{_gpu(resources)}, {resources.run_hours:g} hours per run."
            ),
            f"Valid from {format_moment(policy.valid_from)} until {format_moment(policy.valid_until)}.",
        ),
    )


def person_in_words(rules: ReleaseRules) -> str:
    """Say whether a person looks at what leaves, and what becomes of it where nobody does."""
    if rules.human_review:
        return (
            "At each hospital a person looks at every release before it leaves, and may withhold it. What nobody has released "
            f"within {rules.review_hours} hours is withheld: the run goes on without that hospital's answer."
        )
    return (
        "No person has to look at a release before it leaves. A hospital may ask for one of its own; then its answer takes up "
        f"to {rules.review_hours} hours, and is withheld after that."
    )


def station_results_in_words(rules: ReleaseRules) -> str:
    """Say what of each hospital's released numbers the requester is shown."""
    if rules.station_results:
        return "The requester is shown what each hospital released, by its name."
    return (
        "The requester is shown pooled values of three hospitals or more, not what a single hospital released. The orchestrator sees "
        "each; and each hospital may see its own beside the pooled ones."
    )


def predictions_in_words(rules: ReleaseRules) -> str:
    """Say whether a hospital may keep what the train says of single images, and that it does not leave."""
    if rules.local_predictions:
        return (
            "Each hospital may keep the model's marks and measurements on its own images, as DICOM SEG and SR in a folder of its own, "
            'marked "research only - not for diagnosis"; they do not leave, and a withdrawal of consent removes that patient\'s.'
        )
    return "No hospital is given the model's marks or measurements on its own images."


def _release(policy: Policy, found: Capacity, train: Train | None) -> Section:
    rules = policy.release
    lines = [f"Numbers: {', '.join(rules.metrics) or 'none'}. Tables: {', '.join(rules.tables) or 'none'}."]
    if rules.tensors is not None:
        clipping = (
            "no clipping"
            if rules.tensors.clipping_norm is None
            else f"clipped to {rules.tensors.clipping_norm:g}"
        )
        lines.append(
            f"The change of the model's weights, as {rules.tensors.precision}, {clipping}, no number beyond "
            f"{rules.tensors.maximum_absolute:g}; float buffers: {rules.tensors.float_buffers}, integer buffers: {rules.tensors.integer_buffers}."
        )
    lines += [
        station_results_in_words(rules),
        f"Error codes of a failed train: {', '.join(rules.error_codes) or 'none, only in which way it failed'}.",
        f"Numbers rest on {rules.minimum_patients_per_metric} patients or more, cells on {rules.minimum_cell_count}.",
        *(noise_in_words(policy, train.manifest if train else None) or ("No differential privacy.",)),
        f"Secure aggregation: {'required' if rules.secure_aggregation else 'no'}.",
        person_in_words(rules),
        predictions_in_words(rules),
        f"With every release: how many images it rests on, rounded; how the train ended, by its code; {_duration(rules)}.",
        f"A release holds at most {rules.maximum_bytes / _MIB:.3g} MiB.",
        f"What a hostile train could carry out: {in_words(found)}; {bits_in_words(found.bits_in_total)} in all.",
        trust_in_words(policy, train.manifest if train else None),
    ]
    if rules.membership_limit is not None:
        lines.append(
            "Before an update leaves, the station looks how well it tells the patients it was trained on from others: "
            f"above an area under the ROC curve of {rules.membership_limit:g} it is withheld. This finds a train that "
            "overfits, not one that is built to lie."
        )
    if rules.metric_decimals is not None:
        lines.append(f"Numbers leave with {_count(rules.metric_decimals, 'decimal')} at most.")
    if rules.count_rounding > 1:
        lines.append(f"Counts in tables are rounded to multiples of {rules.count_rounding}.")
    if train is not None and train.manifest.interface is Interface.MAP:
        lines.append(
            f"A train that fails for more than {policy.runs.failed_patients_share:.0%} of a station's patients releases nothing."
        )
    return Section("What may leave each hospital", tuple(lines))


def _duration(rules: ReleaseRules) -> str:
    if rules.timing_quantum_s == 0:
        return "not how long it took, which the moment of its answer still tells"
    return f"how long it took, in steps of {rules.timing_quantum_s:g} s"


def _train_sections(train: Train) -> tuple[Section, ...]:
    manifest = train.manifest
    resources = manifest.resources
    identity = [
        f"{manifest.title} ({manifest.name} {manifest.version}), {manifest.kind}, interface {manifest.interface}.",
        f"By {manifest.contact.name}, {manifest.contact.organisation}, {manifest.contact.email}.",
        f"Licence {manifest.licence}; source commit {manifest.source_commit}.",
        f"Manifest {train.digest}",
        *(f"Image {digest}" for digest in train.image_digests),
    ]
    if train.layers:
        size = sum(size for _, size in train.layers)
        identity.append(
            f"{_count(len(train.layers), 'layer')}, {size / _MIB:,.0f} MiB; `pht-board review` says what is in them."
        )
    label = f"; label {manifest.data.label}" if manifest.data.label else ""
    needs = (
        (
            f"{', '.join(manifest.data.modalities)} of the {manifest.data.body_part.lower()}, as "
            f"{manifest.data.representation}, profile {manifest.data.profile}{label}."
        ),
        f"Clinical fields: {', '.join(manifest.data.clinical_fields) or 'none'}.",
        f"How images were acquired: {', '.join(manifest.data.acquisition_fields) or 'nothing'}.",
        f"Masks: {', '.join(manifest.data.masks) or 'none'}.",
        (
            f"{resources.memory_mib} MiB of memory, {resources.cpus:g} CPUs, GPU {resources.gpu}{_floor(resources)}, "
            f"{resources.message_timeout_s} s per message."
        ),
    )
    return (Section("The train", tuple(identity)), Section("What the train asks for", needs))


def _gpu(grant: ResourceGrant) -> str:
    if not grant.gpu:
        return "no GPU"
    return "a GPU, or the CPU alone where none is free" if grant.cpu_fallback else "a GPU"


def _floor(wish: Resources) -> str:
    return f" with at least {wish.gpu_memory_mib} MiB" if wish.gpu_memory_mib else ""


def _outputs(train: Train) -> Section:
    outputs = train.manifest.outputs
    lines = []
    if outputs.tensors is not None:
        listed = outputs.tensors.listed
        lines.append(
            f"Tensors: {_count(len(listed), 'named tensor') if listed else 'those of the weights it is given'}."
        )
    lines += [metric_line(metric) for metric in outputs.metrics]
    if outputs.rows is not None:
        columns = ", ".join(f"{column.name} ({column.type})" for column in outputs.rows.columns)
        lines.append(f"Of each patient one row, which stays: {columns}.")
        if outputs.rows.complete:
            lines.append(
                "Patients who lack any of these stand in no table: each table counts the same patients."
            )
    if outputs.rows is not None and outputs.rows.clinical:
        names = ", ".join(column.name for column in outputs.rows.clinical)
        lines.append(f"Filled in by the station from its clinical data, whatever the train says: {names}.")
    if outputs.rows is not None and outputs.rows.acquisition:
        names = ", ".join(column.name for column in outputs.rows.acquisition)
        lines.append(
            f"Filled in by the station from how images were acquired, whatever the train says: {names}."
        )
    for column in () if outputs.rows is None else outputs.rows.columns:
        if column.of:
            lines.append(f"Joined by the station: {column.name} is {' and '.join(column.of)} together.")
    lines += [_aggregate_line(item, train.manifest) for item in outputs.aggregates]
    lines += [
        f"For the hospital alone, it never leaves: {prediction_in_words(item)}."
        for item in outputs.predictions
    ]
    codes = ", ".join(train.manifest.error_codes)
    lines.append(f"Error codes: {codes or 'none'}.")
    return Section("What the train says it returns", tuple(lines))


def _aggregate_line(item: AggregateOutput, manifest: TrainManifest) -> str:
    lines, columns = manifest.aggregate_lines(item), manifest.aggregate_columns(item)
    if item.measure == "sum":
        divided = "" if item.by is None else f" by {item.by} ({', '.join(lines)})"
        return (
            f"patients, sum and sum of squares of {item.column}{divided}, {item.key}: {item.decimals} decimals, {item.split} patients, "
            f"{item.minimum_cell_count} or more to a line, and none that few make up"
        )
    if item.measure == "quantiles":
        edges = ", ".join(f"{edge:g}" for edge in item.edges)
        return (
            f"between which edges of {edges} the quantiles {', '.join(lines)} of {item.column} lie, {item.key}: {item.split} patients, "
            f"{item.minimum_cell_count} or more between two edges"
        )
    by = "" if item.by is None else f" and {item.by} ({', '.join(columns)})"
    return (
        f"patients counted by the station, {item.key}: per {item.column} ({'; '.join(lines)}){by}, {item.split} patients, "
        f"cells of {item.minimum_cell_count} or more, the others hidden together"
    )


def _policy_attention(policy: Policy, data: bytes) -> list[str]:
    points = []
    if keys := unfinished(data):
        points.append(f"Not filled in yet, so nobody can sign it: {', '.join(keys)}.")
    if set(policy.requester.key) == {"0"}:
        points.append("requester.key is empty (all zeros): nobody could order a run.")
    if policy.role == "development":
        points.append(
            "A development policy: one signature, and only for collections marked public or synthetic."
        )
    if policy.release.secure_aggregation:
        points.append("Stations refuse secure aggregation in this version (SECURE_AGGREGATION_UNSUPPORTED).")
    if policy.release.timing_quantum_s == 0:
        points.append("timing_quantum_s is 0: how long a train takes can carry data out.")
    return points


def _mismatches(policy: Policy, train: Train) -> list[str]:
    manifest = train.manifest
    asked = {*manifest.data.clinical_fields, *([manifest.data.label] if manifest.data.label else [])}
    outputs = manifest.outputs
    declared = {metric.key for metric in outputs.metrics} | {item.key for item in outputs.aggregates}
    declared |= set(manifest.error_codes)
    granted = {*policy.release.metrics, *policy.release.tables, *policy.release.error_codes}
    checks = [
        (policy.manifest_digest != train.digest, "The policy names another manifest than this train's."),
        (
            not set(policy.image_config_digests) <= set(train.image_digests),
            "The policy names an image that this train does not have.",
        ),
        (policy.kind is not manifest.kind, f"A {manifest.kind} train under a {policy.kind} policy."),
        (
            not set(manifest.data.modalities) <= set(policy.data.modalities),
            "The train asks for more modalities.",
        ),
        (not asked <= set(policy.data.clinical_fields), "The train asks for more clinical fields."),
        (
            not set(manifest.data.acquisition_fields) <= set(policy.data.acquisition_fields),
            "The train asks for more of how images were acquired.",
        ),
        (not set(manifest.data.masks) <= set(policy.data.masks), "The train asks for more masks."),
        (
            manifest.data.representation not in policy.data.representations,
            "The train asks for images in another form.",
        ),
        (
            policy.release.membership_limit is not None and not outputs.membership_scores,
            "The policy bounds membership scores, which the train does not answer: nothing would leave.",
        ),
        (
            policy.release.local_predictions and not outputs.predictions,
            "The policy lets hospitals keep predictions, and the train makes none.",
        ),
        (not granted <= declared, f"Not declared by the train: {', '.join(sorted(granted - declared))}."),
        (not declared <= granted, f"Declared but withheld: {', '.join(sorted(declared - granted))}."),
    ]
    return [text for wrong, text in checks if wrong]


def _size_attention(
    policy: Policy, manifest: TrainManifest | None, weights: tuple[TensorShape, ...] | None
) -> list[str]:
    update = update_bytes(tensors_released(policy.release, manifest, weights) or ())
    if update <= policy.release.maximum_bytes:
        return []
    return [
        f"An update holds {update:,} bytes and release.maximum_bytes is {policy.release.maximum_bytes:,}: stations would refuse to train."
    ]


def _changes(before: Policy, after: Policy) -> Section:
    lines = [str(change) for change in widest_first(changes_between(before, after))]
    return Section(f"What changes against version {before.version}", tuple(lines) or ("Nothing.",))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
