"""Which conditions somebody must be told of, given what was found out. A pure function: facts in, alarms out.

Each alarm has a key that stays the same while its condition lasts, so that what is told of it can be a first notice,
repeats, and one word when it is over (``announcing.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from recoup.kernel.finding import Verdict
from recoup.kernel.units import show_duration, show_size
from recoup.objectives.freshness import CoverageFacts, Latest, Renewal
from recoup.objectives.objective import Objective
from recoup.objectives.rehearsal import Rehearsed, Worry, worries
from recoup.objectives.standing import Point, Proof, Standing, Stream

Severity = Literal["critical", "warning"]

#: From this part of the RPO on, with no run in sight that would renew it in time, it is at risk.
AT_RISK: Final = 0.8
#: A run may begin this much later than it was due: jitter, and others that are on.
OVERDUE_AFTER: Final = timedelta(minutes=15)
#: A run that renews the newest copy may be on its way for this long before anybody is told that the RPO is broken.
CURE: Final = timedelta(minutes=30)
SKEW: Final = timedelta(seconds=60)
_LEAST_FREE_BYTES: Final = 256 << 20
_FEW_DAYS: Final = 7.0
#: What is asked of others over a network may fail once without a word.
_PATIENCE: Final = timedelta(minutes=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One condition. ``verdict`` is unknown for what could not be found out. ``hold``: how long it must last first."""

    key: str
    subject: str
    severity: Severity
    what: str  #: a sentence without its stop, lower case
    hint: str  #: what to do; a full sentence
    verdict: Verdict = Verdict.FAILED
    since: datetime | None = None  #: when the condition began, where that is known
    hold: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The last run of a task, and the next one. ``kind`` is of a copy, or ``prune``, ``verify daily``."""

    kind: str
    due: datetime | None = None  #: the moment of its schedule that it is for; None for a first run
    next: datetime | None = None  #: when it will begin: jitter and pauses after failures are in it
    outcome: str | None = None  #: ``ok``, ``failed``, ``unknown``, ``running``, ``interrupted``; None: never ran
    started: datetime | None = None
    ended: datetime | None = None
    error: str | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """What was found out about one service."""

    name: str
    engine: str
    tier: str | None
    objective: Objective
    points: tuple[Point, ...]
    proofs: Mapping[str, Proof]
    streams: tuple[Stream, ...]
    runs: tuple[Run, ...]
    standing: Standing
    renewals: tuple[Renewal, ...] = ()
    latest: tuple[Latest, ...] = ()  #: by kind and grade


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryFacts:
    """What was found out about one repository."""

    name: str
    address: str
    error: str | None = None
    hint: str | None = None
    missing: bool = False  #: it answered that there is no repository; otherwise an error is unknown
    expected: bool = True  #: it was there before, or something was copied already
    problems: tuple[str, ...] = ()  #: manifests that cannot be believed
    used_bytes: int | None = None
    disk_bytes: int | None = None
    free_bytes: int | None = None
    days_until_full: float | None = None
    bytes_per_day: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A channel or a ping that was not taken when it was last tried."""

    name: str  #: ``channel team``, ``ping backup``
    error: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything at one instant."""

    now: datetime
    services: tuple[ServiceFacts, ...]
    repositories: tuple[RepositoryFacts, ...]
    lag_limit: timedelta
    key_error: str | None = None
    key_hint: str | None = None
    daemon: Literal["running", "stopped", "silent", "never"] = "never"
    daemon_since: datetime | None = None
    plan_fault: str | None = None
    runs: tuple[Run, ...] = ()  #: of the whole plan: pruning, verification
    skews: Mapping[str, timedelta] = field(default_factory=dict)  #: other clocks against this machine's
    undelivered: tuple[Delivery, ...] = ()
    coverage: CoverageFacts | None = None
    rehearsed: Rehearsed | None = None  #: None: the plan has no drills


def alarms(facts: Facts) -> tuple[Alarm, ...]:
    """Every condition, the worst first, otherwise in the plan's order."""
    found = [*_machine(facts)]
    for repository in facts.repositories:
        found += _repository(repository)
    for service in facts.services:
        found += _service(service, facts)
    for run in facts.runs:
        found += _run("", run, facts.now)
    found += _unread(facts.coverage)
    found += [_rehearsal(one) for one in worries(facts.rehearsed, [one.key for one in found])]
    return tuple(sorted(found, key=lambda one: (one.severity != "critical", one.verdict is not Verdict.FAILED)))


