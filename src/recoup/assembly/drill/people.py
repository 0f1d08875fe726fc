"""The people's side of a drill: who is told that it is one, who may not help, and what chance chooses."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from recoup.assembly.system import System
from recoup.assembly.watch.alarms import tell
from recoup.channels.message import Message
from recoup.drill.model import DrillRecord, Participant
from recoup.kernel.errors import RecoupError, UsageError
from recoup.kernel.finding import Verdict
from recoup.kernel.units import show_duration
from recoup.plan.model import Plan
from recoup.plan.people import Member
from recoup.recovery.runbook import REHEARSED, Situation
from recoup.recovery.windows import ServiceWindows


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """What chance chose. The same seed, plan and windows choose the same."""

    seed: int
    situation: Situation
    instant: datetime | None
    absent: str | None


def choose_by_chance(
    seed: int, situations: Sequence[Situation], windows: Sequence[ServiceWindows], roles: Sequence[str], now: datetime
) -> Surprise:
    """Choose a situation, an instant that every database can reach (None: the newest), and a role that is absent."""
    # Not for secrets: it has to be the same again when the seed is given.
    chance = random.Random(seed)  # noqa: S311
    can = [one for one in situations if one in REHEARSED] or list(REHEARSED)
    situation = chance.choice(sorted(can))
    absent = chance.choice(sorted(roles)) if roles else None
    spans = _common(windows, now)
    instant = None
    if spans:
        begin, end = chance.choice(spans)
        instant = begin + timedelta(seconds=int(chance.random() * (end - begin).total_seconds()))
    return Surprise(seed=seed, situation=situation, instant=instant, absent=absent)


def _common(windows: Sequence[ServiceWindows], now: datetime) -> list[tuple[datetime, datetime]]:
    """The spans of time that all databases reach through their logs; none when one of them has no log."""
    databases = [one for one in windows if one.engine in ("postgres", "redis")]
    spans: list[tuple[datetime, datetime]] | None = None
    for one in databases:
        mine = [(window.begin, min(window.end, now)) for window in one.windows]
        if spans is None:
            spans = mine
        else:
            spans = [(max(a, c), min(b, d)) for a, b in spans for c, d in mine if max(a, c) < min(b, d)]
    return [(begin, end) for begin, end in spans or [] if begin < end]


def require_roles(plan: Plan, absent: Collection[str]) -> None:
    """Raise ``UsageError`` for a role that the plan does not know."""
    for role in absent:
        if role not in plan.team:
            known = ", ".join(plan.team) or "none"
            raise UsageError(f"the plan's team has no role {role!r}", hint=f"It has: {known}.")


def who_does_it(team: Mapping[str, Member], absent: Collection[str]) -> str | None:
    """Who is asked: the first of the team that is there, or their deputy. None when nobody is left."""
    for role, member in team.items():
        if role not in absent:
            return f"{member.name} ({role})"
        if member.deputy is not None and member.deputy in team and member.deputy not in absent:
            return f"{team[member.deputy].name} ({member.deputy}, for {role})"
    return None


def participants(team: Mapping[str, Member], absent: Collection[str], *, asked: bool) -> tuple[Participant, ...]:
    """The team as it took part."""
    doing = who_does_it(team, absent) if asked else None
    found = []
    for role, member in team.items():
        part = ""
        if role in absent:
            there = member.deputy is not None and member.deputy not in absent
            part = f"absent; {member.deputy} takes over" if there else "absent, and nobody takes over"
        elif doing is not None and doing.startswith(f"{member.name} ({role}"):
            part = "asked to do what people do"
        found.append(Participant(role=role, name=member.name, part=part))
    return tuple(found)


def channels_of(plan: Plan) -> tuple[str, ...]:
    """Which channels hear of a drill: those that would hear of the disaster."""
    critical, updates = plan.communication.critical, plan.communication.updates
    named = [
        *(critical.notify if critical else ()),
        *(updates.notify if updates else ()),
        *(updates.to if updates else ()),
    ]
    return tuple(dict.fromkeys(one for one in (*named, *(plan.alarms.to or ())) if one in plan.channels))


def announce(system: System, situation: str, *, absent: Sequence[str]) -> str | None:
    """Tell the team that a drill begins. What went wrong, or None."""
    gone = f" As in real life, somebody is missing: {', '.join(absent)} may not help." if absent else ""
    body = (
        f"THIS IS A DRILL. Nothing is wrong with {system.plan.system}.\n\n"
        f"A recovery from {situation} is rehearsed now, in an isolated copy. Production goes on.{gone}\n"
    )
    return _tell(system, Message(title=f"Drill begins: {system.plan.system}", body=body, mood="info"))


def announce_end(system: System, record: DrillRecord) -> str | None:
    """Tell the team how the drill ended. What went wrong, or None."""
    took = "users were not served again" if record.rto.measured is None else show_duration(record.rto.measured)
    lost = "not known" if record.lost is None else show_duration(record.lost)
    body = (
        f"THIS WAS A DRILL. It is over.\n\nSituation: {record.situation}\nResult: {record.verdict.value}\n"
        f"Time to recovery: {took}\nLost data: {lost}\n\nAll of it: recoup drill --show {record.id}\n"
    )
    mood = {Verdict.OK: "success", Verdict.FAILED: "failure", Verdict.UNKNOWN: "warning"}[record.verdict]
    return _tell(system, Message(title=f"Drill ended: {system.plan.system}", body=body, mood=mood))  # type: ignore[arg-type]


def announce_none(system: System, failure: RecoupError) -> str | None:
    """Tell the team that the drill did not take place. What went wrong, or None."""
    body = f"THIS WAS A DRILL. It could not be held: {failure.message}\n"
    return _tell(system, Message(title=f"No drill: {system.plan.system}", body=body, mood="warning"))


def _tell(system: System, message: Message) -> str | None:
    channels = channels_of(system.plan)
    if not channels:
        return "the plan names no channel that would hear of a disaster (communication.critical.notify)"
    return tell(system, channels, message)
