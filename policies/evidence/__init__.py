"""What a run leaves as evidence: the pack's parts, how it is written, and how it is verified from the board's root alone."""

from policies.evidence.verification import Finding, Verdict, verify_pack

__all__ = ["Finding", "Verdict", "verify_pack"]
