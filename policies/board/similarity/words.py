"""How alike two short texts in Dutch or English are: TF-IDF cosine over word stems and over pieces of words.

Stems find the same word in another form; pieces of four letters find it inside a Dutch compound ("rib" in "ribbreuken",
"long" in "longknobbels"); a table of synonyms finds it in another language or in a doctor's words. Weights are
those of Salton and Buckley (Information Processing & Management 24:513, 1988): term frequency damped by the logarithm, times
smoothed inverse document frequency. No model, no download; all that decides is on this page.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

_WORD: Final = re.compile(r"[a-z0-9]+")
_PIECE: Final = 4
_STEM_WEIGHT: Final = 0.65
MAX_TEXT: Final = 40_000

# Words that carry no subject, Dutch and English ...
_COMMON: Final = """
    aan als alle alleen bij dan dat de deze die dit door een en er gaan geen had heb hebben heeft het hoe hun iets in is kan
    kunnen maar meer met mogen na naar niet nog of om onder ook op over samen te tegen tot uit van vaak veel voor waar wat we
    welke werd wie wij willen worden wordt zal ze zelf zich zij zijn zo zonder zou a about after all also an and any are as at be
    been before by can do does each either few find for from get has have how if in into is it its more not of on only or other
    our out over own such than that the their them then there these they this those through to under up use used using was
    we well were what when where whether which who will with within without would out
"""
# ... and those that stand in every question put to a board like ours.
_OURS: Final = """
    beeld beelden beter blijven buiten cijfer cijfers computer computermodel data deel deelnemen dokter enkele gegevens herkennen
    herkent hospital hospitals image images leave leren learn ieder elk elke kwaliteit kwaliteitscijfers leer maken model modellen models
    onderzoek onderzoeken onderzoekers patient patients patienten per project quality question recognise recognises research
    resultaat results stay study studie train trained training trainen verandering veranderingen changes veld verschillende vraag
    ziekenhuis ziekenhuizen participating figures figure publish published together gezamenlijk
"""
# ... and those of what every summary tells patients, and of the chest and its images, which all questions here are about.
_NOTICE: Final = """
    naam namen geboortedatum geboortedata patientnummer patientnummers nummer nummers programma programmas ziet zien wilt uw u jouw
    hiervoor gebruikt gebruik gebruikte bezwaar maakt kunt gebeurt getal getallen aantal aantallen tabel tabelletje kleine klein
    weggelaten nooit helpt helpen bedoeld behandeling dokters arts artsen opslaan bewaard verlaat verlaten anoniem
    name names date dates birth number numbers program sees see seen want your you object objection do did so left never always
    helps help many much meant treatment doctor doctors kept keep store stored count counts small table tables anonymous
    een twee drie vier vijf one two three four five first second gemiddeld average
    chest thorax thoracic borstkas borst radiograph radiographs radiografie rontgenfoto rontgenfotos thoraxfoto thoraxfotos longfoto
    longfotos xray xrays cxr ct computertomografie tomography tomografie scan scans ctscan ctscans foto fotos photo photos no geen ja nee
    universiteit university umc afdeling department departments radiologie radiology institute institution
