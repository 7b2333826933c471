"""The page of one study: everything that its policy says, in the order in which a patient asks."""

import math
from datetime import date, timedelta

from policies.policy import Policy
from policies.public_register.facts import Facts, Study
from policies.public_register.layout import Page, facts_list, in_document_language
from policies.public_register.markup import Content, Html, join, tag
from policies.public_register.words import Language, day, number, say
from policies.rules.capacity import bits_in_words

_LARGEST_EPSILON = 50.0
_UNITS_APART = 1.0


def study_file(study: Study) -> str:
    """Return the study's page, below the language's folder."""
    return f"studies/{study.policy.id}.html"


def summary(study: Study, language: Language) -> str:
    """Return what the board tells patients, in the page's language."""
    return study.policy.summary.nl if language is Language.NL else study.policy.summary.en


def last_day(policy: Policy) -> date:
    """Return the last day on which something may run: a validity that ends at midnight ends with the day before."""
    return (policy.valid_until - timedelta(seconds=1)).date()


def period(study: Study, language: Language) -> Html:
    """Return until when it may run, or that it is over."""
    policy, last = study.policy, last_day(study.policy)
    if study.over:
        return tag("p", say(language, "ended", date=day(language, last)), class_="notice")
    if not study.begun:
        return tag("p", say(language, "not_yet", date=day(language, policy.valid_from)), class_="notice")
    until = tag("time", day(language, last), datetime=last.isoformat())
    return tag("p", say(language, "until"), " ", until, ".")


def study_page(facts: Facts, study: Study, language: Language, documents: Language) -> Page:
    """Return the page of a study."""
    policy = study.policy
    write = _Writer(language, documents)
    content = join(
        tag("p", summary(study, language), class_="lead"),
        period(study, language),
        tag("p", say(language, "development"), class_="notice") if policy.role == "development" else None,
        write.why(policy),
        write.for_whom(policy),
        write.where(facts, policy),
        write.data(policy),
        write.leaves(study),
        write.how_long(policy),
        write.legal(policy),
        write.elsi(policy),
        write.approved(study),
        write.opinions(study),
        write.outcomes(study),
        tag("h2", say(language, "objection")),
        tag("p", tag("a", say(language, "object_here"), href="../objection.html")),
    )
    return Page(study_file(study), policy.title, document=True, content=content)


def _about_several(policy: Policy) -> bool:
    """Whether nothing that leaves may be about one patient alone."""
    release = policy.release
    return (
        min(policy.data.minimum_patients, release.minimum_cell_count, release.minimum_patients_per_metric) > 1
    )


