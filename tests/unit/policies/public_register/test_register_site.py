"""The public register: valid and accessible HTML in two languages, made from what the board signed and nothing else."""

import base64
import hashlib
import itertools
import json
import re
import xml.etree.ElementTree as ET
from datetime import timedelta
from pathlib import Path
from typing import Any

import html5lib
import pytest
from board_kit import NOW, BoardKit, permitted

from policies.decisions import RefusedRequest, RunOutcome
from policies.documents import canonical_json, digest_of
from policies.errors import UsageError
from policies.opinions import OPINION_PAYLOAD_TYPE
from policies.policy import PlainSummary
from policies.public_register import SiteOptions, write_site
from policies.public_register.layout import CONTENT_SECURITY_POLICY
from policies.public_register.words import Language, words
from policies.signing import sign_envelope

HTML = "{http://www.w3.org/1999/xhtml}"
HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'>&amp;\u202egnp.exe\x1b[2J{digest}{0}"
"""What a document's author might try: markup, attributes, entities, hidden characters, format strings."""


def texts_of(kit: BoardKit, text: str) -> dict[str, object]:
    """A policy in which every free text is this one."""
    return {
        "title": text,
        "summary.nl": text,
        "summary.en": text,
        "radiologist": text,
        "purpose.statement": text,
        "purpose.benefit": text,
        "requester.organisation": text,
        "requester.contact": text,
        "legal.national_ground": text,
        "legal.controllers": [text],
        "legal.dpia": text,
        "legal.ethics": text,
        "legal.agreement.reference": text,
        "elsi": [{"question": text, "answer": text}],
    }


def found(kit: BoardKit, text: str = "Plain words") -> None:
    """A board with a policy, a dissent, a refusal, an outcome and withdrawals."""
    document = kit.policy(1, texts_of(kit, text))
    kit.repository.set_register(kit.signed_register(1, "amstel", "berkel"))
    kit.repository.set_purposes(kit.signed_purposes())
    kit.repository.add_policy(kit.signed(document))
    opinion = {
        "schema_version": 1, "policy_id": "cxr-classification", "version": 1, "policy_digest": digest_of(document),
        "verdict": "dissent", "text": text, "when": "2026-11-21T12:00:00Z",
    }  # fmt: skip
    kit.repository.add_opinion(sign_envelope(canonical_json(opinion), OPINION_PAYLOAD_TYPE, kit.keys["bob"]))
    both = PlainSummary(nl=text, en=text)
    kit.repository.announce(RefusedRequest(title=text, organisation=text, reason=both, when=NOW))
    kit.repository.announce(
        RunOutcome(
            policy_id="cxr-classification",
            version=1,
            summary=both,
            reference="https://example.org/a?b=1&c=2",
            when=NOW,
        )
    )
    kit.repository.add_policy(kit.signed(kit.policy(3, {"id": "old-train"})))
    kit.publish()
    kit.repository.revoke("old-train", 3, text, now=NOW)
    kit.repository.revoke_requester(kit.keys["stranger"].public_hex, text, now=NOW)
    kit.repository.revoke_station("berkel", text, now=NOW)
    kit.publish()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> BoardKit:
    kit = BoardKit.found(tmp_path_factory.mktemp("board"))
    found(kit)
    return kit


