"""What may expire, and why everything else stays. Pure: one decision for every copy, over a snapshot of one repository.

The rules only say what they *keep*; a copy expires when nothing keeps it, and never

- below a minimum of newest good copies of its service and kind, of which there is always one;
- under a hold, or as the copy from which the held time is reached;
- while something that stays depends on it;
- while the newest of its service and kind is failed or unproven, or one of them is dated in the future;
- when the plan does not know its service, or this version its kind.

How old a copy is, is measured against the newest one of its service and kind, never against the clock: periods are
counted by the copies that exist (as restic and borg do), and a clock that jumps makes nothing old.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from recoup.kernel import clock
from recoup.kernel.units import show_duration

#: The kinds whose copies stand alone or name what they depend on. All others stay.
KINDS: Final = frozenset({"base", "incremental", "dump", "rdb", "files", "stack", "images"})
#: How far two clocks that are right may differ.
CLOCK_TOLERANCE: Final = timedelta(minutes=10)


class Proof(enum.StrEnum):
    """What is known of a copy in this repository."""

    GOOD = "good"  #: verified as far as the plan asks
    UNPROVEN = "unproven"  #: read back when it was taken, and nothing more is known
    BAD = "bad"  #: a verification failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One artefact of the repository. Times are aware."""

    id: str
    service: str
    kind: str
    begun: datetime
    ended: datetime
    proof: Proof = Proof.UNPROVEN
    depends_on: tuple[str, ...] = ()
    replaced: bool = False  #: what a restore replaced: kept by the same rules, and counted apart

    @property
    def group(self) -> Group:
        """What it is counted with."""
        return (self.service, self.kind, self.replaced)


