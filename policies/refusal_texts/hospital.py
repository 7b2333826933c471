"""Refusal texts: what a hospital, its data, its engine and its own records say no to."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.refusals import CatalogueEntry, RefusalCode

_C = RefusalCode

TEXTS: Mapping[RefusalCode, CatalogueEntry] = MappingProxyType(
    {
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
        _C.BUDGET_PRIVACY: CatalogueEntry(
            "The run would cost some of its patients more privacy than the policy or the hospital has left for them.",
            "Order fewer rounds or more noise, or patients who were used less; ask the hospital's data steward.",
        ),
        _C.RESOURCES_BUSY: CatalogueEntry(
            "The station is busy with other trains.", "Wait: the orchestrator asks again."
        ),
        _C.RESOURCES_DISK: CatalogueEntry(
            "The station has no room on its disk for the train's image.",
            "Ask the hospital's operator: `pht-station images list` shows what takes the room.",
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
