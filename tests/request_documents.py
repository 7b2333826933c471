"""A researcher's request for the trivial train of `orchestrator_site`."""

import yaml
from orchestrator_site import MANIFEST

from policies.documents import digest_of


def request_yaml(key: str, **changes: object) -> bytes:
    document = {
        "schema_version": 1,
        "train": {"name": "trivial", "version": "1.0.0", "manifest_digest": digest_of(MANIFEST)},
        "purpose": {"code": "method-development", "statement": "To see whether it works.", "benefit": "All."},
        "requester": {
            "organisation": "A Hospital",
            "contact": "A Person",
            "requester_class": "participant",
            "country": "NL",
            "key": key,
        },
        "collections": ["thorax"],
        "stations": ["amstel", "berkel", "dommel"],
    }
    return yaml.safe_dump(document | changes).encode()
