"""Which copies a repository lacks. Pure: what it holds, what the others hold, and what its rules would keep.

A repository should hold what it would not remove at once. What only stays because pruning is stopped (nothing newer is
proven, the last backup failed, a clock is wrong) is no reason to bring what no rule keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from recoup.repository.retention import CLOCK_TOLERANCE, Copy, Decision, Proof, Snapshot, decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanting:
    """What is to be brought, each after all that it depends on, the oldest first; and what cannot be, with the reason.

    ``decisions`` are those of the whole as it will be then.
    """

    bring: tuple[Copy, ...]
    left: tuple[tuple[Copy, str], ...]
    decisions: tuple[Decision, ...]


def decide_wanting(snapshot: Snapshot, others: Sequence[Copy], fits: Collection[str]) -> Wanting:
    """Given what a repository holds, and the copies of ``others`` that it lacks.

    ``fits`` are the services and kinds (``service/kind``) it takes; what else others hold counts for nothing.
    """
    limit = snapshot.now + CLOCK_TOLERANCE
    held = [one for one in snapshot.copies if one.proof is not Proof.BAD and one.begun <= limit]
    there = {one.id for one in snapshot.copies}
    lacking = [one for one in others if one.id not in there and f"{one.service}/{one.kind}" in fits]
    late = [(one, "it is dated in the future: a clock is wrong") for one in lacking if one.begun > limit]
    copies = [replace(one, proof=Proof.GOOD) for one in (*held, *lacking) if one.begun <= limit]
    decisions = decide(replace(snapshot, copies=copies, blocked={}, frozen=None, locked={}))
    wanted = {one.copy.id: one.copy for one in decisions if one.keep and one.copy.id not in there}
    bring: list[Copy] = []
    left: list[tuple[Copy, str]] = []
    ready = set(there)
    open_ends = sorted(wanted.values(), key=lambda one: (one.begun, one.id))
    while True:
        free = [one for one in open_ends if ready.issuperset(one.depends_on)]
        if not free:
            break
        bring += free
        ready.update(one.id for one in free)
        open_ends = [one for one in open_ends if one.id not in ready]
    for copy in open_ends:
        missing = next(link for link in copy.depends_on if link not in ready)
        left.append((copy, f"it depends on {missing}, which does not go there or is in no repository"))
    return Wanting(bring=tuple(bring), left=(*left, *late), decisions=decisions)
