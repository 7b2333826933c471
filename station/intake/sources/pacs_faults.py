"""What can go wrong with a PACS, as codes: a report and a log name these and nothing that a PACS said."""

from enum import StrEnum

from policies.errors import UnavailableError


class PacsFault(StrEnum):
    """Why a PACS could not be asked, or gave no answer to work with."""

    UNREACHABLE = "unreachable"
    REJECTED = "association-rejected"
    LOST = "association-lost"
    NOT_OFFERED = "service-not-offered"
    BUSY = "out-of-resources"
    DESTINATION_UNKNOWN = "move-destination-unknown"
    REFUSED = "request-refused"
    FAILED = "unable-to-process"
    ANSWER_UNUSABLE = "answer-unusable"
    TOO_MANY_ANSWERS = "too-many-answers"
    TOO_LARGE = "instance-too-large"
    NOT_AUTHORISED = "not-authorised"
    REDIRECTED = "redirected"

    @property
    def concerns_all(self) -> bool:
        """Whether the next request would fare the same."""
        return self in {
            PacsFault.UNREACHABLE,
            PacsFault.REJECTED,
            PacsFault.NOT_OFFERED,
            PacsFault.DESTINATION_UNKNOWN,
            PacsFault.NOT_AUTHORISED,
            PacsFault.REDIRECTED,
        }


_HINTS = {
    PacsFault.UNREACHABLE: "Check host, port and TLS files of the PACS in station.toml, and the network.",
    PacsFault.REJECTED: "Have the PACS administrator register our AE title, or wait until it is less busy.",
    PacsFault.LOST: "Ask again; the PACS ended the association or did not answer in time.",
    PacsFault.NOT_OFFERED: "The PACS offers no query/retrieve at study root to our AE title, or not this method.",
    PacsFault.BUSY: "Ask again later, or lower the limits of the PACS in station.toml.",
    PacsFault.DESTINATION_UNKNOWN: "Have our receiver's AE title, host and port registered in the PACS.",
    PacsFault.REFUSED: "The PACS's own log says why.",
    PacsFault.FAILED: "The PACS's own log says why.",
    PacsFault.ANSWER_UNUSABLE: "The PACS answered with data sets that cannot be read; its vendor should know.",
    PacsFault.TOO_MANY_ANSWERS: "Ask for a shorter period.",
    PacsFault.TOO_LARGE: "An instance is longer than is taken; leave its study out.",
    PacsFault.NOT_AUTHORISED: "Check user and password or token of the PACS in station.toml.",
    PacsFault.REDIRECTED: "Name the address in station.toml that answers by itself; no redirect is followed.",
}


class PacsError(UnavailableError):
    """A PACS could not be asked, or gave no answer to work with."""

    def __init__(self, fault: PacsFault) -> None:
        super().__init__(f"the PACS: {fault.value}", hint=_HINTS[fault])
        self.fault = fault


def fault_of_status(status: int) -> PacsFault:
    """Return what a failure status of query/retrieve means (PS3.4 tables C.4-1, C.4-2, C.4-3).

    >>> fault_of_status(0xA702).value, fault_of_status(0xA801).value, fault_of_status(0xC123).value
    ('out-of-resources', 'move-destination-unknown', 'unable-to-process')
    """
    if status & 0xFF00 == 0xA700:
        return PacsFault.BUSY
    if status == 0xA801:
        return PacsFault.DESTINATION_UNKNOWN
    if status & 0xF000 == 0xC000:
        return PacsFault.FAILED
    return PacsFault.REFUSED