def _rehearsal(one: Worry) -> Alarm:
    return Alarm(key=one.key, subject="drill", severity=one.severity, what=one.what, hint=one.hint,
                 verdict=Verdict.UNKNOWN if one.unknown else Verdict.FAILED, since=one.since)  # fmt: skip


def _machine(facts: Facts) -> Iterator[Alarm]:
    if facts.key_error is not None:
        hint = facts.key_hint or "Bring the key back to where the plan says it is."
        yield Alarm(key="key", subject="key", severity="critical", what=facts.key_error, hint=hint)
    streaming = any(service.streams for service in facts.services)
    if facts.daemon in ("stopped", "silent") and (streaming or facts.daemon == "silent"):
        word = "was stopped" if facts.daemon == "stopped" else "says nothing any more"
        yield Alarm(
            key="daemon",
            subject="daemon",
            severity="critical",
            what=f"the daemon {word}",
            hint="Start it again: `systemctl start recoup-daemon`, or `recoup daemon`; its log says why it ended.",
            since=facts.daemon_since,
            hold=_PATIENCE,
        )
    elif facts.daemon == "never" and streaming:
        yield Alarm(
            key="daemon",
            subject="daemon",
            severity="critical",
            what="the plan wants streams without end, and no daemon has run here",
            hint="Start it: `recoup daemon`.",
        )
    if facts.plan_fault is not None:
        yield Alarm(
            key="plan",
            subject="plan",
            severity="warning",
            what=f"the daemon goes on with the old plan, because the new one is wrong: {facts.plan_fault}",
            hint="Correct it: `recoup plan check`.",
        )
    for name, skew in facts.skews.items():
        if abs(skew) > SKEW:
            way = "ahead of" if skew > timedelta(0) else "behind"
            yield Alarm(
                key=f"clock:{name}",
                subject=name,
                severity="warning",
                what=f"the clock of {name} is {show_duration(abs(skew))} {way} this machine's",
                hint="Correct the clocks (timedatectl, chrony): times to go back to would be off by as much.",
                hold=_PATIENCE,
            )
    for one in facts.undelivered:
        yield Alarm(
            key=f"undelivered:{one.name}",
            subject=one.name,
            severity="warning",
            what=f"{one.name} did not take what was sent: {one.error}",
            hint="Check its address and its secret in the plan.",
            since=one.since,
        )


def _repository(one: RepositoryFacts) -> Iterator[Alarm]:
    if one.error is not None:
        new = one.missing and not one.expected
        yield Alarm(
            key=f"repository:{one.name}",
            subject=one.name,
            severity="critical",
            what=f"the repository {one.name} " + ("is not there: " if one.missing else "does not answer: ") + one.error,
            hint=one.hint or "Is its disk mounted, its address right, the network up?",
            verdict=Verdict.FAILED if one.missing and not new else Verdict.UNKNOWN,
            hold=_PATIENCE,
        )
    if one.problems:
        yield Alarm(
            key=f"manifests:{one.name}",
            subject=one.name,
            severity="critical",
            what=f"{len(one.problems)} manifests in {one.name} cannot be believed: {one.problems[0]}",
            hint="Somebody or something changed the repository. Look at it before the next backup: `recoup list`.",
        )
    if one.free_bytes is None or not one.disk_bytes:
        return
    part, days = one.free_bytes / one.disk_bytes, one.days_until_full
    soon = days is not None and days < _FEW_DAYS
    if part < 0.1 or one.free_bytes < _LEAST_FREE_BYTES or soon:
        full = part < 0.05 or one.free_bytes < _LEAST_FREE_BYTES or (days is not None and days < 1)
        left = f"; at this growth it is full in {days:.1f} days" if days is not None else ""
        yield Alarm(
            key=f"disk:{one.name}",
            subject=one.name,
            severity="critical" if full else "warning",
            what=f"the disk of {one.name} has {show_size(one.free_bytes)} left ({part:.0%}){left}",
            hint="Make room, shorten the retention, or move the repository to a larger disk.",
        )


