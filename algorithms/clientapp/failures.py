"""What a train cannot do and has a code for.

The runtime in the container answers with `pht_error_code` of whatever exception has one; outside the hospital that code is all
there is to see, and only where the manifest's `error_codes` declare it and the policy grants it. The message goes to the train's
own log, which stays: it says what to do, and names no patient.
"""


class TrainError(ValueError):
    """A failure that the manifest declares.

    Args:
        code: one of the manifest's `error_codes`.
        message: what is wrong and what to do, for the hospital's own log.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.pht_error_code = code
