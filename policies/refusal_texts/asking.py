"""Refusal texts: what a station is asked to do: instructions, the board's documents, run orders, trains."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.refusals import CatalogueEntry, RefusalCode

_C = RefusalCode
_BOARD = "Ask the board's secretary."

TEXTS: Mapping[RefusalCode, CatalogueEntry] = MappingProxyType(
    {
        # What the orchestrator sent
        _C.PROTOCOL_VERSION: CatalogueEntry(
            "The orchestrator speaks a later version of the protocol than this station.",
            "Nothing where it asks again in an older version by itself; else update the station.",
        ),
        _C.INSTRUCTION_INVALID: CatalogueEntry(
            "The orchestrator sent something that is not an instruction.",
            "Compare the versions of orchestrator and station; look at the orchestrator's log.",
        ),
        _C.INSTRUCTION_UNKNOWN_ORDER: CatalogueEntry(
            "The instruction belongs to a run order that this station has not accepted.",
            "The orchestrator prepares the order first; a restored orchestrator does that by itself.",
        ),
        # The policy repository
        _C.TRUST_UNREACHABLE: CatalogueEntry(
            "The station has never reached the board's policy repository, so it has no policy to go by.",
            "Look at the mirror's address, the proxy and the certificate in station.toml.",
        ),
        _C.TRUST_EXPIRED: CatalogueEntry(
            "What the station knows of the board's policies is too old to rely on.",
            "The board's freshness witness must run and reach the mirror: `pht-board witness`, `pht-board status`.",
        ),
        _C.TRUST_ROLLBACK: CatalogueEntry(
            "The mirror offers an older state of the policy repository than the station has seen before.",
            "The mirror was restored from a backup, or somebody tampers with it: publish again, then find out which.",
        ),
        _C.TRUST_ROOT_EXPIRED: CatalogueEntry(
            "The board's root, which says who its members are, is past its lifetime.",
            "The members sign a new one: `pht-board root`, `pht-board sign --root`; then publish.",
        ),
        _C.TRUST_TARGETS_EXPIRED: CatalogueEntry(
            "The secretary's list of what is in force is past its lifetime.",
            "The secretary publishes again (`pht-board publish`); the witness then vouches for it.",
        ),
        _C.TRUST_ROOT_SKIPPED: CatalogueEntry(
            "A root of the board is missing between the one the station knows and the one that is in force.",
            "Bring every `<n>.root.json` to the mirror (`pht-board publish --to`); if they are there, it withholds one.",
        ),
        _C.TRUST_MIXED: CatalogueEntry(
            "The mirror combines well-signed files of different states of the policy repository.",
            "Publish to the mirror again (`pht-board publish --to`); if it comes back, treat the mirror as compromised.",
        ),
        _C.TRUST_CHANGED: CatalogueEntry(
            "A file of the mirror is not byte for byte the one that the board signed or listed.",
            "Publish to the mirror again (`pht-board publish --to`); if it comes back, treat the mirror as compromised.",
        ),
        _C.TRUST_SIGNATURES_TOO_FEW: CatalogueEntry(
            "A root, or the register of stations, holds fewer signatures of members than it takes.",
            "The missing members sign (`pht-board sign --root`, `pht-board register`), then the secretary publishes.",
        ),
        _C.TRUST_KEY_RETIRED: CatalogueEntry(
            "Something is signed with a key that the board has replaced.",
            "Sign it with the key of now; if nobody of the board used the old one, it is in strange hands.",
        ),
        _C.TRUST_UNVERIFIED: CatalogueEntry(
            "What the mirror offers is not signed by the board that the station has pinned.",
            "Compare the pinned root with the board's; if they are the same, treat the mirror as compromised.",
        ),
        # The policy
        _C.POLICY_MISSING: CatalogueEntry(
            "The board has published no policy of that name and version: what is not permitted is forbidden.",
            "Have the policy signed and published: `pht-board sign`, `pht-board publish`.",
        ),
        _C.POLICY_REVOKED: CatalogueEntry(
            "The board has withdrawn this policy, or a newer version replaces it.",
            "Order under the newest version, or ask the board why it was withdrawn.",
        ),
        _C.POLICY_INVALID: CatalogueEntry(
            "The signed policy is not a valid policy file, or contradicts itself.",
            "Check the file with `pht-board review`, correct it, and have a new version signed.",
        ),
        _C.POLICY_OTHER_BOARD: CatalogueEntry(
            "The policy is another board's; it counts for nothing here.",
            "Have this board's members sign a policy that names their board (`board:` in the file).",
        ),
        _C.POLICY_DIGEST: CatalogueEntry(
            "The run order was written for other bytes than the policy in force.",
            "Write the order again from the published policy: `pht-train order`.",
        ),
        _C.POLICY_SIGNATURES_TOO_FEW: CatalogueEntry(
            "Fewer members of the board have signed the policy than its charter demands.",
            "More members sign (`pht-board sign`), then the secretary publishes again.",
        ),
        _C.POLICY_SIGNER_RETIRED: CatalogueEntry(
            "A signature it would take is of a key that the board has replaced.",
            "Members sign with the keys of the charter in force (`pht-board sign`), then the secretary publishes.",
        ),
        _C.POLICY_SIGNER_ROLE_MISSING: CatalogueEntry(
            "No member has signed in a role that the charter demands, such as clinician or patient representative.",
            "A member who holds the missing role signs (`pht-board sign`).",
        ),
        _C.POLICY_SIGNER_IS_REQUESTER: CatalogueEntry(
            "The requester signed the approval of their own request.",
            "Other members sign; nobody decides on their own request.",
        ),
        _C.POLICY_NOT_YET_VALID: CatalogueEntry(
            "The policy's validity has not begun.", "Wait for its valid_from, and check the station's clock."
        ),
        _C.POLICY_EXPIRED: CatalogueEntry(
            "The policy's validity is over.", "Have a new version signed with a later valid_until."
        ),
        _C.AGREEMENT_EXPIRED: CatalogueEntry(
            "The agreement that the processing rests on has ended.",
            "Renew the agreement, then publish a policy (or a register of stations) that names the new one.",
        ),
        _C.AGREEMENT_OTHER_PROJECT: CatalogueEntry(
            "A hospital's agreement does not cover this project.",
            "Extend the agreement, then publish a register of stations whose entry names this policy too.",
        ),
        _C.REQUESTER_REVOKED: CatalogueEntry(
            "The board has withdrawn the requester: the key orders nothing any more, under any policy.",
            "Ask the board why; a policy with another requester key is a new version, signed again.",
        ),
        _C.PURPOSE_TABLE_MISSING: CatalogueEntry(
            "The board has published no table of purposes, so nobody knows which consents this purpose needs.",
            "The board signs one and publishes it: `pht-board purposes`.",
        ),
        _C.PURPOSE_NOT_PERMITTED: CatalogueEntry(
            "The board's table of purposes does not permit this purpose to this class of requester.",
            "Name the purpose that fits, or ask the board to take it up in its table.",
        ),
        _C.PURPOSE_CONSENTS_TOO_FEW: CatalogueEntry(
            "The policy asks for fewer consents of its patients than the board's table names for this purpose.",
            "Add the consents to data.consent_purposes, and have a new version signed.",
        ),
        _C.STATION_NOT_REGISTERED: CatalogueEntry(
            "A station is not in the board's register of stations.",
            "The board adds it and signs the register: `pht-board register`.",
        ),
        _C.STATION_REVOKED: CatalogueEntry(
            "The board has withdrawn a station: this one, or so many of the order's that too few are left.",
            "Ask the board why; an order for the stations that are left needs a policy that permits so few.",
        ),
        _C.SECURE_AGGREGATION_UNSUPPORTED: CatalogueEntry(
            "The policy demands secure aggregation, which this version cannot do safely yet.",
            "Run it when the project has the protocol; a policy without it says whom that leaves to trust.",
        ),
        _C.INTERFACE_UNSUPPORTED: CatalogueEntry(
            "The train speaks an interface that this station does not serve.",
            "Use an interface that the station's version supports, or update the station.",
        ),
        _C.DOCUMENT_CHANGED: CatalogueEntry(
            "The document is not byte for byte the one whose signatures lie beside it.",
            "Take the file that was signed; or give it a new version, remove the old signatures and have it signed again.",
        ),
        # The run order
        _C.ORDER_INVALID: CatalogueEntry(
            "The run order is not a valid order.",
            "Write it with `pht-train order`; do not edit it afterwards.",
        ),
        _C.ORDER_SIGNATURE: CatalogueEntry(
            "The run order is not signed with the key that the policy names as the requester's.",
            "Sign with that key; a new key takes a new version of the policy.",
        ),
        _C.ORDER_NOT_YET_VALID: CatalogueEntry(
            "The run order was issued in the future.", "Compare the clocks of requester and station."
        ),
        _C.ORDER_EXPIRED: CatalogueEntry("The run order is past its expiry.", "Sign a new order."),
        _C.ORDER_SPENT: CatalogueEntry(
            "This run order was used: its run is over at this station.", "Sign a new order for a new run."
        ),
        _C.ORDER_STATION: CatalogueEntry(
            "The run order does not name this station.", "Name every station that takes part in the order."
        ),
        _C.ORDER_BEYOND_POLICY: CatalogueEntry(
            "The run order asks for more than the policy permits.",
            "Compare rounds, stations, strategy and its parameters, and expiry with the policy, and order again.",
        ),
        _C.ORDER_ROUND: CatalogueEntry(
            "The instruction is for a round that the run order does not have, or that is over.",
            "Start a new run; rounds are done once and in order.",
        ),
        _C.ORDER_KIND: CatalogueEntry(
            "The order or the instruction asks for a stage that this kind of policy does not have.",
            "Order the stages that the policy's kind permits.",
        ),
        _C.ORDER_CONFIG: CatalogueEntry(
            "A hyperparameter is unknown, or outside the range that manifest and policy permit.",
            "Order again with values inside the policy's ranges.",
        ),
        _C.ORDER_STRATEGY: CatalogueEntry(
            "The order's strategy does not go with so few stations, or with a train that does not do its part of it.",
            "Raise minimum_stations or choose another strategy; FedProx takes a train that declares proximal-mu, and a value above 0.",
        ),
        _C.ORDER_WEIGHTS: CatalogueEntry(
            "The weights that were sent are not the ones the run order names, or do not fit the train.",
            "Order with the digest of the very file that was uploaded.",
        ),
        # The train
        _C.MANIFEST_DIGEST: CatalogueEntry(
            "The train's manifest is not the one that the board signed.",
            "Submit the signed bundle, or have the new manifest signed as a new version of the policy.",
        ),
        _C.MANIFEST_INVALID: CatalogueEntry(
            "The train's manifest is not valid, or does not fit the policy.",
            "Check it with `pht-train check`, and have the corrected train signed.",
        ),
        _C.IMAGE_DIGEST: CatalogueEntry(
            "The train's image is not the one that the board signed, byte for byte.",
            "Submit the signed image; any change, however small, is a new train and takes a new signature.",
        ),
        _C.IMAGE_UNAVAILABLE: CatalogueEntry(
            "The train's image cannot be fetched.", "Submit the bundle again: `pht-train submit`."
        ),
        _C.IMAGE_CONFIG: CatalogueEntry(
            "The image's configuration asks for something that no train may have.",
            "Remove the setting that `pht-train check` names, and build again.",
        ),
        _C.IMAGE_LAYER: CatalogueEntry(
            "A layer of the image holds something that no engine should unpack, or more than it may.",
            "Pack the train again: `pht-train pack` names the entry and the reason; build the image without it.",
        ),
    }
)