@pytest.fixture(scope="module")
def site(board: BoardKit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "register"
    options = SiteOptions(
        {"amstel": "Patient desk, desk@amstel.example or https://amstel.example/objection."}
    )
    write_site(permitted(board.client().refresh(NOW)), out, options, NOW)
    return out


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    kit = BoardKit.found(folder, title=HOSTILE)
    found(kit, HOSTILE)
    write_site(
        permitted(kit.client().refresh(NOW)), folder / "register", SiteOptions({"amstel": HOSTILE}), NOW
    )
    return folder / "register"


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def parsed(page: Path) -> Any:
    """The page as a tree; the strict parser raises for anything that HTML does not allow."""
    return html5lib.HTMLParser(strict=True).parse(page.read_text("utf-8"))


def text_of(page: Path) -> str:
    return " ".join("".join(parsed(page).find(f"{HTML}body").itertext()).split())


def test_the_pages_are_there_in_both_languages(site: Path) -> None:
    names = {str(page.relative_to(site)) for page in pages(site)}
    assert names == {"index.html"} | {
        f"{language}/{name}.html"
        for language in ("nl", "en")
        for name in ("index", "hospitals", "objection", "decisions", "studies/cxr-classification")
    }


def test_every_page_is_valid_and_has_what_a_screen_reader_needs(site: Path, hostile: Path) -> None:
    for page in [*pages(site), *pages(hostile)]:
        tree = parsed(page)
        language = page.parent.name if page.parent.name in {"nl", "en"} else page.parent.parent.name
        assert tree.attrib["lang"] == (language if language in {"nl", "en"} else "nl")
        assert tree.find(f"{HTML}head/{HTML}title").text.strip()
        assert len(list(tree.iter(f"{HTML}main"))) == 1
        assert len(list(tree.iter(f"{HTML}h1"))) == 1
        levels = [int(e.tag[-1]) for e in tree.iter() if re.fullmatch(re.escape(HTML) + "h[1-6]", str(e.tag))]
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), page
        if page.name == "index.html" and page.parent in {site, hostile}:
            continue
        for landmark in ("header", "nav", "footer"):
            assert len(list(tree.iter(HTML + landmark))) == 1
        assert tree.find(f".//{HTML}nav").attrib["aria-label"]
        first = next(iter(tree.find(f"{HTML}body")))
        assert (first.tag, first.attrib["href"]) == (f"{HTML}a", "#content"), "the skip link comes first"
        assert tree.find(f".//{HTML}main").attrib["id"] == "content"
        assert not list(tree.iter(f"{HTML}table"))
        for link in tree.iter(f"{HTML}a"):
            assert "".join(link.itertext()).strip(), "a link says where it goes"


