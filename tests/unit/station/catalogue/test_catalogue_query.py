"""Counting inside by predicate, checked against a plain count in Python over the same records."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from catalogue_log import COLLECTION, NOW, Intake, patient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.documents import canonical_json
from station.catalogue import Catalogue
from station.catalogue.query import CatalogueQuery, ExactCounts, count
from station.handover import Acquisition, ClinicalContent, ClinicalRow
from station.storage import Database, open_database


@dataclass(frozen=True)
class Image:
    """One record as it was handed over, and its study's clinical row."""

    number: int
    patient: int
    study: int
    series: int
    collection: str
    modality: str
    body_part: str
    view: str
    acquisition: Acquisition
    clinical: dict[str, Any] | None
    mask: bool


THICKNESSES = (None, 0.75, 1.0, 2.5, 5.0)


def world() -> list[Image]:
    """Some four hundred images in which every attribute varies apart from the others."""
    images = []
    for number in range(420):
        series = number // 2
        study = series // 2
        person = study // 2
        images.append(
            Image(
                number=number,
                patient=person,
                study=study,
                series=series,
                collection=COLLECTION if person % 3 else "chest-ct",
                modality=("CT", "DX", "CR")[series % 3],
                body_part=("CHEST", "HEAD", "")[study % 3],
                view=("PA", "AP", "")[number % 3],
                acquisition=Acquisition(
                    manufacturer=("Siemens", "Philips", "")[series % 3 - 1],
                    kernel=("Br40d", "B70f")[series % 2],
                    slice_thickness_mm=THICKNESSES[series % 5],
                    study_year=(None, 2018, 2019, 2020)[study % 4],
                    rows=(512, 256, None)[number % 3],
                    columns=(512, 300)[series % 2],
                    recognizable_face=(None, True, False)[series % 3],
                ),
                clinical=None
                if study % 5 == 0
                else {
                    "pneumonia": study % 2,
                    "sex": ("F", "M", None)[study % 3],
                    "age_years": 20 + study % 60,
                },
                mask=series % 7 == 0,
            )
        )
    return images


IMAGES = world()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder = tmp_path_factory.mktemp("query")
    intake = Intake(folder / "handover")
    for image in IMAGES:
        intake.instances(
            image.patient, acquisition=image.acquisition, study_uid=f"2.25.{image.study + 1}",
            series_uid=f"2.25.{image.series + 1000}", sop_instance_uid=f"2.25.{image.number + 5000}",
            modality=image.modality, body_part=image.body_part, view_position=image.view, collection=image.collection,
        )  # fmt: skip
    rows: dict[str, dict[int, ClinicalRow]] = {}
    for image in IMAGES:
        if image.clinical is not None:
            rows.setdefault(image.collection, {})[image.study] = ClinicalRow(
                patient=patient(image.patient), study_uid=f"2.25.{image.study + 1}", values=image.clinical
            )
    for collection, per_study in rows.items():
        content = ClinicalContent(collection=collection, profile="thorax-1@1", rows=tuple(per_study.values()))
        intake.log.append(content, intake.operation(), now=NOW)
    database = open_database(folder / "station.db")
    Catalogue(database, intake.folder, intake.key.public_key()).sync()
    _masks(database)
    yield database
    database.close()


def _masks(database: Database) -> None:
    from station.catalogue.tables import Label

    with database.write() as session:
        for image in {image.series: image for image in IMAGES if image.mask}.values():
            session.add(
                Label(
                    collection=image.collection, series_uid=f"2.25.{image.series + 1000}", names="lung", file="sha256:0",
                    size_bytes=1, format="nifti", patient=patient(image.patient), study_uid="2.25.1",
                )
            )  # fmt: skip


def by_hand(meets: Callable[[Image], bool]) -> tuple[ExactCounts, ...]:
    found: dict[str, list[Image]] = {}
    for image in IMAGES:
        if meets(image):
            found.setdefault(image.collection, []).append(image)
    return tuple(
        ExactCounts(
            name,
            len({image.patient for image in images}),
            len({image.study for image in images}),
            len({image.series for image in images}),
            len(images),
        )
        for name, images in sorted(found.items())
    )


def asked(database: Database, **query: Any) -> tuple[ExactCounts, ...]:
    # As it comes in over the API.
    with database.read() as session:
        return count(session, CatalogueQuery.model_validate_json(canonical_json(query)))


def within(value: float | None, low: float | None, high: float | None) -> bool:
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def field(image: Image, name: str) -> Any:
    return None if image.clinical is None else image.clinical[name]


