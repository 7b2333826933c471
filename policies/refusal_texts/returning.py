"""Refusal texts: what a train did, and what of its answer does not leave."""

from collections.abc import Mapping
from types import MappingProxyType

from policies.refusals import CatalogueEntry, RefusalCode

_C = RefusalCode
_BOARD = "Ask the board's secretary."
_RESEARCHER_FIXES = "Correct the train, have its new image signed, and order the run again."

TEXTS: Mapping[RefusalCode, CatalogueEntry] = MappingProxyType(
    {
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
        _C.TRAIN_PATIENTS_FAILED: CatalogueEntry(
            "The train failed for more patients than the policy or the hospital lets it.",
            "Run `pht-train check`; declare error codes for what patients' images may lack.",
        ),
        _C.TRAIN_FAILED: CatalogueEntry(
            "The train gave no answer that may leave. Under differential privacy a station does not say which way it failed, or which "
            "rule withheld its answer: a train could choose that.",
            "Run `pht-train check`; what happened is in the hospital's audit, for its operator.",
        ),
        _C.TRAIN_FAILED_TOO_OFTEN: CatalogueEntry(
            "Three messages of this run failed at the station, so the run ended there.", _RESEARCHER_FIXES
        ),
        _C.RUN_TIME_SPENT: CatalogueEntry(
            "The run's containers have used up the hours that its policy grants at a station.",
            f"Ask for less work per run, or for a policy with more run_hours. {_BOARD}",
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
            "Ask the board for a release.maximum_bytes that holds it (`pht-board draft --weights` works it out from the initial weights), "
            "or return less.",
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
            "A station sent a table that the train does not declare.",
            "Ask the hospital which version its station runs.",
        ),
        _C.RELEASE_TABLE_SHAPE: CatalogueEntry(
            "A station sent a table of another shape, or of numbers that none of its measure can be.",
            "Ask the hospital which version its station runs.",
        ),
        _C.RELEASE_CELL_TOO_SMALL: CatalogueEntry(
            "A cell of the table counts fewer patients than the minimum, and nothing can be told that does not tell it.",
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
        _C.RELEASE_ROWS_SHAPE: CatalogueEntry(
            "The train did not return one row, and one only, of each patient that it was given.",
            _RESEARCHER_FIXES,
        ),
        _C.RELEASE_DOMINATED: CatalogueEntry(
            "One or two patients make up most of a number, so that it would tell theirs.",
            "Use coarser categories or narrower bounds, or more patients.",
        ),
        _C.RELEASE_DIFFERENCE: CatalogueEntry(
            "Beside what was released to the same requester before, it would tell of a few patients by subtraction.",
            "Use the earlier result, or order again when more patients have come.",
        ),
        _C.RELEASE_MEMBERSHIP: CatalogueEntry(
            "The update tells the patients that it was trained on from others better than the policy permits.",
            "Train less on the same patients: fewer epochs, a lower learning rate, more regularisation or augmentation.",
        ),
        _C.RELEASE_UNSCORED: CatalogueEntry(
            "The policy bounds how well an update tells members, and the train gave no scores that this can be seen from.",
            "Run `pht-train check` with the policy: it says what is wrong with the answer to 'score'.",
        ),
        # A person's word on a release
        _C.REVIEW_PENDING: CatalogueEntry(
            "What the train returned waits for a person at the hospital to release it.",
            "Wait: the orchestrator asks again.",
        ),
        _C.REVIEW_WITHHELD: CatalogueEntry(
            "A person at the hospital looked at what would leave, and withheld it.",
            "Ask the hospital's data steward for the reason.",
        ),
        _C.REVIEW_TIMEOUT: CatalogueEntry(
            "Nobody at the hospital released what the train returned in the time that the policy gives for it.",
            "Ask the hospital's data steward, and order the run again.",
        ),
        _C.RELEASE_PURGED: CatalogueEntry(
            "It was released before, and the hospital keeps what it released no longer than it says.",
            "Use the result of the run; what was released once is not made again.",
        ),
    }
)
