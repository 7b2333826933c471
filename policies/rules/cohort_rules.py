"""Can a cohort be defined for a train: within what its policy grants, and as this version lays cohorts out?

Pure. Asked by a station before it freezes a cohort, and by a board before it signs (`pht-board simulate`).
"""

from collections.abc import Collection

from policies.acquisition import form_of
from policies.errors import NotFoundError
from policies.manifest import Modality, TrainManifest
from policies.policy import Policy
from policies.profiles import load_profile
from policies.profiles.bands import ExactBand, PeriodBand, RangeBand, RoundedBand, WithheldBand
from policies.profiles.model import ProfileField
from policies.refusals import Reason, RefusalCode
from policies.rows import RowColumn

RADIOGRAPHS = frozenset({Modality.DX, Modality.CR})
"""What is laid out as 2-D images; CT is laid out as volumes."""


def cohort_reasons(policy: Policy, manifest: TrainManifest) -> list[Reason]:
    """Return why no cohort can be defined; empty where one can.

    1. Every modality asked for is granted.
    2. Every clinical field asked for is granted, and so are the label, every mask and the representation.
    3. This version can lay it out, and the minimal-dataset profile is known and has the fields: what it does not band is
       not shown.
    4. Clinical columns of its rows are of the kind that the profile's bands show, acquisition columns of the kind that their
       fields show.
    """
    return (
        ungranted_reasons(policy, manifest)
        or layout_reasons(
            manifest.data.modalities,
            manifest.data.masks,
            manifest.data.representation,
            manifest.data.profile,
            wanted_fields(manifest),
        )
        or column_reasons(manifest)
    )


def column_reasons(manifest: TrainManifest) -> list[Reason]:
    """Return why the station could never fill in a clinical column: every patient would be without a value of it.

    Args:
        manifest: its profile is known and has the fields.
    """
    rows = manifest.outputs.rows
    if rows is None:
        return []
    profile, reasons = load_profile(manifest.data.profile), []
    for column in rows.clinical:
        field = profile.field(column.name)
        if column.name == manifest.data.label:
            continue  # A label is shown as it is.
        if isinstance(field.band, WithheldBand):
            reasons.append(f"{column.name} is never shown")
        elif column.type != "category" and not _shows_numbers(field):
            reasons.append(f"{column.name} is shown as {_shown_as(field)}, so its column is of categories")
    reasons += [problem for column in rows.acquisition if (problem := _problem_with_acquisition(column))]
    return [Reason(RefusalCode.DATA_FIELDS, "; ".join(reasons))] if reasons else []


def _problem_with_acquisition(column: RowColumn) -> str | None:
    form = form_of(column.name)
    if form is None:
        return f"{column.name} is no acquisition field"
    if not form.categories:
        return (
            f"{column.name} is shown as numbers, so its column is of numbers"
            if column.type == "category"
            else None
        )
    if column.type != "category":
        return f"{column.name} is shown as codes, so its column is of categories"
    if never := [name for name in column.categories if name not in form.categories]:
        return f"{column.name} never is {', '.join(never)}: its categories are {', '.join(form.categories)}"
    return None


def _shows_numbers(field: ProfileField) -> bool:
    return isinstance(field.band, RoundedBand) or (
        field.kind == "integer" and isinstance(field.band, ExactBand)
    )


def _shown_as(field: ProfileField) -> str:
    if isinstance(field.band, RangeBand | PeriodBand):
        return "ranges"
    return "true and false" if field.kind == "flag" else "codes"


def wanted_fields(manifest: TrainManifest) -> tuple[str, ...]:
    """Return the clinical fields that a train asks for, its label among them."""
    needs = manifest.data
    return tuple(dict.fromkeys((*needs.clinical_fields, *([needs.label] if needs.label else []))))


def ungranted_reasons(policy: Policy, manifest: TrainManifest) -> list[Reason]:
    """Return what a train asks for that its policy does not grant."""
    reasons = []
    needs, granted = manifest.data, policy.data
    modalities = [str(modality) for modality in needs.modalities if modality not in granted.modalities]
    if modalities:
        reasons.append(Reason(RefusalCode.DATA_MODALITY, f"not granted: {', '.join(modalities)}"))
    fields = [name for name in wanted_fields(manifest) if name not in granted.clinical_fields]
    fields += [name for name in needs.acquisition_fields if name not in granted.acquisition_fields]
    if fields:
        reasons.append(Reason(RefusalCode.DATA_FIELDS, f"not granted: {', '.join(fields)}"))
    masks = [name for name in needs.masks if name not in granted.masks]
    if masks:
        reasons.append(Reason(RefusalCode.DATA_FIELDS, f"masks not granted: {', '.join(masks)}"))
    if needs.representation not in granted.representations:
        reasons.append(Reason(RefusalCode.DATA_FIELDS, f"not granted: {needs.representation} files"))
    return reasons


def layout_reasons(
    modalities: Collection[Modality],
    masks: Collection[str],
    representation: str,
    profile: str,
    fields: Collection[str],
) -> list[Reason]:
    """Return why this version cannot lay out such a cohort."""
    volumes = not RADIOGRAPHS.issuperset(modalities)
    if volumes and not RADIOGRAPHS.isdisjoint(modalities):
        text = "a cohort holds volumes or radiographs, not both: ask for one of them"
        return [Reason(RefusalCode.DATA_MODALITY, text)]
    if masks and (not volumes or representation != "volume"):
        return [Reason(RefusalCode.DATA_NOT_READY, "masks are laid out beside volumes only")]
    try:
        known = {field.name for field in load_profile(profile).fields}
    except NotFoundError:
        return [Reason(RefusalCode.DATA_FIELDS, "no such minimal-dataset profile")]
    unknown = [name for name in fields if name not in known]
    return [Reason(RefusalCode.DATA_FIELDS, f"not in {profile}: {', '.join(unknown)}")] if unknown else []
