"""What a policy permits, in plain words: who asks and why, on what ground, what the train may see, what may run, what may leave.

Describes; decides nothing.
"""

from policies.board.documents.documents_in import Train
from policies.board.reviewing.section import Section, counted
from policies.documents import format_moment
from policies.manifest import Interface
from policies.policy import Policy, ReleaseRules, ResourceGrant
from policies.rules.capacity import Capacity, bits_in_words, in_words, trust_in_words
from policies.rules.privacy_words import noise_in_words
from policies.strategies import strategy_in_words

_MIB = 1 << 20


def policy_sections(policy: Policy, found: Capacity, train: Train | None) -> tuple[Section, ...]:
    """Describe what a policy permits.

    Args:
        policy: the parsed file.
        found: how much could leave under it.
        train: the train it permits, where it is at hand.
    """
    return (
        _who_and_why(policy),
        _legal(policy),
        _data(policy),
        _runs(policy),
        _release(policy, found, train),
    )


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
                f"{counted(runs.runs, 'run')} of at most {counted(runs.rounds, 'round')}, each with at least "
                f"{counted(runs.minimum_stations, 'station')}; {counted(runs.releases, 'release')} per station in all."
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
        lines.append(f"Numbers leave with {counted(rules.metric_decimals, 'decimal')} at most.")
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


def _gpu(grant: ResourceGrant) -> str:
    if not grant.gpu:
        return "no GPU"
    return "a GPU, or the CPU alone where none is free" if grant.cpu_fallback else "a GPU"
