"""What a train asks for and what it says it returns, in plain words. Describes; decides nothing."""

from policies.aggregates import AggregateOutput
from policies.board.documents.documents_in import Train
from policies.board.reviewing.metric_words import metric_line
from policies.board.reviewing.section import Section, counted
from policies.manifest import Resources, TrainManifest
from policies.predictions import prediction_in_words

_MIB = 1 << 20


def train_sections(train: Train) -> tuple[Section, ...]:
    """Describe what a train is, what it asks for, and what it says it returns."""
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
            f"{counted(len(train.layers), 'layer')}, {size / _MIB:,.0f} MiB; `pht-board review` says what is in them."
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
    return (Section("The train", tuple(identity)), Section("What the train asks for", needs), _outputs(train))


def _floor(wish: Resources) -> str:
    return f" with at least {wish.gpu_memory_mib} MiB" if wish.gpu_memory_mib else ""


def _outputs(train: Train) -> Section:
    outputs = train.manifest.outputs
    lines = []
    if outputs.tensors is not None:
        listed = outputs.tensors.listed
        lines.append(
            f"Tensors: {counted(len(listed), 'named tensor') if listed else 'those of the weights it is given'}."
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
