"""Who counts as one requester: whoever shares a key or an organisation's name with somebody who does.

Two policies, two versions, the development role and a renamed organisation are one requester as long as the key or the name
stays; through them, what was asked under the name before counts too. Who takes another key and another name at once is a new one
here: where that is to be feared, `egress.compare` says to compare with everyone.
"""

import unicodedata
from collections.abc import Iterable

Named = tuple[str, str]
"""A signing key and an organisation's name, as a policy has them."""


def plain(name: str) -> str:
    """Return a name without what writing it differently changes.

    >>> plain("UMC Amstel (Radiologie)") == plain("umc amstel, radiologie")
    True
    """
    return "".join(sign for sign in unicodedata.normalize("NFKC", name).casefold() if sign.isalnum())


def same_requester(who: Named, known: Iterable[Named]) -> frozenset[Named]:
    """Return all of the known that are the same requester, over any number of steps.

    >>> known = {("k1", "A"), ("k1", "B"), ("k2", "b"), ("k3", "C")}
    >>> sorted(same_requester(("k2", "B"), known))
    [('k1', 'A'), ('k1', 'B'), ('k2', 'b')]
    """
    rest = set(known)
    keys, names = {who[0]}, {plain(who[1])}
    found: set[Named] = set()
    while more := {one for one in rest if one[0] in keys or plain(one[1]) in names}:
        found |= more
        rest -= more
        keys |= {one[0] for one in more}
        names |= {plain(one[1]) for one in more}
    return frozenset(found)