CASES: list[tuple[dict[str, Any], Callable[[Image], bool]]] = [
    ({}, lambda _: True),
    ({"collection": "chest-ct"}, lambda i: i.collection == "chest-ct"),
    ({"modality": ["CT"]}, lambda i: i.modality == "CT"),
    ({"modality": ["CT", "CR"]}, lambda i: i.modality in {"CT", "CR"}),
    ({"body_part": ["HEAD"], "view": ["AP"]}, lambda i: i.body_part == "HEAD" and i.view == "AP"),
    ({"body_part": [""]}, lambda i: i.body_part == ""),
    ({"manufacturer": ["Siemens"]}, lambda i: i.acquisition.manufacturer == "Siemens"),
    ({"kernel": ["B70f"]}, lambda i: i.acquisition.kernel == "B70f"),
    ({"slice_thickness_mm": {"maximum": 2.5}}, lambda i: within(i.acquisition.slice_thickness_mm, None, 2.5)),
    ({"slice_thickness_mm": {"minimum": 1.0, "maximum": 1.0}}, lambda i: i.acquisition.slice_thickness_mm == 1.0),
    ({"year": {"minimum": 2019}}, lambda i: within(i.acquisition.study_year, 2019, None)),
    ({"rows": {"minimum": 512}, "columns": {"maximum": 300}},
     lambda i: within(i.acquisition.rows, 512, None) and within(i.acquisition.columns, None, 300)),
    ({"has_mask": True}, lambda i: i.mask),
    ({"has_mask": False, "modality": ["DX"]}, lambda i: not i.mask and i.modality == "DX"),
    ({"recognizable_face": "yes"}, lambda i: i.acquisition.recognizable_face is True),
    ({"recognizable_face": "no"}, lambda i: i.acquisition.recognizable_face is False),
    ({"recognizable_face": "unknown"}, lambda i: i.acquisition.recognizable_face is None),
    ({"clinical": [{"field": "pneumonia", "value": 1}]}, lambda i: field(i, "pneumonia") == 1),
    ({"clinical": [{"field": "pneumonia", "value": True}]}, lambda i: field(i, "pneumonia") == 1),
    ({"clinical": [{"field": "sex", "operator": "!=", "value": "F"}]}, lambda i: field(i, "sex") == "M"),
    ({"clinical": [{"field": "age_years", "operator": ">=", "value": 40}, {"field": "sex", "value": "F"}]},
     lambda i: within(field(i, "age_years"), 40, None) and field(i, "sex") == "F"),
    ({"clinical": [{"field": "sex", "value": 1}]}, lambda _: False),
    ({"clinical": [{"field": "sex", "operator": ">=", "value": 0}]}, lambda _: False),
    ({"modality": ["MR"]}, lambda _: False),
]  # fmt: skip


@pytest.mark.parametrize(("query", "meets"), CASES, ids=[str(query) for query, _ in CASES])
def test_a_query_counts_what_a_plain_count_counts(
    database: Database, query: dict[str, Any], meets: Callable[[Image], bool]
) -> None:
    assert asked(database, **query) == by_hand(meets)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(range(len(CASES))), min_size=2, max_size=4, unique=True))
def test_conditions_together_must_all_hold(database: Database, chosen: list[int]) -> None:
    query: dict[str, Any] = {}
    rules = []
    for number in chosen:
        if not set(CASES[number][0]) & set(query):
            query |= CASES[number][0]
            rules.append(CASES[number][1])
    assert asked(database, **query) == by_hand(lambda image: all(rule(image) for rule in rules))


@pytest.mark.parametrize(
    "query",
    [
        {"unknown": 1},
        {"modality": ["ct'; drop table catalogue_instances"]},
        {"manufacturer": ["x' OR '1'='1"]},
        {"collection": "a b"},
        {"slice_thickness_mm": {}},
        {"slice_thickness_mm": {"minimum": 3, "maximum": 2}},
        {"year": {"minimum": -1}},
        {"profile": "nobody-knows@1"},
        {"profile": "../thorax-1@1"},
        {"clinical": [{"field": "not_a_field", "value": 1}]},
        {"clinical": [{"field": "a') OR 1=1 --", "value": 1}]},
        {"clinical": [{"field": "sex", "operator": "<", "value": "F"}]},
        {"clinical": [{"field": "sex", "operator": "LIKE", "value": "F"}]},
        {"clinical": [{"field": "sex", "value": "F' OR '1'='1"}]},
        {"clinical": [{"field": "sex", "value": "F"}] * 17},
        {"recognizable_face": "maybe"},
    ],
)
def test_what_is_no_query_is_refused(query: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CatalogueQuery.model_validate_json(canonical_json(query))


def test_a_query_writes_nothing(database: Database, tmp_path: Path) -> None:
    before = asked(database)
    assert asked(database, manufacturer=["Siemens-- DROP".replace("DROP", "x")]) == ()
    assert asked(database) == before


Step = tuple[str, int, int]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "again", "move", "go", "merge"]), st.integers(0, 6), st.integers(0, 6)
        ),
        max_size=14,
    )
)
def test_the_counts_of_series_are_what_the_instances_say(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    from sqlalchemy import func, select

    from station.catalogue.series_counts import _ALIKE
    from station.catalogue.tables import Instance, SeriesCount

    folder = tmp_path_factory.mktemp("counts")
    intake, database = Intake(folder / "handover"), open_database(folder / "station.db")
    for what, one, other in steps:
        match what:
            case "come":
                intake.instances(one, sop_instance_uid=f"2.25.{2000 + other}")
            case "again":
                intake.instances(one, data=b"again", acquisition=Acquisition(kernel="Br40d"))
            case "move":
                intake.instances(one, series_uid=f"2.25.{1000 + other}")
            case "go":
                intake.removed(one)
            case _:
                intake.merged(one, into=other)
    Catalogue(database, intake.folder, intake.key.public_key()).sync()
    with database.read() as session:
        kept = [getattr(SeriesCount, name) for name in _ALIKE]
        stored = session.execute(select(*kept, func.sum(SeriesCount.images)).group_by(*kept)).all()
        true = [getattr(Instance, name) for name in _ALIKE]
        counted = session.execute(select(*true, func.count()).group_by(*true)).all()
    database.close()
    assert sorted(stored, key=str) == sorted(counted, key=str)
