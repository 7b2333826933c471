"""`pht-board diff`: what widens and narrows in a policy or a manifest, and what changed in the image."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from board_kit import BoardKit, example_policy
from reading_kit import MANIFEST, SITE, Entry, debian_layer, distribution, pack, tar

from policies.board.comparing import images
from policies.board.comparing.documents import FieldChange, changes_between, meaning_of
from policies.board.comparing.images import (
    MAX_WORK,
    MAX_WORK_OF_FILE,
    ImageChanges,
    image_changes,
    work_of,
)
from policies.board.contents.report import open_bundle
from policies.cli import app
from policies.console import run
from policies.documents import load_yaml
from policies.errors import ExitCode
from policies.manifest import TrainManifest
from policies.policy import Policy

PRIVATE = {"noise_multiplier": 50.0, "epsilon": 8.0, "delta": 1e-5}


def policy(**changes: Any) -> Policy:
    dotted = {path.replace("__", "."): value for path, value in changes.items()}
    return load_yaml(Policy, example_policy(dotted), what="policy")


def manifest(text: str = MANIFEST) -> TrainManifest:
    return load_yaml(TrainManifest, text.format(image="sha256:" + "1" * 64).encode(), what="train.yaml")


@pytest.mark.parametrize(
    ("before", "after", "field", "direction"),
    [
        ({}, {"data__minimum_patients": 10}, "data.minimum_patients", "widens"),
        ({}, {"data__minimum_patients": 30}, "data.minimum_patients", "narrows"),
        ({}, {"runs__minimum_stations": 5}, "runs.minimum_stations", "narrows"),
        ({}, {"runs__runs": 6}, "runs.runs", "widens"),
        ({}, {"release__maximum_bytes": 1000}, "release.maximum_bytes", "narrows"),
        ({}, {"release__minimum_cell_count": 5}, "release.minimum_cell_count", "widens"),
        ({}, {"release__timing_quantum_s": 0.0}, "release.timing_quantum_s", "widens"),
        ({}, {"release__tensors__clipping_norm": 1.0}, "release.tensors.clipping_norm", "narrows"),
        ({"release__tensors__clipping_norm": 1.0}, {}, "release.tensors.clipping_norm", "widens"),
        ({}, {"release__tensors__precision": "bfloat16"}, "release.tensors.precision", "narrows"),
        ({}, {"release__tensors__integer_buffers": "release"}, "release.tensors.integer_buffers", "widens"),
        ({}, {"release__human_review": True}, "release.human_review", "narrows"),
        ({}, {"data__collections": ["thorax-cxr", "thorax-ct"]}, "data.collections", "widens"),
        ({}, {"data__collections": ["thorax-ct"]}, "data.collections", "changes"),
        ({}, {"data__consent_modes": ["opt-in"]}, "data.consent_modes", "narrows"),
        (
            {},
            {"data__consent_purposes": ["research-participants", "research-commercial"]},
            "data.consent_purposes",
            "narrows",
        ),
        ({}, {"requester__requester_class": "non-profit"}, "requester.requester_class", "widens"),
        ({}, {"valid_until": "2028-01-01T00:00:00Z"}, "valid_until", "widens"),
        ({}, {"resources__gpu": True}, "resources.gpu", "widens"),
        (
            {"resources__gpu": True},
            {"resources__gpu": True, "resources__cpu_fallback": True},
            "resources.cpu_fallback",
            "widens",
        ),
        ({}, {"title": "Another title"}, "title", "changes"),
    ],
)
def test_a_limit_that_moves_widens_or_narrows(
    before: dict[str, Any], after: dict[str, Any], field: str, direction: str
) -> None:
    found = changes_between(policy(**before), policy(**after))
    assert [(each.field, each.direction) for each in found] == [(field, direction)]


def test_noise_narrows_and_its_absence_widens() -> None:
    clipped = {"release__tensors__clipping_norm": 1.0, "release__tensors__float_buffers": "withhold"}
    private = {**clipped, "release__differential_privacy": PRIVATE}
    there = {each.field: each.direction for each in changes_between(policy(**clipped), policy(**private))}
    assert set(there.values()) == {"narrows"}
    assert len(there) == 3
    back = changes_between(policy(**private), policy(**clipped))
    assert {each.direction for each in back} == {"widens"}


def test_what_is_added_as_a_whole_is_one_change() -> None:
    rate = {"type": "float", "minimum": 0.0, "maximum": 1.0, "default": 0.5}
    wider = {**rate, "maximum": 2.0}
    assert meaning_of("title") == ""
    (added,) = changes_between(policy(), policy(runs__hyperparameters={"rate": rate}))
    assert str(added) == "runs.hyperparameters.rate: not there -> there (widens: what an order may choose)"
    (changed,) = changes_between(
        policy(runs__hyperparameters={"rate": rate}), policy(runs__hyperparameters={"rate": wider})
    )
    assert str(changed) == "runs.hyperparameters.rate.maximum: 1.0 -> 2.0 (widens: what an order may choose)"


def test_outputs_of_a_manifest_are_told_apart_by_name_not_by_place() -> None:
    first = "    - {{key: loss, stage: train, minimum: 0.0, maximum: 100.0, split: training}}\n"
    second = "    - {{key: auc, stage: evaluate, minimum: 0.0, maximum: 1.0, split: validation}}\n"
    (found,) = changes_between(manifest(), manifest(MANIFEST.replace(first, second + first)))
    assert str(found) == "outputs.metrics[evaluate/auc]: not there -> there (widens: numbers that leave)"
    (finer,) = changes_between(
        manifest(), manifest(MANIFEST.replace("split: training", "split: training, decimals: 6"))
    )
    assert str(finer) == "outputs.metrics[train/loss].decimals: 4 -> 6 (widens: how finely a number is told)"


def test_every_limit_of_a_policy_has_a_direction() -> None:
    """Numbers, switches and lists of a policy that say nothing about wider or narrower would be missed by a reader."""
    neutral = {"schema_version", "version", "legal.controllers", "image_config_digests"}
    limits = [
        field
        for field, value in leaves(policy().model_dump(mode="json")).items()
        if isinstance(value, int | float | list) and not field.startswith("elsi") and field not in neutral
    ]
    moved = {int: 7, float: 7.5, bool: None, list: ["x", "y", "z"]}
    from policies.board.comparing.documents import _direction

    for field in limits:
        assert meaning_of(field), field
        value = leaves(policy().model_dump(mode="json"))[field]
        other = (not value) if isinstance(value, bool) else moved[type(value)]
        if isinstance(value, list):
            other = [*value, "another"]
        assert _direction(field, value, other) != "changes", field


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            k: v for name, item in value.items() for k, v in leaves(item, f"{path}.{name}".strip(".")).items()
        }
    return {path: value}


def compared(folder: Path, old: list[bytes], new: list[bytes]) -> ImageChanges:
    return image_changes(open_bundle(pack(folder / "old", old)), open_bundle(pack(folder / "new", new)))


def test_packages_that_came_went_and_changed(tmp_path: Path) -> None:
    old = tar(*distribution("gone", "1", "License: MIT"), *distribution("thing", "1", "License: MIT"))
    new = tar(
        *distribution("come", "3", "License: GPL-3.0"), *distribution("thing", "2", "License: AGPL-3.0")
    )
    found = compared(tmp_path, [debian_layer(), old], [debian_layer(), new])
    assert [(each.name, each.before, each.after) for each in found.packages] == [
        ("come", "", "3"),
        ("gone", "1", ""),
        ("thing", "1", "2"),
    ]
    assert [each.licence_changed for each in found.packages] == [False, False, True]
    assert (found.shared_bytes, found.new_bytes) == (len(debian_layer()), len(new))


def test_source_that_changed_is_shown_line_by_line(tmp_path: Path) -> None:
    base = debian_layer()
    old = tar(
        Entry(f"{SITE}/a.py", b"one\ntwo\nthree\n"), Entry(f"{SITE}/gone.py", b"x\n"), Entry("opt/same", b"s")
    )
    new = tar(
        Entry(f"{SITE}/a.py", b"one\n2\nthree\n"),
        Entry(f"{SITE}/new.bin", b"\0\1"),
        Entry("opt/same", b"s", 0o755),
    )
    found = compared(tmp_path, [base, old], [base, new])
    told = {each.path.removeprefix(f"{SITE}/"): each for each in found.files}
    assert told["a.py"].lines == ("@@ -1,3 +1,3 @@", " one", "-two", "+2", " three")
    assert (told["gone.py"].happened, told["gone.py"].lines[-1]) == ("removed", "-x")
    assert (told["new.bin"].happened, told["new.bin"].note) == ("added", "no text")
    assert (told["opt/same"].why, told["opt/same"].lines) == (("mode",), ())
    assert len(told) == 4


def test_the_topmost_text_is_what_is_compared(tmp_path: Path) -> None:
    low, high = tar(Entry("opt/a", b"low\n")), tar(Entry("opt/a", b"mid\n"), Entry("opt/a", b"high\n"))
    found = compared(tmp_path, [low], [low, high])
    assert found.files[0].lines == ("@@ -1 +1 @@", "-low", "+high")


def test_files_of_packages_are_counted_and_own_ones_come_first(tmp_path: Path) -> None:
    old = [debian_layer()]
    replaced = tar(Entry("usr/bin/su", b"other"), Entry("opt/z.py", b"1\n"))
    found = compared(tmp_path, old, [*old, replaced])
    assert [(each.path, each.own) for each in found.files] == [("opt/z.py", True), ("usr/bin/su", True)]
    again = compared(tmp_path / "2", [tar(Entry("x", b"1"))], [debian_layer()])
    assert [each.path for each in again.files if not each.own] == ["bin", "usr/bin/bash", "usr/bin/su", "usr/share/doc/bash/copyright"]  # fmt: skip


def test_much_text_is_named_and_not_shown(tmp_path: Path) -> None:
    large, long = b"x" * 300_000, b"\n" * 5000
    found = compared(
        tmp_path, [tar(Entry("opt/c", b"1"))], [tar(Entry("opt/a", large), Entry("opt/b", long))]
    )
    assert {each.path: each.note for each in found.files} == {
        "opt/a": "too large to show, or no file",
        "opt/b": "too many lines to show",
        "opt/c": "",
    }


def test_repetitive_text_is_named_and_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that stand often in both files cost the more the oftener they do: here each file would take many seconds."""
    monkeypatch.setattr(images, "MAX_WORK_OF_FILE", MAX_WORK_OF_FILE // 20)
    monkeypatch.setattr(images, "_Left", partial(images._Left, work=MAX_WORK // 20))
    old = "".join(f"{number % 100}\n" for number in range(4000)).encode()
    new = "".join(f"{number * 7 % 100}\n" for number in range(1, 4000)).encode()
    paths = [f"opt/{number}" for number in range(6)]
    found = compared(
        tmp_path,
        [tar(*(Entry(path, old) for path in paths), Entry("opt/z", b"1\n"))],
        [tar(*(Entry(path, new) for path in paths), Entry("opt/z", b"2\n"))],
    )
    notes = [each.note for each in found.files]
    enough = MAX_WORK // MAX_WORK_OF_FILE
    assert notes == ["too repetitive to show"] * enough + ["too much to compare"] * (7 - enough)
    spent = work_of(old.decode().splitlines(), new.decode().splitlines(), MAX_WORK_OF_FILE)
    assert MAX_WORK_OF_FILE < spent < 1.1 * MAX_WORK_OF_FILE


def test_ordinary_text_costs_little_to_compare() -> None:
    lines = Path(json.__file__).read_text("utf-8").splitlines()
    changed = [line + "!" if number % 20 == 0 else line for number, line in enumerate(lines)]
    assert work_of(lines, changed, MAX_WORK) < MAX_WORK_OF_FILE / 50


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = debian_layer()
    old = pack(tmp_path / "old", [base, tar(Entry(f"{SITE}/a.py", b"safe()\n"))])
    new = pack(
        tmp_path / "new",
        [
            base,
            tar(
                Entry(f"{SITE}/a.py", b"evil()\n\rTo look at\x1b[2J\n"),
                *distribution("nc", "1", "License: CC-BY-NC-4.0"),
            ),
        ],
    )
    assert run(app, ["diff", str(old), str(new)]) == 0
    out = capsys.readouterr().out
    assert "    -safe()\n    +evil()\n" in out
    assert not {"\x1b", "\r"} & set(out)
    assert "added: nc (python) 1, CC-BY-NC-4.0 [non-commercial or proprietary]" in out
    assert "! Licence of nc is CC-BY-NC-4.0 now." in out
    assert "the manifest names the same source commit" in out
    assert run(app, ["diff", str(old), str(new), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["comparison"]["image"]["packages"][0]["name"] == "nc"
    # A review with the bundle before says it too.
    assert run(app, ["review", str(new), "--previous", str(old)]) == 0
    out = capsys.readouterr().out
    assert "known: approved before" in out
    assert "Packages that changed\n  added: nc" in out


def test_policies_by_file_and_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = BoardKit.found(tmp_path)
    board.publish(board.signed(board.policy()))
    (tmp_path / "next.yaml").write_bytes(board.policy(2, {"runs.runs": 50, "data.minimum_patients": 40}))
    arguments = [
        "diff",
        "cxr-classification@1",
        str(tmp_path / "next.yaml"),
        "-r",
        str(board.repository.folder),
    ]
    assert run(app, arguments) == 0
    out = capsys.readouterr().out
    assert (
        "runs.runs: 5 -> 50 (widens: runs in all)\n  version: 1 -> 2\n  data.minimum_patients: 20 -> 40 (narrows: patients it takes at each station)\n"
        in out
    )
    assert "! Wider than before: runs.runs: 5 -> 50 (widens: runs in all)." in out
    arguments[1] = "cxr-classification@7"
    assert run(app, arguments) == ExitCode.NOT_FOUND
    assert "Listed: cxr-classification@1." in capsys.readouterr().err
    (tmp_path / "train.yaml").write_text(MANIFEST.format(image="sha256:" + "1" * 64))
    assert run(app, ["diff", str(tmp_path / "next.yaml"), str(tmp_path / "train.yaml")]) == ExitCode.USAGE
    assert run(app, ["diff", "cxr-classification@1", str(tmp_path / "next.yaml")]) == ExitCode.USAGE


def test_a_change_reads_as_one_line() -> None:
    assert str(FieldChange("title", "a", "b", "changes")) == "title: a -> b"
