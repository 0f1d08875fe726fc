"""How the rehearsals of a plan stand: what alarms rest on. The judgement itself is made where drills are known."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

#: The alarm of a drill that this machine was to hold: it failed, or did not run.
RUN_KEY: Final = "run::drill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """The last drill of a plan, and the next one.

    ``verdict`` is the drill's (``ok``, ``failed``, ``unknown``), None when there is none. ``missed`` is when one was
    due that was not held. ``until`` is when its proof expires. ``unbelievable``: records that cannot be believed.
    """

    drill: str | None = None
    declared: datetime | None = None
    verdict: str | None = None
    until: datetime | None = None
    missed: datetime | None = None
    expired: bool = False
    unbelievable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Worry:
    """What somebody must be told of rehearsals; ``alarms.py`` makes an alarm of it."""

    key: str
    severity: Literal["critical", "warning"]
    what: str
    hint: str
    since: datetime | None
    unknown: bool = False


def worries(one: Rehearsed | None, told: Collection[str]) -> Iterator[Worry]:
    """Every condition of it. A plan that changed since its drill is none: that is said by the status alone.

    ``told`` are the keys of other alarms: what this machine knows of its own runs of drills is not said twice.
    """
    if one is None:
        return
    run_here = RUN_KEY in told
    if one.missed is not None and not run_here:
        last = "none was ever held" if one.declared is None else f"the last one was on {one.declared:%Y-%m-%d}"
        yield Worry(
            key="drill:missed", severity="warning", since=one.missed,
            what=f"a drill was due on {one.missed:%Y-%m-%d} and was not held; {last}",
            hint="Hold it: `recoup drill`. If the daemon should have, `recoup status` says whether it runs.",
        )  # fmt: skip
    elif one.expired and one.until is not None:
        yield Worry(
            key="drill:expired", severity="warning", since=one.until,
            what=f"the proof of the plan expired on {one.until:%Y-%m-%d}",
            hint="Hold a drill: `recoup drill`; and give it a rhythm: drill.schedule in the plan.",
        )  # fmt: skip
    if one.verdict in ("failed", "unknown") and not run_here:
        how = "failed" if one.verdict == "failed" else "could not establish everything"
        yield Worry(
            key="drill:last", severity="warning", since=one.declared, unknown=one.verdict == "unknown",
            what=f"the last drill, {one.drill}, {how}",
            hint=f"See why: `recoup drill --show {one.drill}`. Mend it, and hold another.",
        )  # fmt: skip
    if one.unbelievable:
        yield Worry(
            key="drill:records", severity="critical", since=None,
            what=f"{len(one.unbelievable)} records of drills cannot be believed: {one.unbelievable[0]}",
            hint="Somebody or something changed the repository. Look at it: `recoup drill --list`.",
        )  # fmt: skip