Group = tuple[str, str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How long the copies of one service are kept.

    ``counts`` is how many periods, by ``last``, ``hourly`` … ``yearly``. ``keep`` is an age instead of counts. When
    there is neither, nothing expires.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    keep: timedelta | None = None
    minimum: int = 2
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Nothing that begins at ``begins`` or later expires, nor what it takes to go back there. None: nothing at all."""

    name: str
    begins: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is known of one repository at ``now``.

    ``blocked`` says why nothing of a service and kind may expire (its last backup failed), ``frozen`` why nothing at
    all may. ``reach`` is, by service and kind, the oldest instant that must stay reachable by replaying a log onto a
    copy. ``locked`` is until when the store itself keeps a copy, by id, as far as it was asked.
    """

    copies: Sequence[Copy]
    rules: Mapping[str, Rules]
    now: datetime
    holds: Sequence[Hold] = ()
    blocked: Mapping[tuple[str, str], str] = field(default_factory=dict)
    frozen: str | None = None
    reach: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    locked: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a copy stays, and all the reasons there are, in words."""

    copy: Copy
    keep: bool
    reasons: tuple[str, ...]


def decide(snapshot: Snapshot) -> tuple[Decision, ...]:
    """One decision for each copy, newest first. What must stay for one reason is told with all of its reasons."""
    reasons: dict[str, list[str]] = {copy.id: [] for copy in snapshot.copies}
    groups: dict[Group, list[Copy]] = defaultdict(list)
    for copy in sorted(snapshot.copies, key=_age, reverse=True):
        groups[copy.group].append(copy)
    without: dict[Group, str] = {}
    for group, copies in groups.items():
        for identifier, reason in _reasons(group, copies, snapshot):
            reasons[identifier].append(reason)
        rules = snapshot.rules.get(group[0])
        without[group] = "" if rules is None else _no_rule(rules)
    _keep_links(snapshot.copies, reasons)
    return tuple(
        Decision(copy=copy, keep=bool(why), reasons=tuple(why) or (_expired(copy, without[copy.group]),))
        for copy in sorted(snapshot.copies, key=_age, reverse=True)
        for why in [reasons[copy.id]]
    )


def removal_order(decisions: Iterable[Decision]) -> tuple[Copy, ...]:
    """What expires, in an order in which nothing is ever left that needs what is gone: dependents first, then oldest.

    A chain that leads in a circle cannot be restored and is left where it is.
    """
    going = {one.copy.id: one.copy for one in decisions if not one.keep}
    needed = defaultdict(set)
    for copy in going.values():
        for link in copy.depends_on:
            needed[link].add(copy.id)
    order: list[Copy] = []
    free = sorted((copy for copy in going.values() if not needed[copy.id]), key=_age)
    while free:
        copy = free.pop(0)
        order.append(copy)
        for link in copy.depends_on:
            if copy.id in needed[link]:
                needed[link].remove(copy.id)
                if not needed[link] and link in going:
                    free.append(going[link])
    return tuple(order)


def _age(copy: Copy) -> tuple[datetime, str]:
    return (copy.begun, copy.id)


def _reasons(group: Group, copies: Sequence[Copy], snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """(id, why it stays) for the copies of one group, newest first in ``copies``."""
    service, kind, _ = group
    for reason in _for_all(group, copies, snapshot):
        for copy in copies:
            yield copy.id, reason
    rules = snapshot.rules.get(service)
    sound = [copy for copy in copies if copy.proof is not Proof.BAD]
    if rules is not None:
        for copy in sound[: max(1, rules.minimum)]:
            yield copy.id, "the last good one" if len(sound) == 1 else _newest(min(rules.minimum, len(sound)))
        yield from _by_rules(rules, sound)
    for hold in snapshot.holds:
        yield from _held(hold, copies)
    for copy in copies:
        if copy.id in snapshot.locked:
            yield copy.id, f"locked by the store until {shown_instant(snapshot.locked[copy.id])}"
    reach = snapshot.reach.get((service, kind))
    if reach is not None and not group[2] and (start := _reached_from(sound, reach)) is not None:
        yield start.id, f"every instant from {shown_instant(reach)} on is reached from it"


def _newest(count: int) -> str:
    return "the newest good one" if count <= 1 else f"one of the newest {count}: the minimum"


def _for_all(group: Group, copies: Sequence[Copy], snapshot: Snapshot) -> Iterator[str]:
    service, kind, _ = group
    if snapshot.frozen is not None:
        yield snapshot.frozen
    if service not in snapshot.rules:
        yield f"the plan has no service {service!r}"
    elif not snapshot.rules[service].counts and snapshot.rules[service].keep is None:
        yield "the plan has no rule after which it would expire"
    if kind not in KINDS:
        yield f"this version does not know when copies of kind {kind!r} expire"
    if (service, kind) in snapshot.blocked:
        yield snapshot.blocked[service, kind]
    if copies[0].begun > snapshot.now + CLOCK_TOLERANCE:
        yield f"{copies[0].id} is dated in the future: a clock is wrong"
    if copies[0].proof is not Proof.GOOD:
        yield f"the newest, {copies[0].id}, is {'damaged' if copies[0].proof is Proof.BAD else 'not proven'}"


def _by_rules(rules: Rules, sound: Sequence[Copy]) -> Iterator[tuple[str, str]]:
    if rules.keep is not None:
        for copy in sound:
            if sound[0].begun - copy.begun <= rules.keep:
                yield copy.id, f"not older than {show_duration(rules.keep)}"
        return
    for name, limit in rules.counts.items():
        seen: set[object] = set()
        for copy in sound:
            period, shown = _PERIODS[name](copy.begun.astimezone(rules.zone), copy.id)
            if period in seen:
                continue
            if len(seen) == limit:
                break
            seen.add(period)
            yield copy.id, f"{name} {len(seen)} of {limit}{shown}"


def _hour(local: datetime, _: str) -> tuple[object, str]:
    # In UTC: the hour that an autumn night has twice is two hours. Zones are off by quarters of an hour at times.
    offset = local.utcoffset() or timedelta()
    begins = local.replace(minute=0, second=0, microsecond=0)
    return (begins.replace(tzinfo=None) - offset, f" ({local:%Y-%m-%d %H}h)")


def _week(local: datetime, _: str) -> tuple[object, str]:
    year, week, _day = local.isocalendar()
    return ((year, week), f" ({year}-W{week:02})")


_PERIODS: Final[Mapping[str, Callable[[datetime, str], tuple[object, str]]]] = {
    "last": lambda _local, identifier: (identifier, ""),
    "hourly": _hour,
    "daily": lambda local, _: (local.date(), f" ({local:%Y-%m-%d})"),
    "weekly": _week,
    "monthly": lambda local, _: ((local.year, local.month), f" ({local:%Y-%m})"),
    "yearly": lambda local, _: (local.year, f" ({local.year})"),
}


def _held(hold: Hold, copies: Sequence[Copy]) -> Iterator[tuple[str, str]]:
    reason = f"hold {hold.name}: {hold.reason}"
    for copy in copies:
        if hold.begins is None or copy.ended >= hold.begins:
            yield copy.id, reason
    sound = [copy for copy in copies if copy.proof is not Proof.BAD]
    start = None if hold.begins is None else _reached_from(sound, hold.begins)
    if hold.begins is not None and start is not None and start.ended < hold.begins:
        yield start.id, f"{reason} ({shown_instant(hold.begins)} is reached from it)"


def _reached_from(sound: Sequence[Copy], instant: datetime) -> Copy | None:
    """The newest copy that was complete by ``instant``; when there is none, the oldest there is."""
    return next((copy for copy in sound if copy.ended <= instant), sound[-1] if sound else None)


def _keep_links(copies: Sequence[Copy], reasons: Mapping[str, list[str]]) -> None:
    """Whatever stays keeps all that it depends on, to any depth."""
    by_id = {copy.id: copy for copy in copies}
    open_ends = [copy for copy in copies if reasons[copy.id]]
    followed = {copy.id for copy in open_ends}
    while open_ends:
        copy = open_ends.pop()
        for link in copy.depends_on:
            if link in by_id:
                reasons[link].append(f"{copy.id} depends on it")
                if link not in followed:
                    followed.add(link)
                    open_ends.append(by_id[link])


def _no_rule(rules: Rules) -> str:
    if rules.keep is not None:
        return f"older than {show_duration(rules.keep)}, counted back from the newest one"
    return "no rule keeps it: " + ", ".join(f"{name} {limit}" for name, limit in rules.counts.items())


def _expired(copy: Copy, without: str) -> str:
    return f"{without}; it was found damaged" if copy.proof is Proof.BAD else without


def shown_instant(instant: datetime) -> str:
    """An instant as reasons name it: UTC, to the second; the end of time in words."""
    if instant.year == MAXYEAR:
        return "it is released"
    return clock.to_text(instant.astimezone(UTC).replace(microsecond=0))[:19] + "Z"
