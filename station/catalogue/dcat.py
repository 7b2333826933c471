"""The hospital's collections as a catalogue in HealthDCAT-AP, JSON-LD.

Source: HealthDCAT-AP, release 8, SHACL shapes for NON_PUBLIC datasets (DG SANTE, code.europa.eu/healthdataeu/healthdcat-ap):
a dataset has exactly one access right (NON_PUBLIC), one health data access body, one word on structured data; at least one
title, description, identifier, applicable legislation, distribution, theme, health category, contact point, keyword, type and
provenance; agents have one contact point each. Every number is of the published table (`station.catalogue.published`); ages
are what the settings state. Texts are the hospital's own.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from policies.errors import SettingsError
from policies.policy import ConsentMode
from policies.profiles import Profile, ProfileField
from station.catalogue.published import PublishedRow
from station.settings import CollectionSettings, StationSettings
from station.settings.outside import DcatSettings

Node = dict[str, Any]

EHDS = "http://data.europa.eu/eli/reg/2025/327/oj"
GDPR = "http://data.europa.eu/eli/reg/2016/679/oj"
_AUTHORITY = "http://publications.europa.eu/resource/authority"
_HEALTH = "https://hdeu-dcat.data.health.europa.eu/resource/authority"
NON_PUBLIC = f"{_AUTHORITY}/access-right/NON_PUBLIC"
CONTEXT = {
    "adms": "http://www.w3.org/ns/adms#",
    "csvw": "http://www.w3.org/ns/csvw#",
    "cv": "http://data.europa.eu/m8g/",
    "dcat": "http://www.w3.org/ns/dcat#",
    "dcatap": "http://data.europa.eu/r5r/",
    "dct": "http://purl.org/dc/terms/",
    "dpv": "https://w3id.org/dpv#",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "healthdcatap": "http://healthdataportal.eu/ns/health#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "vcard": "http://www.w3.org/2006/vcard/ns#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
_NEEDED = (
    "base_url", "access_url", "contact_email", "publisher_name", "publisher_email", "hdab_name", "hdab_page",
    "description", "provenance", "intended_use",
)  # fmt: skip
_DATATYPES = {
    "integer": "integer", "number": "decimal", "code": "string", "flag": "boolean", "date": "date", "age": "integer",
    "days": "integer",
}  # fmt: skip
_CODING_SYSTEMS = {"SNOMED CT": "SNOMED-CT", "LOINC": "LOINC"}


def catalogue(
    settings: StationSettings, table: Sequence[PublishedRow], profiles: Sequence[Profile], now: datetime
) -> Node:
    """Return the catalogue with a dataset per offered collection.

    Args:
        settings: the hospital's.
        table: the counts as they are told outside now.
        profiles: the minimal datasets whose fields are described as variables.
        now: the moment of writing.

    Raises:
        SettingsError: `[dcat]` leaves something out that the profile asks for.
    """
    dcat = settings.dcat
    missing = [key for key in _NEEDED if not getattr(dcat, key)]
    if missing:
        raise SettingsError(
            f"dcat: {', '.join(missing)} missing",
            hint="A catalogue entry needs them; station/settings/settings.example.toml shows what they are.",
        )
    rows = {row.collection: row for row in table}
    base = dcat.base_url.rstrip("/")
    return {
        "@context": CONTEXT,
        "@id": f"{base}/{settings.name}",
        "@type": "dcat:Catalog",
        "dct:title": _text(f"{dcat.publisher_name}: {settings.name}", dcat),
        "dct:description": _text(dcat.description, dcat),
        "dct:publisher": _publisher(dcat),
        "dcatap:applicableLegislation": [{"@id": EHDS}],
        "dct:modified": _typed(now.date().isoformat(), "date"),
        "dcat:dataset": [
            _dataset(
                f"{base}/{settings.name}/{offered.name}", settings, offered, rows[offered.name], profiles
            )
            for offered in settings.collections
        ],
    }


def _dataset(
    iri: str,
    settings: StationSettings,
    offered: CollectionSettings,
    row: PublishedRow,
    profiles: Sequence[Profile],
) -> Node:
    dcat = settings.dcat
    dataset: Node = {
        "@id": iri,
        "@type": "dcat:Dataset",
        "dct:title": _text(f"{dcat.publisher_name}: {offered.name}", dcat),
        "dct:description": _text(dcat.description, dcat),
        "dct:identifier": iri,
        "dct:accessRights": {"@id": NON_PUBLIC},
        "dcatap:applicableLegislation": [{"@id": EHDS}, {"@id": GDPR}],
        "dct:type": {"@id": f"{_AUTHORITY}/dataset-type/STATISTICAL"},
        "dct:publisher": _publisher(dcat),
        "dct:spatial": {"@id": f"{_AUTHORITY}/country/{dcat.publisher_country}"},
        "dct:provenance": {"@type": "dct:ProvenanceStatement", "rdfs:label": _text(dcat.provenance, dcat)},
        "dct:conformsTo": {"@id": f"{_HEALTH}/standard/DICOM"},
        "dcat:theme": {"@id": f"{_AUTHORITY}/data-theme/HEAL"},
        "dcat:keyword": [_text(word, dcat) for word in dcat.keywords],
        "dcat:contactPoint": {
            "@type": "vcard:Kind",
            "vcard:hasEmail": {"@id": f"mailto:{dcat.contact_email}"},
        },
        "dcat:distribution": _distribution(iri, dcat),
        "healthdcatap:hdab": _agent(dcat.hdab_name, {"cv:contactPage": {"@id": dcat.hdab_page}}, dcat),
        "healthdcatap:healthCategory": {"@id": f"{_HEALTH}/healthcategories/{dcat.health_category}"},
        "healthdcatap:numberOfRecords": _typed(sum(row.images.values()), "nonNegativeInteger"),
        "healthdcatap:numberOfUniqueIndividuals": _typed(row.patients, "nonNegativeInteger"),
        "dpv:hasPurpose": {"@type": "dpv:Purpose", "dct:description": _text(dcat.intended_use, dcat)},
        "dpv:hasLegalBasis": {
            "@type": "dpv:LegalBasis",
            "dct:description": _text(_basis(offered), dcat),
            "dct:source": {"@id": GDPR},
        },
        "healthdcatap:hasStructuredData": _typed(str(bool(profiles)).lower(), "boolean"),
    }
    if dcat.population:
        dataset["healthdcatap:populationCoverage"] = _text(dcat.population, dcat)
    for key, age in (("minTypicalAge", dcat.minimum_age), ("maxTypicalAge", dcat.maximum_age)):
        if age is not None:
            dataset[f"healthdcatap:{key}"] = _typed(age, "nonNegativeInteger")
    if profiles:
        dataset["healthdcatap:hasVariables"] = [_variables(profile) for profile in profiles]
        dataset["healthdcatap:hasCodingSystem"] = [
            {"@id": f"{_HEALTH}/coding-system/{name}"} for name in _coding_systems(profiles)
        ]
    return dataset


def _basis(offered: CollectionSettings) -> str:
    asked = "opt-in" if offered.consent_mode is ConsentMode.OPT_IN else "opt-out"
    return f"{offered.legal_ground} ({asked})"


def _distribution(iri: str, dcat: DcatSettings) -> Node:
    return {
        "@id": f"{iri}/access",
        "@type": "dcat:Distribution",
        "dct:title": _text("Personal Health Train", dcat),
        "dcat:accessURL": {"@id": dcat.access_url},
        "dcatap:applicableLegislation": [{"@id": EHDS}],
    }


def _publisher(dcat: DcatSettings) -> Node:
    return _agent(dcat.publisher_name, {"cv:email": dcat.publisher_email}, dcat)


def _agent(name: str, contact: Node, dcat: DcatSettings) -> Node:
    return {
        "@type": "foaf:Agent",
        "foaf:name": _text(name, dcat),
        "cv:contactPoint": {"@type": "cv:ContactPoint", **contact},
    }


def _variables(profile: Profile) -> Node:
    return {
        "@type": "csvw:TableGroup",
        "dct:title": {"@value": profile.title, "@language": "en"},
        "csvw:table": {
            "@type": "csvw:Table",
            "dct:title": {"@value": profile.id, "@language": "en"},
            "csvw:column": [_column(field) for field in profile.fields],
        },
    }


def _column(field: ProfileField) -> Node:
    return {
        "@type": "csvw:Column",
        "csvw:name": field.name,
        "csvw:title": {"@value": field.name, "@language": "en"},
        "csvw:datatype": _DATATYPES[field.kind],
        "dct:description": {"@value": field.description, "@language": "en"},
    }


def _coding_systems(profiles: Sequence[Profile]) -> list[str]:
    used = {
        concept.system
        for profile in profiles
        for field in profile.fields
        for concept in (*field.concepts, *(one for value in field.values for one in value.concepts))
    }
    return sorted(_CODING_SYSTEMS[system] for system in used if system in _CODING_SYSTEMS)


def _text(text: str, dcat: DcatSettings) -> Node:
    return {"@value": text, "@language": dcat.language}


def _typed(value: object, datatype: str) -> Node:
    return {"@value": str(value), "@type": f"xsd:{datatype}"}
