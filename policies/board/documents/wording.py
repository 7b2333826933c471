"""What a repository holds, said in sentences: opinions of members, and what was withdrawn."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.trust.revocations import RevocationList
    from policies.trust.verification import MemberOpinion


def opinion_in_words(found: "MemberOpinion") -> str:
    """Return what a member says of a policy, as one sentence and the member's own."""
    says = "dissents" if found.opinion.verdict == "dissent" else "approves under conditions"
    return f"{found.member.name} ({found.member.role}) {says}: {' '.join(found.opinion.text.split())}"


def withdrawals_in_words(found: "RevocationList") -> tuple[str, ...]:
    """Return everything that was withdrawn, each with its reason."""
    return (
        *(f"{entry.policy_id} version {entry.version}: {entry.reason}" for entry in found.revoked),
        *(f"requester {entry.key}: {entry.reason}" for entry in found.requesters),
        *(f"station {entry.name}: {entry.reason}" for entry in found.stations),
    )
