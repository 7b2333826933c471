"""The catalogue of refusal texts: what each code means and what to do about it, for people outside a station.

One text per code, the same wherever it shows. A text never quotes data, a path, or anything a train wrote. A test holds
the catalogue to `policies.refusals.RefusalCode`: no code without a text, no text without a code.
"""

from collections.abc import Mapping
from types import MappingProxyType

from policies.refusals import CatalogueEntry, RefusalCode

_C = RefusalCode
_BOARD = "Ask the board's secretary."
_RESEARCHER_FIXES = "Correct the train, have its new image signed, and order the run again."

CATALOGUE: Mapping[RefusalCode, CatalogueEntry] = MappingProxyType(
    {
        # What the orchestrator sent
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
        _C.DIFFERENTIAL_PRIVACY_UNSUPPORTED: CatalogueEntry(
            "The policy demands differential privacy, which this station cannot apply yet.",
            "Update the station once its version supports it.",
        ),
        _C.REVIEW_UNSUPPORTED: CatalogueEntry(
            "The policy demands that a person looks at each release, which this station cannot arrange yet.",
            "Update the station once its version supports it.",
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
            "Compare rounds, stations, strategy and expiry with the policy, and order again.",
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
        # The hospital
        _C.HOSPITAL_COLLECTION: CatalogueEntry(
            "The hospital does not offer a collection that the policy names.",
            "Ask the hospital's data steward which collections it offers.",
        ),
        _C.HOSPITAL_PURPOSE: CatalogueEntry(
            "The hospital does not offer its data for this purpose.", "Ask the hospital's data steward."
        ),
        _C.HOSPITAL_REQUESTER_CLASS: CatalogueEntry(
            "The hospital does not offer its data to this class of requester.",
            "Ask the hospital's data steward.",
        ),
        _C.HOSPITAL_COUNTRY: CatalogueEntry(
            "The hospital does not offer its data to requesters from this country.",
            "Ask the hospital's data steward.",
        ),
        _C.HOSPITAL_RESOURCES: CatalogueEntry(
            "The train asks for more memory, CPU or GPU than policy and hospital give.",
            "Ask for less in the manifest, or ask the hospital's operator.",
        ),
        _C.HOSPITAL_QUIET_HOURS: CatalogueEntry(
            "The hospital runs no trains at this hour.", "Wait: the run goes on when the quiet hours end."
        ),
        _C.HOSPITAL_HELD: CatalogueEntry(
            "The hospital's operator holds this train.", "Ask the hospital's operator why."
        ),
        _C.OPERATOR_PENDING: CatalogueEntry(
            "The hospital's operator has not decided yet.", "Wait, or ask the operator: `pht-station trains`."
        ),
        # Consent and data
        _C.CONSENT_STALE: CatalogueEntry(
            "The hospital's record of consent is older than the hospital accepts.",
            "The data steward imports consent again.",
        ),
        _C.CONSENT_UNKNOWN: CatalogueEntry(
            "The hospital has no record of consent for this data.", "The data steward imports consent."
        ),
        _C.CONSENT_WITHDRAWN: CatalogueEntry(
            "A patient withdrew, or images were taken back; the run stopped and goes on without them.",
            "Nothing: the station freezes the cohort again.",
        ),
        _C.DATA_MODALITY: CatalogueEntry(
            "The train asks for a modality that policy or station do not give.",
            "Compare the manifest's modalities with the policy's.",
        ),
        _C.DATA_FIELDS: CatalogueEntry(
            "The train asks for clinical fields that policy or station do not give.",
            "Compare the manifest's clinical fields with the policy's.",
        ),
        _C.DATA_TOO_FEW_PATIENTS: CatalogueEntry(
            "The hospital has fewer suitable patients than the policy demands.",
            "Order without this station, or wait until it has more.",
        ),
        _C.DATA_NOT_READY: CatalogueEntry(
            "The hospital's data is not ready for this train.", "Ask the hospital's data steward."
        ),
        _C.DATA_ANONYMITY: CatalogueEntry(
            "In the clinical table that the train would see, too few patients look alike.",
            "Ask for fewer clinical fields, or for those with wider bands.",
        ),
        # Budgets and resources
        _C.BUDGET_RUNS: CatalogueEntry(
            "All runs that the policy permits have been made.",
            "Ask the board for a new version of the policy.",
        ),
        _C.BUDGET_RELEASES: CatalogueEntry(
            "The run would take more releases than the policy has left at this station.",
            "Order fewer rounds, or ask the board for a new version of the policy.",
        ),
        _C.RESOURCES_BUSY: CatalogueEntry(
            "The station is busy with other trains.", "Wait: the orchestrator asks again."
        ),
        _C.NETWORK_UNAVAILABLE: CatalogueEntry(
            "The station could not move the weights to or from the orchestrator.",
            "It is asked again by itself; look at the network between station and orchestrator if it goes on.",
        ),
        _C.ENGINE_UNAVAILABLE: CatalogueEntry(
            "The station's container engine does not answer.", "The operator runs `pht-station status`."
        ),
        _C.ENGINE_UNFIT: CatalogueEntry(
            "The station's container engine cannot enforce a limit that every train runs under.",
            "The operator runs `pht-station status`; rootless engines on cgroup v1 cannot limit memory.",
        ),
        _C.SANDBOX_ARGUMENT: CatalogueEntry(
            "A container was asked for with an option that no train may have.",
            "This is a mistake in the program: please report it.",
        ),
        _C.STATE_UNCERTAIN: CatalogueEntry(
            "The station cannot be sure of its own records, so it permits nothing.",
            "The operator reconciles them with the countersigned heads: `pht-station audit`.",
        ),
        # The train's behaviour
        _C.TRAIN_CRASHED: CatalogueEntry(
            "The train's program ended by itself.",
            "Run `pht-train check`; the output stays with the operator.",
        ),
        _C.TRAIN_TIMEOUT: CatalogueEntry(
            "The train did not answer in the time its manifest gives.",
            "Raise message_timeout_s in the manifest, or ask for less work per round.",
        ),
        _C.TRAIN_OUT_OF_MEMORY: CatalogueEntry(
            "The train used more memory than its manifest asks for.",
            "Raise memory_mib in the manifest; scratch counts as memory.",
        ),
        _C.TRAIN_PROTOCOL: CatalogueEntry(
            "The train's answer is not what the container protocol prescribes.",
            "Use the runtime of the base image, unchanged; run `pht-train check`.",
        ),
        _C.TRAIN_DECLARED_ERROR: CatalogueEntry(
            "The train ended with an error code that its manifest declares.",
            "The manifest's author knows what the code means.",
        ),
        _C.TRAIN_FAILED_TOO_OFTEN: CatalogueEntry(
            "Three messages of this run failed at the station, so the run ended there.", _RESEARCHER_FIXES
        ),
        _C.RUN_STOPPED: CatalogueEntry(
            "The run was stopped at this station.",
            "Ask the hospital's operator; order a new run if it may go on.",
        ),
        # The egress guard
        _C.RELEASE_UNPARSEABLE: CatalogueEntry(
            "What the train returned cannot be read, so none of it leaves.",
            "Return arrays as safetensors through the base image's runtime; run `pht-train check`.",
        ),
        _C.RELEASE_TOO_LARGE: CatalogueEntry(
            "What the train returned is larger than the policy permits.",
            "Return less, or ask the board for a higher maximum_bytes.",
        ),
        _C.RELEASE_TENSOR_EXTRA: CatalogueEntry(
            "The train returned a tensor that its manifest does not declare.", _RESEARCHER_FIXES
        ),
        _C.RELEASE_TENSOR_MISSING: CatalogueEntry(
            "The train did not return a tensor that its manifest declares.", _RESEARCHER_FIXES
        ),
        _C.RELEASE_TENSOR_SHAPE: CatalogueEntry(
            "A returned tensor has another shape than declared.", _RESEARCHER_FIXES
        ),
        _C.RELEASE_TENSOR_DTYPE: CatalogueEntry(
            "A returned tensor has another number type than declared.", _RESEARCHER_FIXES
        ),
        _C.RELEASE_TENSOR_NOT_FINITE: CatalogueEntry(
            "A returned tensor holds infinity or not-a-number.",
            "Lower the learning rate or clip gradients; run `pht-train check`.",
        ),
        _C.RELEASE_TENSOR_RANGE: CatalogueEntry(
            "A returned tensor changed by more than the policy permits.",
            "Lower the learning rate, or ask the board for a higher maximum_absolute.",
        ),
        _C.RELEASE_METRIC_EXTRA: CatalogueEntry(
            "The train returned a metric that is not declared and permitted.", _RESEARCHER_FIXES
        ),
        _C.RELEASE_METRIC_MISSING: CatalogueEntry(
            "The train did not return a metric that its manifest declares as required.", _RESEARCHER_FIXES
        ),
        _C.RELEASE_METRIC_RANGE: CatalogueEntry(
            "A returned metric lies outside its declared range.", _RESEARCHER_FIXES
        ),
        _C.RELEASE_TABLE_EXTRA: CatalogueEntry(
            "The train returned a table that is not declared and permitted.", _RESEARCHER_FIXES
        ),
        _C.RELEASE_TABLE_MISSING: CatalogueEntry(
            "The train did not return a table that its manifest declares.", _RESEARCHER_FIXES
        ),
        _C.RELEASE_TABLE_SHAPE: CatalogueEntry(
            "A returned table has another shape than declared.", _RESEARCHER_FIXES
        ),
        _C.RELEASE_CELL_TOO_SMALL: CatalogueEntry(
            "A cell of a returned table counts fewer patients than the policy's minimum cell count.",
            "Use coarser categories, or more patients.",
        ),
        _C.RELEASE_TOO_FEW_PATIENTS: CatalogueEntry(
            "The result rests on fewer patients than the policy's minimum.",
            "The metric is withheld at this station; use a larger split or more patients.",
        ),
        _C.RELEASE_NOT_PERMITTED: CatalogueEntry(
            "The policy permits no release of this kind.",
            f"Compare the manifest's outputs with the policy. {_BOARD}",
        ),
        # Faults of the station itself
        _C.STATION_FAULT: CatalogueEntry(
            "The station met a fault of its own.", "Ask the hospital's operator, naming the correlation id."
        ),
        _C.STATION_STORAGE: CatalogueEntry(
            "The station cannot write its records, so it does nothing that they would have to hold.",
            "The hospital's operator frees space on the station's disk.",
        ),
        # A station's records, held against what was countersigned
        _C.STATION_RESTORED: CatalogueEntry(
            "The station's records are older than, or other than, what it stated before: a backup was restored, or a "
            "copy of it runs elsewhere.",
            "The hospital's operator runs `pht-station reconcile`, then imports the consent register anew.",
        ),
        _C.STATION_UNCONFIRMED: CatalogueEntry(
            "The station has started and cannot confirm yet that its records are the newest it ever stated.",
            "The board's witness must run and reach the orchestrator: `pht-board witness`, `pht-station audit heads`.",
        ),
        _C.STATEMENT_FORK: CatalogueEntry(
            "A station made two statements that exclude each other: its records were rewritten, or two copies run.",
            "Both statements are kept. The hospital finds out which copy is the station, stops the other and reconciles.",
        ),
        _C.STATEMENT_ROLLBACK: CatalogueEntry(
            "A station stated less than it had stated before: it was restored from a backup and not reconciled.",
            "Both statements are kept. The hospital runs `pht-station reconcile`.",
        ),
    }
)


def text_of(code: str) -> CatalogueEntry:
    """Return the text of a code that came from elsewhere; an unknown one is named as such."""
    try:
        return CATALOGUE[RefusalCode(code)]
    except ValueError:
        return CatalogueEntry(
            "A reason that this version does not know.", "Compare the versions of the programs."
        )