def _service(service: ServiceFacts, facts: Facts) -> Iterator[Alarm]:
    yield from _objective(service, facts.now, facts.daemon)
    yield from _unproven(service)
    yield from _overdue(service, facts.now)
    for run in service.runs:
        yield from _run(service.name, run, facts.now)
    for stream in service.streams:
        yield from _stream(service, stream, facts)


def _objective(service: ServiceFacts, now: datetime, daemon: str) -> Iterator[Alarm]:
    stands, name, rpo = service.standing, service.name, service.objective.rpo
    hint = f"Take a copy now: `recoup backup {name}`. Then find out why none was taken."
    key = f"rpo:{name}"
    if stands.verdict is Verdict.UNKNOWN:
        yield Alarm(
            key=key, subject=name, severity="warning", what=f"how old the newest copy of {name} is, is not known: "
            f"{stands.detail}", hint="Bring back the repository that does not answer.",
            verdict=Verdict.UNKNOWN, hold=_PATIENCE,
        )  # fmt: skip
    elif stands.rpo_now is None or stands.point is None:
        yield Alarm(
            key=key, subject=name, severity="critical", what=f"there is no copy of {name} to go back to",
            hint=f"Take one: `recoup backup {name}`.", hold=CURE if daemon == "running" else timedelta(0),
        )  # fmt: skip
    elif rpo is None:
        return
    elif stands.verdict is Verdict.FAILED:
        coming = _expected(service.runs, now)
        what = (
            f"the RPO of {name} is broken: {show_duration(stands.rpo_now)} would be lost, {show_duration(rpo)} may be"
        )
        yield Alarm(
            key=key, subject=name, severity="critical", what=what, hint=hint, since=stands.point + rpo,
            hold=CURE if coming is not None and coming <= now else timedelta(0),
        )  # fmt: skip
    elif stands.rpo_now >= rpo * AT_RISK:
        coming, deadline = _expected(service.runs, now), stands.point + rpo
        if coming is None or coming > deadline + rpo * 0.02:
            what = f"the RPO of {name} is at risk: {show_duration(stands.rpo_now)} of {show_duration(rpo)} are used up"
            yield Alarm(
                key=key, subject=name, severity="warning", what=what, hint=hint, since=stands.point + rpo * AT_RISK
            )


def _expected(runs: Sequence[Run], now: datetime) -> datetime | None:
    """When a copy will be taken next, if one can be expected at all; ``now`` for one that is on or just due."""
    times = []
    for run in runs:
        if run.outcome == "running":
            times.append(now)
        elif run.due is not None and run.due > now - OVERDUE_AFTER and run.failures == 0:
            times.append(max(run.due, now))
    return min(times, default=None)


def _unproven(service: ServiceFacts) -> Iterator[Alarm]:
    """The newest copy of each kind was verified, and it failed."""
    seen: set[str] = set()
    for point in sorted(service.points, key=lambda one: one.at, reverse=True):
        if point.kind in seen:
            continue
        seen.add(point.kind)
        proof = service.proofs.get(point.id)
        if proof is not None and proof.verdict is Verdict.FAILED:
            yield Alarm(
                key=f"unproven:{service.name}:{point.kind}",
                subject=service.name,
                severity="critical",
                what=f"the newest {point.kind} of {service.name}, {point.id}, failed its verification",
                hint=f"See why: `recoup verify {point.id}`; then take a new one: `recoup backup {service.name}`.",
                since=proof.when,
            )


def _overdue(service: ServiceFacts, now: datetime) -> Iterator[Alarm]:
    """A proof that the plan wants renewed is too old, or there never was one."""
    for one in service.renewals:
        if now > one.due:
            ago = "never was" if one.last is None else f"was last {show_duration(now - one.last)} ago"
            yield Alarm(
                key=f"proof:{service.name}:{one.kind}:{one.grade}", subject=service.name, severity="warning",
                what=f"a {one.kind} of {service.name} proven {one.grade} is overdue: there {ago}",
                hint=f"Do it now: `recoup verify --service {service.name} --grade {one.grade}`; then see why the "
                "plan's verification does not.", verdict=Verdict.UNKNOWN, since=one.due,
            )  # fmt: skip


