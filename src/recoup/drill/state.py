"""Whether a plan is proven: by a drill that passed, for exactly what the plan says today, and not too long ago. Pure.

Any change takes the proof away. What could not be looked at counts as changed: unknown is never ok.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from recoup.drill.model import DrillRecord, PlanIdentity, verdicts
from recoup.kernel.finding import Verdict

#: How far a drill may lie in the future before a clock is taken to be wrong.
SKEW: Final = timedelta(minutes=5)
#: What a part's digest is when it could not be looked at. Never equal to a digest.
UNSEEN: Final = ""
_Name = TypeVar("_Name", bound=str)


class State(enum.StrEnum):
    """How a plan stands."""

    UNVERIFIED = "unverified"  #: never drilled
    STALE = "stale"  #: drilled, then something changed, or the proof expired
    FAILED = "failed"  #: the last drill failed, or could not establish everything
    VERIFIED = "verified"  #: the last drill passed for exactly this plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanState:
    """The state, and why. ``drill`` is the last one; ``until`` is when a proof expires, also one that is gone."""

    state: State
    reasons: tuple[str, ...] = ()
    drill: str | None = None
    declared: datetime | None = None
    until: datetime | None = None

    @property
    def verdict(self) -> Verdict:
        """Ok only when verified; failed when the last drill was bad; else unknown."""
        return {State.VERIFIED: Verdict.OK, State.FAILED: Verdict.FAILED}.get(self.state, Verdict.UNKNOWN)


def identify(version: str | None, parts: Mapping[str, str]) -> PlanIdentity:
    """Given the digest of each part (``UNSEEN`` for what could not be read), return the identity of the whole.

    The hash is the SHA-256 of the parts as one JSON object in ASCII: keys sorted, no space in between.
    """
    text = json.dumps(dict(parts), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    whole = hashlib.sha256(text.encode())
    return PlanIdentity(version=version, hash=whole.hexdigest(), parts=dict(parts))


def changes(before: PlanIdentity, now: PlanIdentity) -> tuple[str, ...]:
    """What is not as it was, a phrase each; empty when all is the same and was seen both times."""
    said = []
    for name in sorted({*before.parts, *now.parts}):
        old, new = before.parts.get(name), now.parts.get(name)
        if new == UNSEEN:
            said.append(f"{name} could not be looked at now")
        elif old == UNSEEN:
            said.append(f"{name} was not looked at in the drill")
        elif old is None:
            said.append(f"{name} was not part of the drill")
        elif new is None:
            said.append(f"{name} is gone")
        elif old != new:
            said.append(f"{name} changed")
    return tuple(said)


def plan_state(now_is: PlanIdentity, records: Sequence[DrillRecord], now: datetime, *, expires: timedelta) -> PlanState:
    """Judge the plan as it is now by the last of its drills. A later failure counts more than an earlier success."""
    last = max(records, key=lambda one: (one.declared, one.id), default=None)
    if last is None:
        return PlanState(state=State.UNVERIFIED, reasons=("it was never rehearsed",))
    until = last.declared + expires

    def said(state: State, *reasons: str) -> PlanState:
        return PlanState(state=state, reasons=reasons, drill=last.id, declared=last.declared, until=until)

    if last.verdict is not Verdict.OK:
        bad = [f"{name}: {verdict}" for name, verdict in verdicts(last) if verdict is not Verdict.OK]
        return said(State.FAILED, *bad)
    if last.declared > now + SKEW:
        return said(State.STALE, "the last drill is of the future: a clock is wrong")
    reasons = list(changes(last.plan, now_is))
    if now > until:
        reasons.append("the proof expired")
    return said(State.STALE, *reasons) if reasons else said(State.VERIFIED)


def missed(due: datetime | None, records: Sequence[DrillRecord], now: datetime, *, grace: timedelta) -> bool:
    """Whether a drill was due at ``due`` (the last moment of its schedule) and none was declared since.

    A drill counts for the moment when it was declared at most ``grace`` before it: somebody was early.
    """
    if due is None or now <= due + grace:
        return False
    return not any(due - grace <= one.declared <= now for one in records)


def next_situation(wanted: Sequence[_Name], records: Sequence[DrillRecord]) -> _Name | None:
    """Which of the situations that a plan wants rehearsed comes next: one that never was, else the one longest ago.

    Of several, the one that is named first. None when none is wanted.
    """
    last: dict[str, datetime] = {}
    for record in records:
        last[record.situation] = max(record.declared, last.get(record.situation, record.declared))
    never = [one for one in wanted if one not in last]
    return never[0] if never else min(wanted, key=lambda one: last[one], default=None)
