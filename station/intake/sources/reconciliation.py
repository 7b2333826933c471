"""Compares what a collection holds with what the PACS still has: what was deleted there is removed here.

The PACS knows nothing of our pseudonymous UIDs, and ours cannot be turned back: so the UIDs that it lists are mapped forward, and
what we hold and it does not list is gone. Studies are found by their accession number.

Fails closed: any fault of the PACS ends the comparison and nothing is removed; a study that is listed without instances, or with
fewer than its series say, proves nothing; what seems gone is asked for again over another association; and more than a
tenth of what was compared is removed only when the operator confirms the number.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from station.intake.removals import HeldStudy
from station.intake.sources import queries
from station.intake.sources.dicomweb import WebSession
from station.intake.sources.pacs_client import PacsAssociation
from station.intake.sources.retrieval import AnyClient

CEILING = 0.10
"""The share of the instances compared that is removed without being confirmed."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the PACS still has of what we hold.

    Attributes:
        studies: held in the collection.
        unasked: studies without an accession number: they cannot be asked for.
        unclear: studies whose answer proves nothing.
        instances: held, of the studies that were compared.
        gone: those the PACS does not have, by pseudonymous UID.
        studies_gone: studies of which nothing is left there.
    """

    studies: int
    unasked: int
    unclear: int
    instances: int
    studies_gone: int
    gone: frozenset[str]

    def may_remove(self, confirmed: int | None) -> bool:
        """Tell whether what is gone may be removed: few enough, or as many as the operator was told at most."""
        if len(self.gone) <= CEILING * self.instances:
            return True
        return confirmed is not None and len(self.gone) <= confirmed


def compare(client: AnyClient, held: Iterable[HeldStudy], remap: Callable[[str], str]) -> Comparison:
    """Ask the PACS for every study that is held, and once more for those that seem to lack something.

    Args:
        client: the PACS.
        held: what the collection holds.
        remap: makes a pseudonymous UID of an original one.

    Raises:
        PacsError: the PACS could not be asked, or answered with an error; nothing is known then.
    """
    studies = list(held)
    asked = [study for study in studies if study.accession]
    with client.asking() as association:
        first = {study.study_uid: _gone(association, study, remap) for study in asked}
    doubtful = [study for study in asked if first[study.study_uid]]
    second: dict[str, frozenset[str] | None] = {}
    if doubtful:
        with client.asking() as association:
            second = {study.study_uid: _gone(association, study, remap) for study in doubtful}
    gone: set[str] = set()
    unclear = studies_gone = instances = 0
    for study in asked:
        missing = first[study.study_uid]
        if missing:
            again = second[study.study_uid]
            missing = None if again is None else missing & again
        if missing is None:
            unclear += 1
            continue
        instances += len(study.sop_instance_uids)
        studies_gone += missing == study.sop_instance_uids
        gone |= missing
    return Comparison(
        len(studies), len(studies) - len(asked), unclear, instances, studies_gone, frozenset(gone)
    )


def _gone(
    association: PacsAssociation | WebSession, study: HeldStudy, remap: Callable[[str], str]
) -> frozenset[str] | None:
    """Return the instances of a study that the PACS does not list; None where its answer proves nothing."""
    answers = association.find(queries.studies_by_accession(study.accession))
    listed = queries.read_studies(answers, accession=study.accession)
    original = next((one.study_uid for one in listed if remap(one.study_uid) == study.study_uid), None)
    if original is None:
        return study.sop_instance_uids
    series = queries.read_series(association.find(queries.series_of_study(original)), original)
    there: set[str] = set()
    for one in series:
        answers = association.find(queries.instances_of_series(original, one.series_uid))
        instances = queries.read_instances(answers, one.series_uid)
        if one.instances is not None and len(instances) < one.instances:
            return None
        there |= instances.keys()
    if not there:
        return None
    return study.sop_instance_uids - {remap(uid) for uid in there}