def _unread(coverage: CoverageFacts | None) -> Iterator[Alarm]:
    if coverage is not None and coverage.within is not None and coverage.late_bytes:
        yield Alarm(
            key="coverage", subject="verify", severity="warning",
            what=f"{show_size(coverage.late_bytes)} of the copies were not read for {show_duration(coverage.within)}, "
            f"the oldest in {coverage.where}",
            hint="Read them now: `recoup verify --all --sample 100%`; or give the daily slice more time.",
            verdict=Verdict.UNKNOWN, since=None if coverage.oldest is None else coverage.oldest + coverage.within,
        )  # fmt: skip


def _run(service: str, run: Run, now: datetime) -> Iterator[Alarm]:
    task = f"{service} {run.kind}".strip()
    key = f"run:{service}:{run.kind}"
    if run.outcome in ("failed", "unknown"):
        times = f", {run.failures} times in a row" if run.failures > 1 else ""
        yield Alarm(
            key=key, subject=service or run.kind, severity="critical",
            what=f"the last run of {task} failed{times}: {run.error or 'it did not say why'}",
            hint=f"Try it by hand: `recoup backup {service}`." if service else "Try it by hand, and see what it says.",
            verdict=Verdict.FAILED if run.outcome == "failed" else Verdict.UNKNOWN, since=run.started,
        )  # fmt: skip
    elif run.outcome != "running" and run.due is not None and now > run.due + OVERDUE_AFTER:
        yield Alarm(
            key=key, subject=service or run.kind, severity="critical",
            what=f"{task} was due {show_duration(now - run.due)} ago and did not run",
            hint="Is the daemon running, or the timer enabled? `recoup backup --due` does what is due.",
            since=run.due,
        )  # fmt: skip


def _stream(service: ServiceFacts, stream: Stream, facts: Facts) -> Iterator[Alarm]:
    name, now = service.name, facts.now
    word = "WAL stream" if stream.kind == "wal" else "command stream"
    key = f"stream:{name}:{stream.kind}"
    lag = None if stream.as_of is None else now - stream.as_of
    if facts.daemon == "running" and stream.state != "running":
        yield Alarm(
            key=key, subject=name, severity="critical",
            what=f"the {word} of {name} does not run" + (f": {stream.error}" if stream.error else ""),
            hint="See why with `recoup check`; it is tried again by itself.", since=stream.since, hold=_PATIENCE,
        )  # fmt: skip
    elif stream.as_of is None or lag is None or lag > facts.lag_limit:
        much = "and it is not known how far" if lag is None else f"by {show_duration(lag)}"
        worse = lag is None or lag > facts.lag_limit * 4
        yield Alarm(
            key=key, subject=name, severity="critical" if worse else "warning",
            what=f"the {word} of {name} is behind, {much}",
            hint="Is a repository slow or away, or the server down? `recoup check` looks.",
            verdict=Verdict.FAILED if lag is not None else Verdict.UNKNOWN,
            since=stream.as_of, hold=_PATIENCE,
        )  # fmt: skip
    if stream.gap is not None:
        yield Alarm(
            key=f"gap:{name}:{stream.kind}", subject=name, severity="critical",
            what=f"a part of the {word} of {name} is missing since its newest copy: {stream.gap}",
            hint=f"Instants after it are reached again from the next copy on: `recoup backup {name}`.",
            since=stream.gap_since, hold=_PATIENCE,
        )  # fmt: skip
    yield from _slot(name, stream)


def _slot(name: str, stream: Stream) -> Iterator[Alarm]:
    held, limit = stream.slot_bytes, stream.slot_limit_bytes
    gone = stream.slot in ("unreserved", "lost", "missing")
    near = held is not None and limit is not None and limit > 0 and held > limit * 0.5
    if not (gone or near or stream.guard):
        return
    much = "" if held is None else f", {show_size(held)} of WAL are held" + (f" of {show_size(limit)}" if limit else "")
    worse = gone or (held is not None and limit is not None and held > limit * 0.8)
    yield Alarm(
        key=f"slot:{name}", subject=name, severity="critical" if worse else "warning",
        what=stream.guard or f"the replication slot of {name} is {stream.slot if gone else 'filling'}{much}",
        hint="The server lets go of WAL that was not archived yet: bring the repositories back, or raise "
        "max_slot_wal_keep_size if its disk has room.", hold=timedelta(0) if gone else _PATIENCE,
    )  # fmt: skip
