"""How fresh the proofs of copies are: what ``recoup status`` shows of it, and what alarms rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A proof that the plan wants renewed again and again, for one kind of copy of a service.

    ``last`` is when any copy of the kind reached the grade last; at ``due`` that is too old.
    """

    kind: str
    grade: str
    last: datetime | None
    due: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The copy of a kind that reached a grade last. ``rank`` orders grades: a greater one includes the lesser ones."""

    kind: str
    grade: str
    rank: int
    id: str
    when: datetime
    expires: datetime


def best(proofs: Sequence[Latest], now: datetime) -> Latest | None:
    """The highest grade whose proof still holds, of those the newest. None: nothing is proven any more."""
    fresh = [one for one in proofs if one.expires >= now]
    return max(fresh, key=lambda one: (one.rank, one.when), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageFacts:
    """When the stored bytes of all copies were read and matched last. ``within`` is what the plan wants, if it does."""

    total_bytes: int
    oldest: datetime | None
    where: str  #: of the byte that was read longest ago: a repository, an artefact, an offset
    late_bytes: int = 0
    within: timedelta | None = None