class _Writer:
    """Writes a policy's sections in one language; the board's own texts in the language it writes in."""

    def __init__(self, language: Language, documents: Language) -> None:
        self._language = language
        self._documents = documents

    def why(self, policy: Policy) -> Html:
        return self._section(
            "why",
            facts_list(
                self._term("question", self._own(policy.purpose.statement)),
                self._term("benefit", self._own(policy.purpose.benefit)),
                self._term("purpose", self._value("purpose", policy.purpose.code)),
                self._term("radiologist", self._own(policy.radiologist)),
            ),
        )

    def for_whom(self, policy: Policy) -> Html:
        requester = policy.requester
        return self._section(
            "for_whom",
            facts_list(
                self._term("organisation", self._own(requester.organisation)),
                self._term("class", self._value("requester", requester.requester_class)),
                self._term("country", requester.country),
            ),
        )

    def where(self, facts: Facts, policy: Policy) -> Html:
        names = [
            self._own(hospital.station.organisation, "li")
            for hospital in facts.hospitals
            if hospital.takes_part_in(policy.id)
        ]
        return self._section(
            "where",
            tag("p", self._say("where_text", minimum=policy.runs.minimum_stations)),
            tag("ul", names) if names else tag("p", self._say("no_hospitals")),
        )

    def data(self, policy: Policy) -> Html:
        data = policy.data
        return self._section(
            "data",
            tag("p", self._say("pseudonymised")),
            facts_list(
                self._term(
                    "images", [join(self._value("modality", modality)) for modality in data.modalities]
                ),
                self._term(
                    "fields",
                    [
                        tag("code", name)
                        for name in (*data.clinical_fields, *data.acquisition_fields, *data.masks)
                    ]
                    or self._say("no_fields"),
                ),
                self._term("collections", [tag("code", name) for name in data.collections]),
                self._term("asked", [join(self._value("consent", mode)) for mode in data.consent_modes]),
                self._term("minimum_patients", str(data.minimum_patients)),
            ),
        )

    def leaves(self, study: Study) -> Html:
        release = study.policy.release
        items = [
            self._say("leaves_model") if release.tensors is not None else None,
            self._say("leaves_figures", names=", ".join(release.metrics)) if release.metrics else None,
            self._say("leaves_tables", names=", ".join(release.tables)) if release.tables else None,
        ]
        if release.error_codes:
            items.append(self._say("leaves_codes", names=", ".join(release.error_codes)))
        told = [tag("li", item) for item in items if item] or [tag("li", self._say("leaves_nothing"))]
        # With every answer of a station, whatever the policy asks for.
        told.append(tag("li", self._say("leaves_always")))
        cells = self._say(
            "leaves_cells", cells=release.minimum_cell_count, patients=release.minimum_patients_per_metric
        )
        return self._section(
            "leaves",
            tag("ul", told),
            tag("p", self._say("leaves_never" if _about_several(study.policy) else "leaves_never_images")),
            tag("p", self._say("stays_predictions")) if release.local_predictions else None,
            tag("p", cells) if release.metrics or release.tables else None,
            tag("p", self._privacy(study.policy)),
            tag("h3", self._say("capacity")),
            tag("p", self._capacity(study)),
            tag("h3", self._say("trust")),
            tag("ul", [tag("li", line) for line in self._trust(study.policy)]),
        )

    def how_long(self, policy: Policy) -> Html:
        runs = policy.runs
        return self._section(
            "how_long",
            facts_list(
                self._term("from", day(self._language, policy.valid_from)),
                self._term("until", day(self._language, last_day(policy))),
                self._term("runs", number(self._language, runs.runs)),
                self._term("rounds", number(self._language, runs.rounds)),
            ),
        )

    def legal(self, policy: Policy) -> Html:
        legal = policy.legal
        expires = f" ({self._say('until').lower()} {day(self._language, legal.agreement.expires)})"
        agreement = join(self._own(legal.agreement.reference), expires)
        pairs: list[tuple[str, Content | list[Html]]] = [
            self._term("article_6", self._value("article6", legal.gdpr_article_6)),
            self._term("article_9", self._value("article9", legal.gdpr_article_9)),
            self._term("national", self._own(legal.national_ground)),
            self._term("controllers", [self._own(name) for name in legal.controllers]),
            self._term("dpia", self._own(legal.dpia)),
            self._term("ethics", self._own(legal.ethics)),
            self._term("agreement", agreement),
            self._term("model_status", self._value("model", legal.model_status)),
        ]
        if legal.ehds_permit is not None:
            pairs.append(self._term("ehds", self._own(legal.ehds_permit)))
        return self._section("legal", facts_list(*pairs))

    def elsi(self, policy: Policy) -> Html:
        pairs = [
            join(self._own(check.question, "dt"), self._own(check.answer, "dd")) for check in policy.elsi
        ]
        return self._section("elsi", tag("dl", pairs))

    def approved(self, study: Study) -> Html:
        names = [
            tag(
                "li",
                self._own(member.name),
                f", {self._value('role', member.role)}, ",
                self._own(member.organisation),
            )
            for member in study.signers
        ]
        return self._section(
            "approved",
            tag("ul", names) if names else None,
            facts_list(
                self._term("version", str(study.policy.version)),
                self._term("digest", tag("code", study.digest)),
            ),
        )

    def opinions(self, study: Study) -> Html:
        items = [
            tag(
                "li", self._own(found.member.name), f" ({self._value('role', found.member.role)}) ",
                self._say(found.opinion.verdict), ", ", day(self._language, found.opinion.when), ": ",
                self._own(found.opinion.text),
            )
            for found in study.opinions
        ]  # fmt: skip
        return self._section("opinions", tag("ul", items) if items else tag("p", self._say("no_opinions")))

    def outcomes(self, study: Study) -> Html:
        items = [
            tag(
                "li",
                day(self._language, outcome.when), ": ",
                outcome.summary.nl if self._language is Language.NL else outcome.summary.en,
                join(" ", tag("a", self._say("reference"), ": ", outcome.reference, href=outcome.reference, rel="noopener noreferrer"))
                if outcome.reference else None,
            )
            for outcome in study.outcomes
        ]  # fmt: skip
        return self._section("outcome", tag("ul", items) if items else tag("p", self._say("no_outcome")))

    def _privacy(self, policy: Policy) -> str:
        private = policy.release.differential_privacy
        if private is None:
            return self._say("privacy_none")
        return self._say(
            "privacy_noise",
            factor=self._decimal(f"{math.exp(min(private.epsilon, _LARGEST_EPSILON)):.3g}"),
            epsilon=self._decimal(f"{private.epsilon:g}"),
            delta=self._decimal(f"{private.delta:g}"),
        )

    def _decimal(self, text: str) -> str:
        return text.replace(".", ",") if self._language is Language.NL else text

    def _capacity(self, study: Study) -> str:
        return self._say(
            "capacity_text",
            per_round=self._bits(study.capacity.bits_per_round),
            per_run=self._bits(study.capacity.bits_per_run),
            radiographs=self._radiographs(study.capacity.radiographs),
        )

    def _bits(self, bits: float) -> str:
        return self._decimal(bits_in_words(bits))

    def _radiographs(self, count: float) -> str:
        if count < _UNITS_APART:
            return self._say("less_than_one")
        digits = max(0, math.floor(math.log10(count)) - 1)
        rounded = round(count, -digits)
        if rounded == _UNITS_APART:
            return self._say("about_one_radiograph")
        return self._say("about_radiographs", count=number(self._language, rounded))

    def _trust(self, policy: Policy) -> list[str]:
        lines = [self._say("trust_code")]
        if policy.release.tensors is not None and not policy.release.secure_aggregation:
            lines.append(self._say("trust_orchestrator"))
        return lines

    def _section(self, key: str, *content: Content) -> Html:
        return join(tag("h2", self._say(key)), *content)

    def _term(self, key: str, description: Content | list[Html]) -> tuple[str, Content | list[Html]]:
        return self._say(key), description

    def _own(self, text: str, name: str = "span") -> Html:
        return in_document_language(self._documents, name, text)

    def _value(self, table: str, value: str) -> str:
        return self._say(f"{table}.{value}")

    def _say(self, key: str, /, **values: object) -> str:
        return say(self._language, key, **values)
