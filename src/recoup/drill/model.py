"""The record of a drill: what was rehearsed, from which recovery point, what was measured, and what was not tested.

A record is never changed once it is written. Its verdict is not a field that somebody sets: it follows from its parts,
and a part that is missing makes it *unknown*. ``docs/repository-format.md`` has the stored form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal

from recoup.kernel.finding import Finding, Verdict, worst

StepKind = Literal["machine", "person"]
DrillKind = Literal["announced", "surprise"]
#: What a flow step does: an HTTP method in lower case, ``command`` or ``sql``.
ActKind = Literal["get", "post", "put", "patch", "delete", "command", "sql"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Someone of the team. ``role`` is the plan's word; ``part`` says what they did (``asked at step 4``)."""

    role: str
    name: str
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanIdentity:
    """Which plan was rehearsed. ``parts`` are what the hash is made of: a name (``plan file``, ``compose.yaml``,
    ``image of api``) and its sha256 or digest, so that a later change can be named. See ``drill.state``."""

    version: str | None
    hash: str  #: sha256 over the parts, lower-case hexadecimal
    parts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedCopy:
    """One copy that was restored. ``digest`` is the sha256 of its manifest as stored; ``at`` the instant of its
    data."""

    service: str
    kind: str
    id: str
    at: datetime
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPoint:
    """What was gone back to. ``target`` is as asked (``latest``, an instant, a stack point); ``at`` the instant that
    was reached, None when it is not known; ``age`` its distance from the declaration."""

    target: str
    repository: str  #: its name in the plan, or its address
    repository_id: str  #: the repository's own identity
    copies: tuple[UsedCopy, ...]
    at: datetime | None = None
    age: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it was rehearsed: never production. ``project`` is the Compose project, empty for a native sandbox."""

    sandbox: str  #: the sandbox's id
    host: str
    project: str = ""
    kind: Literal["compose", "native"] = "native"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step as it went. ``key`` stays the same from drill to drill (forecasts compare by it).

    ``waiting`` is the part of its time that went by waiting for people. A step that was not come to has neither time,
    and its verdict is unknown.
    """

    key: str
    title: str
    kind: StepKind
    verdict: Verdict
    started: datetime | None = None
    ended: datetime | None = None
    waiting: timedelta = timedelta(0)
    service: str = ""
    detail: str = ""
    hint: str | None = None

    @property
    def took(self) -> timedelta | None:
        """From its start to its end; None when it has not both, or a clock went backwards in between."""
        if self.started is None or self.ended is None or self.ended < self.started:
            return None
        return self.ended - self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStepResult:
    """How one step of a flow went. ``what`` and ``detail`` hold no value of a variable and no secret."""

    what: str  #: ``GET /orders``, ``sql on postgres``, ``command in api``, as the plan wrote it
    act: ActKind
    verdict: Verdict
    detail: str = ""
    hint: str | None = None
    took: timedelta = timedelta(0)
    reads_data: bool = False  #: what it expects could not come from an empty database


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowResult:
    """How a flow went. ``passes``: how often in a row it passed; ``attempts``: how often it was tried."""

    name: str
    steps: tuple[FlowStepResult, ...]
    attempts: int = 1
    passes: int = 0

    @property
    def verdict(self) -> Verdict:
        """Ok when each of its steps is; unknown when it has none."""
        return worst(step.verdict for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rto:
    """Time to recovery: from the declaration until the users are healthy.

    ``healthy`` None: that was never so. ``objective`` is the strictest promise of the services; None: nothing was
    promised. ``waiting`` is the part of the time that went by waiting for people.
    """

    declared: datetime
    healthy: datetime | None
    objective: timedelta | None
    waiting: timedelta = timedelta(0)
    clock_jumped: timedelta = timedelta(0)  #: how far the wall clock moved against the monotonic one
    tiers: Mapping[str, timedelta] = field(default_factory=dict)  #: what each tier promises

    @property
    def measured(self) -> timedelta | None:
        """The recovery time; None when there was none, or when the clock makes it meaningless."""
        if self.healthy is None or self.healthy < self.declared:
            return None
        return self.healthy - self.declared

    @property
    def machine(self) -> timedelta | None:
        """The part that no person was waited for."""
        return None if self.measured is None else max(self.measured - self.waiting, timedelta(0))

    @property
    def verdict(self) -> Verdict:
        """Ok when it was measured and no promise was broken; failed when one was; else unknown."""
        return _kept(self.measured, self.objective)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpo:
    """Lost data of one service, as time: the age of its newest surviving record when the drill was declared.

    ``how`` says how that is known (``heartbeat row``, ``end of the copy``). ``measured`` None: it is not known.
    """

    service: str
    measured: timedelta | None
    objective: timedelta | None
    how: str
    tier: str | None = None
    newest: datetime | None = None  #: the instant of the newest surviving record

    @property
    def verdict(self) -> Verdict:
        """Ok when it was measured and no promise was broken; failed when one was; else unknown."""
        return _kept(self.measured, self.objective)


@dataclass(frozen=True, slots=True, kw_only=True)
class Production:
    """One service of production, looked at before and after: that it is the same, and that nothing but its own work
    moved it. ``before`` and ``after`` are the engine's words (``LSN 0/3000060``, ``offset 1234``)."""

    service: str
    identity: str
    before: str | None
    after: str | None
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """Something that the drill brought to light. ``about`` stays the same when it is found again.

    It is open until a closing with a proof is stored (``drill.issues``): a record is never changed.
    """

    id: str  #: the drill's id, a dot, and a number
    text: str
    owner: str  #: a role of the plan's team, or a name
    due: date
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRecord:
    """One drill, complete. Times are aware instants in UTC."""

    id: str
    system: str
    situation: str
    kind: DrillKind
    declared_by: str
    declared: datetime
    ended: datetime
    plan: PlanIdentity
    point: RecoveryPoint
    place: Place
    steps: tuple[Step, ...]
    checks: tuple[Finding, ...]
    flows: tuple[FlowResult, ...]
    rto: Rto
    rpo: tuple[Rpo, ...]
    production: tuple[Production, ...]
    isolation: tuple[Finding, ...]
    teardown: tuple[Finding, ...]
    not_tested: tuple[str, ...]
    proves_data: tuple[str, ...]  #: what in this drill could not pass on an empty database; see ``drill.proving``
    absent: tuple[str, ...] = ()  #: roles that were not allowed to help
    participants: tuple[Participant, ...] = ()
    issues: tuple[Issue, ...] = ()
    stopped: str | None = None  #: why it ended before its end; None when it came to its end
    tool: Mapping[str, str] | None = None  #: ``{"recoup": "0.1.0"}`` and what else took part

    @property
    def verdict(self) -> Verdict:
        """Ok only when everything is, and nothing that has to be shown is missing."""
        return worst(verdict for _, verdict in verdicts(self))

    @property
    def lost(self) -> timedelta | None:
        """The worst RPO of all services; None when one of them is not known."""
        known = [one.measured for one in self.rpo if one.measured is not None]
        return max(known) if known and len(known) == len(self.rpo) else None


def verdicts(record: DrillRecord) -> tuple[tuple[str, Verdict], ...]:
    """The verdict of each part of a drill, by name. A part that has nothing to show is unknown.

    The plan needs no flows when other checks prove the data; without either, ``proof of the data`` is unknown.
    """
    unreached = Verdict.FAILED if any(one.verdict is Verdict.FAILED for one in record.steps) else Verdict.UNKNOWN
    parts = [
        ("it came to its end", Verdict.OK if record.stopped is None else unreached),
        ("steps", worst(one.verdict for one in record.steps)),
        ("proof of the data", Verdict.OK if record.proves_data else Verdict.UNKNOWN),
        ("RTO", record.rto.verdict),
        ("RPO", worst(one.verdict for one in record.rpo)),
        ("production untouched", worst(one.verdict for one in record.production)),
        ("isolation", worst(one.verdict for one in record.isolation)),
        ("teardown", worst(one.verdict for one in record.teardown)),
        ("recovery point", Verdict.OK if record.point.copies else Verdict.UNKNOWN),
    ]
    if record.checks:
        parts.append(("checks", worst(one.verdict for one in record.checks)))
    if record.flows:
        parts.append(("flows", worst(one.verdict for one in record.flows)))
    return tuple(parts)


def _kept(measured: timedelta | None, objective: timedelta | None) -> Verdict:
    if measured is None or measured < timedelta(0):
        return Verdict.UNKNOWN
    # What was measured breaks no promise when none was made; the report says that there is none.
    return Verdict.OK if objective is None or measured <= objective else Verdict.FAILED
