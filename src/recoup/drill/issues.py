"""What a drill brought to light, and what became of it. Pure.

An issue is part of a drill's record and is never changed. It is open until a closing exists that names a proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from recoup.drill.measure import regressions
from recoup.drill.model import DrillRecord, Issue
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.units import show_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingProof:
    """What shows that an issue is solved: a later drill that passed, or a file that is kept with the closing."""

    kind: Literal["drill", "file"]
    name: str  #: the drill's id, or the file's name
    sha256: str  #: of the drill's record as stored, or of the file
    size_bytes: int = 0  #: of the file
    stored_sha256: str = ""  #: of the file as it is stored, encrypted


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The end of an issue: who says so, why, and by what proof."""

    id: str
    issue: str
    closed: datetime
    by: str
    because: str
    proof: ClosingProof


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedIssue:
    """An issue with what is known of it now."""

    issue: Issue
    drill: str
    found: datetime
    closing: Closing | None = None

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it yet."""
        return self.closing is None

    def overdue(self, today: date) -> bool:
        """Whether it is open and its day is over."""
        return self.is_open and today > self.issue.due


def track(records: Iterable[DrillRecord], closings: Iterable[Closing]) -> tuple[TrackedIssue, ...]:
    """Every issue of every drill, the oldest first. Of two closings of one issue the earlier one counts."""
    ended: dict[str, Closing] = {}
    for closing in sorted(closings, key=lambda one: (one.closed, one.id), reverse=True):
        ended[closing.issue] = closing
    return tuple(
        TrackedIssue(issue=issue, drill=record.id, found=record.declared, closing=ended.get(issue.id))
        for record in sorted(records, key=lambda one: (one.declared, one.id))
        for issue in record.issues
    )


def find_issues(
    record: DrillRecord,
    earlier: Sequence[DrillRecord],
    open_now: Sequence[TrackedIssue],
    *,
    owner: str,
    due: timedelta,
) -> tuple[Issue, ...]:
    """An issue for everything in a drill that is not ok, and for every number that is worse than it was.

    What is open already is not found again. ``due`` counts from the declaration.
    """
    known = {one.issue.about for one in open_now if one.is_open}
    found: dict[str, str] = {}
    for about, text in _faults(record, earlier):
        if about not in known:
            found.setdefault(about, text)
    day = (record.declared + due).date()
    return tuple(
        Issue(id=f"{record.id}.{number}", text=text, owner=owner, due=day, about=about)
        for number, (about, text) in enumerate(found.items(), start=1)
    )


def _faults(record: DrillRecord, earlier: Sequence[DrillRecord]) -> Iterable[tuple[str, str]]:
    """(about, text) of each."""
    if record.stopped is not None:
        yield "stopped", f"the drill did not come to its end: {record.stopped}"
    told = _told(record)
    for step in record.steps:
        wrong = step.verdict is Verdict.FAILED or (step.verdict is Verdict.UNKNOWN and step.started is not None)
        if wrong and not any(one in step.detail for one in told):
            yield f"step:{step.key}", _said(step.title, step.verdict, step.detail)
    for group in (record.checks, record.isolation, record.teardown):
        yield from _of_findings(group)
    for flow in record.flows:
        bad = next((one for one in flow.steps if one.verdict is not Verdict.OK), None)
        if bad is not None:
            yield f"flow:{flow.name}", _said(f"{flow.name}: {bad.what}", bad.verdict, bad.detail)
    for one in record.production:
        if one.verdict is not Verdict.OK:
            yield f"production:{one.service}", _said(f"production {one.service} untouched", one.verdict, one.detail)
    yield from _of_numbers(record)
    worse = {one.number: one for one in regressions(record, earlier)}
    if "RTO" in worse:
        worse.pop("machine time", None)  # it is a part of that
    yield from ((f"worse:{number}", str(regression)) for number, regression in worse.items())
    if not record.proves_data and not _says_why(record):
        yield "no proof", "nothing that passed proves that the data came back"


def _told(record: DrillRecord) -> set[str]:
    """What flows and checks say for themselves: a step that repeats it is no second issue."""
    found = {one.what for flow in record.flows for one in flow.steps if one.verdict is not Verdict.OK}
    groups = (record.checks, record.isolation, record.teardown)
    found |= {one.check for group in groups for one in group if one.verdict is not Verdict.OK}
    return {one for one in found if one}


def _of_findings(findings: Iterable[Finding]) -> Iterable[tuple[str, str]]:
    for one in findings:
        if one.verdict is not Verdict.OK:
            yield f"check:{one.check}:{one.subject}", _said(f"{one.check}: {one.subject}", one.verdict, one.detail)


def _of_numbers(record: DrillRecord) -> Iterable[tuple[str, str]]:
    rto = record.rto
    if rto.measured is None and not _says_why(record):
        yield "rto:not measured", "the recovery time could not be measured: the users were not healthy"
    elif rto.measured is not None and rto.verdict is Verdict.FAILED and rto.objective is not None:
        promised = show_duration(rto.objective)
        yield "rto", f"recovery took {show_duration(rto.measured)}, {promised} is promised"
    for one in record.rpo:
        if one.measured is None:
            yield f"rpo:{one.service}:not measured", f"the lost data of {one.service} could not be measured ({one.how})"
        elif one.verdict is not Verdict.OK:
            promised = "nothing" if one.objective is None else show_duration(one.objective)
            yield f"rpo:{one.service}", f"{one.service} lost {show_duration(one.measured)}, {promised} is promised"


def _says_why(record: DrillRecord) -> bool:
    """Whether something else says why the users never were healthy, or why nothing was proven: that is the issue."""
    seen = {*(one.verdict for one in record.steps), *(one.verdict for one in record.flows)}
    return Verdict.FAILED in seen or record.stopped is not None


def _said(what: str, verdict: Verdict, detail: str) -> str:
    return f"{what} is {verdict}" + (f": {detail}" if detail else "")
