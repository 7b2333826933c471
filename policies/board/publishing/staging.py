"""What the secretary stages for a publication: signed files as they lie in a folder."""

from pathlib import Path

from policies.board.documents.documents_in import read_file
from policies.board.signing.opinions_desk import opinions_beside
from policies.board.signing.signing_desk import envelope_path, refuse_other_bytes
from policies.charter import POLICY_PAYLOAD_TYPE, REGISTER_PAYLOAD_TYPE
from policies.errors import NotFoundError, TrustError
from policies.purposes import PURPOSES_PAYLOAD_TYPE
from policies.signing import unsafe_payload
from policies.trust.repository import BoardRepository

_ENVELOPE = ".dsse.json"
_KINDS = {"policy": POLICY_PAYLOAD_TYPE, "register": REGISTER_PAYLOAD_TYPE, "purposes": PURPOSES_PAYLOAD_TYPE}


def stage(board: BoardRepository, path: Path) -> None:
    """Stage a signed document; with a policy, the opinions of members that lie beside it.

    Args:
        board: the repository.
        path: the document, or the envelope beside it.

    Raises:
        NotFoundError: nobody has signed it.
        TrustError: no document that members sign, or an opinion that is not a member's own.
        RefusedError: it does not bind, its version does not go up, or the document was changed after it was signed.
    """
    document = path.with_name(path.name.removesuffix(_ENVELOPE))
    if not envelope_path(document).exists():
        raise NotFoundError(
            f"{document.name}: no signatures lie beside it ({envelope_path(document).name})",
            hint="Members sign it first: `pht-board sign`, `pht-board register` or `pht-board purposes`.",
        )
    envelope = read_file(envelope_path(document))
    if document.exists() and (kind := _payload_type(envelope)) is not None:
        # The secretary reads the document, stations read the envelope: it is one text or none.
        refuse_other_bytes(document.name, read_file(document), unsafe_payload(envelope, _KINDS[kind]))
    match _payload_type(envelope):
        case "policy":
            board.add_policy(envelope)
            for opinion in opinions_beside(document):
                board.add_opinion(read_file(opinion))
        case "register":
            board.set_register(envelope)
        case "purposes":
            board.set_purposes(envelope)
        case _:
            raise TrustError(f"{path.name}: no signed policy, register of stations or table of purposes")


def _payload_type(envelope: bytes) -> str | None:
    for kind, payload_type in _KINDS.items():
        try:
            unsafe_payload(envelope, payload_type)
        except TrustError:
            continue
        return kind
    return None
