"""The weights that a message brings: used only with the digest it names, in the layout of the order's initial ones."""

from dataclasses import dataclass
from pathlib import Path

from policies.documents import digest_of
from policies.errors import NotFoundError, StorageError, WireError
from policies.refusals import RefusalCode, Refused
from policies.wire.arrays import read_layout
from policies.wire.instructions import Blob, Instruction
from station.agent.blobs import BlobClient
from station.runs.prepared import Prepared


@dataclass(frozen=True, slots=True)
class InboundWeights:
    """Takes weights up, from the message itself or from the orchestrator's blobs."""

    blobs: BlobClient

    def take(
        self, instruction: Instruction, arrays: bytes | None, prepared: Prepared
    ) -> Path | Refused | None:
        """Return where a message's weights are now; None for a message without.

        Raises:
            NetworkError: the orchestrator's blobs do not answer.
            StorageError: the disk.
        """
        weights = instruction.weights
        if weights is None:
            return None
        order = prepared.admitted.order
        if order.initial_weights is not None and weights.digest == order.initial_weights.digest:
            return prepared.initial
        if prepared.initial is not None and weights.size > 2 * prepared.initial.stat().st_size:
            return Refused.because(RefusalCode.ORDER_WEIGHTS, "larger than the initial weights can explain")
        path = _place(prepared.work / "inbound", f"{weights.digest.removeprefix('sha256:')}.safetensors")
        try:
            if arrays is not None:
                if digest_of(arrays) != weights.digest:
                    return Refused.because(
                        RefusalCode.ORDER_WEIGHTS, "inline arrays are not what their digest says"
                    )
                _write(path, arrays)
            else:
                self.blobs.fetch(Blob(digest=weights.digest, size=weights.size), path)
            layout = read_layout(path)
        except NotFoundError as error:
            return Refused.because(RefusalCode.ORDER_WEIGHTS, error.message)
        except WireError:
            return Refused.because(RefusalCode.ORDER_WEIGHTS, "not weights, or not what their digest says")
        if prepared.layout is None or layout.tensors != prepared.layout.tensors:
            return Refused.because(RefusalCode.ORDER_WEIGHTS, "another layout than the initial weights")
        return path


def _place(folder: Path, name: str) -> Path:
    """Return where weights go: under their own name, so that half of others' cannot become their beginning.

    They stay for the next message, which may ask for the same; others' are removed.
    """
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
        for entry in folder.iterdir():
            if not entry.name.startswith(name):
                entry.unlink()
    except OSError as error:
        raise _cannot_store(error) from error
    return folder / name


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise _cannot_store(error) from error


def _cannot_store(error: OSError) -> StorageError:
    return StorageError(f"weights cannot be stored ({error.strerror})", hint="Free disk space.")