def test_nothing_is_asked_of_anybody_else_and_nothing_runs(site: Path, hostile: Path) -> None:
    style = re.compile(r"<style>(.*?)</style>", re.DOTALL)
    for page in [*pages(site), *pages(hostile)]:
        tree = parsed(page)
        names = {str(element.tag).removeprefix(HTML) for element in tree.iter()}
        assert not names & {
            "script",
            "img",
            "iframe",
            "object",
            "embed",
            "form",
            "input",
            "base",
            "svg",
            "video",
            "audio",
        }
        for element in tree.iter():
            assert not [key for key in element.attrib if key.startswith("on") or key in {"style", "src"}]
        policy = [
            e for e in tree.iter(f"{HTML}meta") if e.attrib.get("http-equiv") == "Content-Security-Policy"
        ]
        assert [e.attrib["content"] for e in policy] == [CONTENT_SECURITY_POLICY]
        for written in style.findall(page.read_text()):
            digest = base64.b64encode(hashlib.sha256(written.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in CONTENT_SECURITY_POLICY
            assert "url(" not in written
            assert "@import" not in written
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'")


def test_every_link_leads_somewhere(site: Path) -> None:
    for page in pages(site):
        for link in [*parsed(page).iter(f"{HTML}a"), *parsed(page).iter(f"{HTML}link")]:
            target = link.attrib["href"]
            if target.startswith(("https://", "mailto:")):
                assert target in {
                    "https://example.org/a?b=1&c=2", "https://amstel.example/objection", "mailto:desk@amstel.example",
                }  # fmt: skip
            elif target != "#content":
                assert (page.parent / target).resolve().is_file(), (page, target)


def test_what_others_wrote_is_text_and_never_markup(hostile: Path) -> None:
    shown = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'>&amp;\ufffdgnp.exe\ufffd[2J{digest}{0}"
    for language in ("nl", "en"):
        study = hostile / language / "studies" / "cxr-classification.html"
        whole = "".join(parsed(study).itertext())
        # In the title and as heading, in the summary, in each of the other texts, and wherever the board's own title stands.
        assert whole.count(shown) >= 16
        for name in ("index", "hospitals", "objection", "decisions"):
            page = hostile / language / f"{name}.html"
            assert shown in "".join(parsed(page).itertext())
            assert "<script" not in page.read_text()
            assert "\x1b" not in page.read_text()
            assert "\u202e" not in page.read_text()


def test_a_patient_finds_what_runs_why_for_whom_and_until_when(site: Path) -> None:
    dutch = text_of(site / "nl" / "studies" / "cxr-classification.html")
    for said in (
        "Waarom", "Voor wie", "Een ziekenhuis dat zelf meedoet", "Wat er naar buiten gaat",
        "Veranderingen in het computermodel", "Per ziekenhuis hooguit", "verkleinde röntgenfoto's", "2 maart 2027",
        "Taak van algemeen belang", "Wetenschappelijk onderzoek", "Wie het goedkeurde", "Alice", "patiëntvertegenwoordiger",
        "was het oneens", "Wat eruit kwam", "Wilt u niet meedoen?",
    ):  # fmt: skip
        assert said in dutch, said
    english = text_of(site / "en" / "studies" / "cxr-classification.html")
    assert "Per hospital at most" in english
    assert "2 March 2027" in english
    hospitals = text_of(site / "nl" / "hospitals.html")
    assert "Amstel" in hospitals
    assert "Land: NL." in hospitals
    assert "Bob (jurist) was het oneens, 21 november 2026: Plain words" in dutch
    assert "Mag hier lopen" in hospitals
    assert "Teruggetrokken op 22 november 2026: hier loopt niets." in hospitals
    assert "desk@amstel.example" in text_of(site / "nl" / "objection.html")
    assert "opt-in" in text_of(site / "nl" / "objection.html")
    decisions = text_of(site / "en" / "decisions.html")
    for said in ("Refused", "Withdrawn", "Study old-train, version 3", "Hospital berkel", "A requester, key"):
        assert said in decisions


def test_a_withdrawn_station_is_nowhere_said_to_run_anything(site: Path) -> None:
    study = text_of(site / "nl" / "studies" / "cxr-classification.html")
    assert "Amstel" in study
    assert "Berkel" not in study


def test_what_is_over_or_withdrawn_is_said_so(board: BoardKit, tmp_path: Path) -> None:
    later = NOW + timedelta(days=1)
    board.witness.sign_once(later)
    state = permitted(board.client("later").refresh(later))
    files = write_site(state, tmp_path / "register", SiteOptions(), NOW + timedelta(days=101))
    assert "nl/studies/cxr-classification.html" in files
    page = text_of(tmp_path / "register" / "nl" / "studies" / "cxr-classification.html")
    assert "Afgelopen op 2 maart 2027. Er loopt niets meer." in page
    assert "Hier mag nu niets lopen." in text_of(tmp_path / "register" / "nl" / "hospitals.html")


def test_programs_read_the_same(site: Path, hostile: Path) -> None:
    register = json.loads((site / "register.json").read_bytes())
    (study,) = register["studies"]
    assert study["policy"]["id"] == "cxr-classification"
    assert study["opinions"][0]["verdict"] == "dissent"
    assert [one["may_take_part"] for one in register["hospitals"]] == [True, False]
    for folder in (site, hostile):
        for language in ("nl", "en"):
            feed = ET.fromstring((folder / language / "feed.xml").read_text())  # noqa: S314 - our own
            atom = "{http://www.w3.org/2005/Atom}"
            entries = feed.findall(f"{atom}entry")
            # The study, its outcome, the refused request; a policy, a requester and a station withdrawn.
            assert len(entries) == 6
            assert len({entry.findtext(f"{atom}id") for entry in entries}) == 6
            for entry in feed.findall(f"{atom}entry"):
                assert entry.find(f"{atom}id") is not None
                assert (folder / language / entry.find(f"{atom}link").attrib["href"]).is_file()  # type: ignore[union-attr]


def written(kit: BoardKit, out: Path) -> Path:
    write_site(permitted(kit.client(out.name).refresh(NOW)), out, SiteOptions(), NOW)
    return out


def one_study(folder: Path, changes: dict[str, object], *signers: str, **charter: object) -> Path:
    """The register of a board with one policy, changed so."""
    kit = BoardKit.found(folder / "board", **charter)
    kit.repository.set_purposes(kit.signed_purposes())
    kit.publish(kit.signed(kit.policy(1, changes), *signers))
    return written(kit, folder / "register")


def test_what_leaves_with_every_result_is_said_whatever_the_policy_asks(site: Path, tmp_path: Path) -> None:
    nothing: dict[str, object] = {
        "release.metrics": [], "release.tables": [], "release.tensors": None, "release.error_codes": []
    }  # fmt: skip
    bare = one_study(tmp_path, nothing | {"kind": "analysis", "runs.strategies": ["none"]})
    for folder in (site, bare):
        dutch = text_of(folder / "nl" / "studies" / "cxr-classification.html")
        assert (
            "het aantal beelden, afgerond op tientallen en nooit minder dan tien, of het gelukt is" in dutch
        )
        english = text_of(folder / "en" / "studies" / "cxr-classification.html")
        assert "the number of images, rounded to tens and never less than ten, whether it worked" in english
    assert "Geen veranderingen in een model, geen cijfers en geen tabellen." in text_of(
        bare / "nl" / "studies" / "cxr-classification.html"
    )


def test_data_of_one_patient_is_excluded_only_where_the_minimums_exclude_it(
    site: Path, tmp_path: Path
) -> None:
    place = Path("nl", "studies", "cxr-classification.html")
    assert "gegevens van één patiënt mogen er niet uit" in text_of(site / place)
    alone = text_of(one_study(tmp_path, {"release.minimum_patients_per_metric": 1}) / place)
    assert "gegevens van één patiënt" not in alone
    assert "Beelden en namen mogen er niet uit." in alone


def test_a_policy_that_the_table_of_purposes_does_not_permit_is_no_study(tmp_path: Path) -> None:
    kit = BoardKit.found(tmp_path / "board")
    kit.publish(kit.signed(kit.policy()))
    assert json.loads((written(kit, tmp_path / "without") / "register.json").read_bytes())["studies"] == []
    kit.repository.set_purposes(kit.signed_purposes())
    kit.publish()
    assert len(json.loads((written(kit, tmp_path / "with") / "register.json").read_bytes())["studies"]) == 1
    rules = [
        {
            "purpose": "health-research",
            "requester_class": "participant",
            "consents": ["research-participants"],
        }
    ]
    kit.repository.set_purposes(kit.signed_purposes(2, {"rules": rules}))
    kit.publish()
    out = written(kit, tmp_path / "narrowed")
    assert json.loads((out / "register.json").read_bytes())["studies"] == []
    assert "Er is nu geen onderzoek toegestaan." in text_of(out / "nl" / "index.html")


def test_a_development_decision_is_shown_as_the_exception_it_is(site: Path, tmp_path: Path) -> None:
    exception = "een ontwikkelbesluit telt al met één handtekening"
    assert exception in text_of(site / "nl" / "index.html")
    assert "Een ontwikkelbesluit: alleen voor" not in text_of(site / "nl" / "index.html")
    home = text_of(one_study(tmp_path / "one", {"role": "development"}, "developer") / "nl" / "index.html")
    assert "Een ontwikkelbesluit: alleen voor verzamelingen die openbaar of kunstmatig zijn." in home
    without = one_study(tmp_path / "two", {}, development_keys=())
    assert exception not in text_of(without / "nl" / "index.html")


def test_the_feed_tells_of_withdrawn_requesters_and_stations(site: Path) -> None:
    for language, requester, station in (
        ("nl", "Een aanvrager, sleutel", "Ziekenhuis berkel"),
        ("en", "A requester, key", "Hospital berkel"),
    ):
        feed = (site / language / "feed.xml").read_text()
        assert requester in feed
        assert station in feed


def test_the_same_state_gives_the_same_bytes_and_what_is_gone_is_removed(
    board: BoardKit, tmp_path: Path
) -> None:
    state = permitted(board.client().refresh(NOW))
    out = tmp_path / "register"
    first = write_site(state, out, SiteOptions(), NOW)
    before = {name: (out / name).read_bytes() for name in first}
    stale = out / "nl" / "studies" / "gone.html"
    stale.write_text("an earlier study")
    assert write_site(state, out, SiteOptions(), NOW) == first
    assert {name: (out / name).read_bytes() for name in first} == before
    assert not stale.exists()


def test_a_folder_of_something_else_is_left_alone(board: BoardKit, tmp_path: Path) -> None:
    state = permitted(board.client().refresh(NOW))
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        write_site(state, tmp_path, SiteOptions(), NOW)
    with pytest.raises(UsageError, match="no hospital of this name"):
        write_site(state, tmp_path / "out", SiteOptions({"nowhere": "x"}), NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_colours_have_the_contrast_that_everyone_can_read(site: Path) -> None:
    style = (site / "nl" / "index.html").read_text().split("<style>")[1].split("</style>")[0]
    colours = set(re.findall(r"(?:^|[;{\s])color:(#[0-9a-f]{3,6})", style)) | {"#7a2e00"}
    assert len(colours) >= 3
    for colour in colours:
        # WCAG 2.2, success criterion 1.4.6 (enhanced), on white.
        assert contrast(colour, "#ffffff") >= 7, colour


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_line_is_there_in_both_languages_with_the_same_places() -> None:
    place = re.compile(r"\{(\w+)\}")
    for key, (dutch, english) in words().items():
        assert dutch.strip(), key
        assert english.strip(), key
        assert sorted(place.findall(dutch)) == sorted(place.findall(english)), key
    assert set(Language) == {"nl", "en"}