"""
_SYNONYMS: Final = (
    "pneumonia pneumonie longontsteking longontstekingen longinfectie pneumonias",
    "nodule nodules nodulus noduli longknobbel longknobbels longhaard longhaarden knobbeltje knobbeltjes nodulair",
    "cancer kanker longkanker carcinoma carcinoom carcinomen tumor tumour tumoren tumours maligniteit malignancy malignant",
    "lung lungs long longen pulmonary pulmonaal",
    "heart hart cardiac cardio cardiomegaly cardiomegalie hartvergroting",
    "fracture fractures fractuur fracturen breuk breuken botbreuk broken gebroken",
    "pneumothorax klaplong pneumothoraces",
    "effusion pleuravocht hydrothorax pleuraeffusie effusions vocht",
    "tuberculosis tuberculose tbc tb",
    "embolism embolie longembolie embolieen emboli",
    "emphysema emfyseem copd",
    "fibrosis fibrose longfibrose interstitial interstitiele",
    "dose dosis doses stralingsdosis stralingsbelasting straling radiation dosisindicator dosisindicatoren",
    "height lengte",
    "weight gewicht",
    "age leeftijd leeftijden older oudere ouderen ages",
    "woman women vrouw vrouwen female sex geslacht man men mannen male",
    "child children kind kinderen paediatric pediatric",
    "predict prediction voorspellen voorspelling voorspelt prognose prognosis",
    "detect detection opsporen opsporing detecteren detectie find finding vinden",
    "survival overleving mortality sterfte overlijden death",
    "count tellen telling geteld counting",
    "covid corona coronavirus sars",
)


def _plain(text: str) -> str:
    """Return lower-case letters without accents; an apostrophe joins ("foto's" is one word)."""
    spread = unicodedata.normalize("NFKD", text[:MAX_TEXT].casefold())
    joined = re.sub("['\u2019`]", "", "".join(each for each in spread if not unicodedata.combining(each)))
    return re.sub(r"\bx[ -]?rays?\b", " xray ", joined)


_SUFFIXES: Final = ("heden", "ingen", "ations", "ation", "ings", "ing", "ies", "en", "es", "ed", "s", "e")


def stem(word: str) -> str:
    """Cut a word to a stem, roughly, in either language.

    >>> stem("ziekenhuizen"), stem("ziekenhuis"), stem("hospitals"), stem("fractures")
    ('ziekenhuis', 'ziekenhuis', 'hospital', 'fractur')
    """
    for suffix in _SUFFIXES:
        # "thuis", "virus" and "loss" are no plurals.
        if word.endswith(suffix) and len(word) - len(suffix) >= 4 and not word.endswith(("is", "us", "ss")):
            word = word.removesuffix(suffix)
            break
    word = re.sub(r"(.)\1+", r"\1", word)
    return word[:-1] + {"z": "s", "v": "f"}.get(word[-1], word[-1])


_CONCEPTS: Final[Mapping[str, str]] = {
    stem(name): group.split()[0] for group in _SYNONYMS for name in group.split()
}
_STOPPED_STEMS: Final = frozenset(map(stem, (_COMMON + _OURS + _NOTICE).split()))


def words_of(text: str) -> list[tuple[str, str]]:
    """Return (stem or concept, word) for each word that carries a subject."""
    found = ((stem(word), word) for word in _WORD.findall(_plain(text)))
    return [
        (_CONCEPTS.get(each, each), word)
        for each, word in found
        if each not in _STOPPED_STEMS and len(each) > 1
    ]


class Text:
    """One text, taken apart once."""

    def __init__(self, text: str) -> None:
        words = words_of(text)
        self.stems = Counter(each for each, _ in words)
        # Shown to people: a word that stands in the text, for each stem.
        self.shown = dict(reversed(words))
        self.pieces = Counter(
            padded[start : start + _PIECE]
            for _, word in words
            if (padded := f" {word} ")
            for start in range(max(1, len(padded) - _PIECE + 1))
        )


@dataclass(frozen=True)
class Collection:
    """Texts against which others are weighed: a word that all of them have tells little."""

    texts: Sequence[Text]

    @cached_property
    def _stems(self) -> Counter[str]:
        return Counter(each for text in self.texts for each in text.stems)

    @cached_property
    def _pieces(self) -> Counter[str]:
        return Counter(each for text in self.texts for each in text.pieces)

    def likeness(self, one: Text, other: Text) -> float:
        """Return how alike two texts are, 0 to 1."""
        stems = _cosine(one.stems, other.stems, self._weights(self._stems, one.stems, other.stems))
        pieces = _cosine(one.pieces, other.pieces, self._weights(self._pieces, one.pieces, other.pieces))
        return _STEM_WEIGHT * stems + (1 - _STEM_WEIGHT) * pieces

    def shared(self, one: Text, other: Text, most: int = 6) -> tuple[str, ...]:
        """Return the words that make two texts alike, what counts most first, as the first text has them."""
        weights = self._weights(self._stems, one.stems, other.stems)
        a, b = _vector(one.stems, weights), _vector(other.stems, weights)
        both = sorted(a.keys() & b.keys(), key=lambda each: (-a[each] * b[each], each))
        return tuple(one.shown[each] for each in both[:most])

    def _weights(self, there: Counter[str], *terms: Iterable[str]) -> dict[str, float]:
        total = len(self.texts)
        return {
            each: 1.0 + math.log((1 + total) / (1 + there[each])) for counted in terms for each in counted
        }


def _cosine(one: Counter[str], other: Counter[str], weights: Mapping[str, float]) -> float:
    a, b = _vector(one, weights), _vector(other, weights)
    product = sum(a[each] * b[each] for each in a.keys() & b.keys())
    lengths = math.hypot(*a.values()) * math.hypot(*b.values())
    return product / lengths if lengths else 0.0


def _vector(counted: Counter[str], weights: Mapping[str, float]) -> dict[str, float]:
    return {each: (1.0 + math.log(times)) * weights[each] for each, times in counted.items()}
