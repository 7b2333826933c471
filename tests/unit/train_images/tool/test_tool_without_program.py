"""A train without a program, from its folder to a dry run: no image, no engine, and the station's own counting."""

import json
from pathlib import Path

import pytest

import train_images
from policies.board.documents.documents_in import read_train
from policies.board.reviewing.review import review_train
from policies.documents import digest_of
from policies.errors import RefusedError, UsageError
from policies.image_config import config_without_program
from policies.refusals import RefusalCode
from policies.rules.capacity import trust_in_words
from station.sandbox.image.rewriting import read_image
from train_images.tool.building import build
from train_images.tool.dry_run import DryChoice, dry_run
from train_images.tool.dry_terms import dry_policy
from train_images.tool.folders import PackedTrain, read_bundle, read_folder
from train_images.tool.packing import pack

SHIPPED = Path(train_images.__file__).parent / "cohort-statistics"


@pytest.fixture
def bundle(tmp_path: Path) -> PackedTrain:
    pack(read_folder(SHIPPED), "no-such-image:1", tmp_path / "bundle")
    return read_bundle(tmp_path / "bundle")


def test_it_is_packed_without_an_image_and_the_same_each_time(tmp_path: Path, bundle: PackedTrain) -> None:
    again = pack(read_folder(SHIPPED), "no-such-image:1", tmp_path / "again").train
    assert again.index == bundle.index
    assert bundle.index.layers == ()
    config = config_without_program("cohort-statistics", "0.1.0")
    assert bundle.index.config.digest == digest_of(config)
    assert [image.config_digest for image in bundle.manifest.images] == [digest_of(config)]


def test_there_is_nothing_to_build_nor_to_start(bundle: PackedTrain) -> None:
    with pytest.raises(UsageError, match="no image to build"):
        build(read_folder(SHIPPED), "no-such-image:1", lambda _: None)
    # Were a launcher told to start it all the same, it would refuse.
    with pytest.raises(RefusedError) as refused:
        read_image(bundle.store, bundle.index.config.digest)
    assert refused.value.code is RefusalCode.IMAGE_CONFIG


def test_a_dry_run_needs_no_engine_and_tells_every_measure(tmp_path: Path, bundle: PackedTrain) -> None:
    choice = DryChoice(patients=160, engine=tmp_path / "no-engine.sock")
    report = dry_run(bundle, choice, lambda _: None)
    (message,) = report.messages
    assert (message.outcome, report.notes, report.log) == ("released", (), "")
    told = {*message.tables, *(item.key for item in message.suppressed)}
    assert told == {item.key for item in bundle.manifest.outputs.aggregates}
    # The phantoms are the same each time: ages and findings are told, with what is small hidden.
    ages = [line[0] for line in message.tables["age"]]
    assert len(ages) == 11
    assert sum(count for count in ages if count > 0) <= report.patients["training"]
    assert not [count for count in ages if 0 < count < 10]
    assert len(message.tables["pneumonia_by_sex"]) == 3
    assert json.dumps(message.tables)


def test_the_board_reads_whose_code_counts(bundle: PackedTrain) -> None:
    lines = "\n".join(
        line for section in review_train(read_train(bundle.path)).sections for line in section.lines
    )
    assert "interface station" in lines
    assert "Filled in by the station from its clinical data, whatever the train says: pneumonia, sex" in lines
    assert "patients, sum and sum of squares of temperature_c by pneumonia" in lines
    assert "between which edges of 10, 20, 30" in lines
    assert "No program runs" in trust_in_words(dry_policy(bundle, None), bundle.manifest)
