"""Watches a repository from another machine: with its address and its key, and nothing else.

It believes the heartbeat what was promised and until when the streams were complete, and the repository itself which
copies there are: a daemon that beats and takes no copies is noticed, and so is one that is silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from recoup.kernel.errors import DamageError, RecoupError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.units import show_duration
from recoup.objectives.objective import Measured, Objective, attainment
from recoup.repository.catalog import REPLACED, Catalog
from recoup.repository.heartbeat import Heartbeat, Promise, read_heartbeats
from recoup.repository.repository import Repository

_TOLERANCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What was seen: the heartbeats, and a finding for each thing that was looked at."""

    heartbeats: tuple[Heartbeat, ...]
    findings: tuple[Finding, ...]


def watch(repository: Repository, catalog: Catalog, now: datetime, max_age: timedelta) -> Watched:
    """Look for silence and for services that are older than was promised. What cannot be found out is unknown."""
    findings = [_unbelieved(catalog)] if catalog.problems else []
    findings += [
        Finding(check="the repository answers", subject=name, verdict=Verdict.UNKNOWN, detail=error.message,
                hint=error.hint)
        for name, error in catalog.silent
    ]  # fmt: skip
    try:
        beats = read_heartbeats(repository)
    except RecoupError as failure:
        verdict = Verdict.FAILED if isinstance(failure, DamageError) else Verdict.UNKNOWN
        hint = failure.hint or "Somebody or something changed the repository: look at it."
        findings.append(Finding(check="the daemon lives", subject="heartbeat", verdict=verdict, detail=failure.message,
                                hint=hint))  # fmt: skip
        return Watched(heartbeats=(), findings=tuple(findings))
    if not beats:
        findings.append(
            Finding(
                check="the daemon lives",
                subject="heartbeat",
                verdict=Verdict.UNKNOWN,
                detail="there is no heartbeat in the repository, so nothing is known of what was promised",
                hint="Run `recoup daemon` on the machine that is protected, or `recoup status --announce` by a timer.",
            )
        )
    for one in beats:
        findings.append(_alive(one, now, max_age))
        # What streams brought is known as of the heartbeat; while that is fresh, its own age is no lag of theirs.
        as_of = one.written if timedelta(0) <= now - one.written <= max_age else now
        findings += [_promise_kept(one, promise, catalog, now, as_of) for promise in one.promises]
        findings += _alarms(one)
    return Watched(heartbeats=beats, findings=tuple(findings))


def _unbelieved(catalog: Catalog) -> Finding:
    first = catalog.problems[0]
    return Finding(
        check="the manifests are authentic",
        subject=first.id,
        verdict=Verdict.FAILED if any(one.fault != "format" for one in catalog.problems) else Verdict.UNKNOWN,
        detail=f"{len(catalog.problems)} cannot be believed: {first.what}",
        hint="Somebody or something changed the repository: look at it.",
    )


def _alive(one: Heartbeat, now: datetime, max_age: timedelta) -> Finding:
    age, hint = now - one.written, None
    verdict, detail = Verdict.OK, f"heard {show_duration(max(age, timedelta(0)))} ago"
    if age < -_TOLERANCE:
        verdict, hint = Verdict.UNKNOWN, "Correct the clocks of both machines."
        detail = f"its heartbeat is {show_duration(-age)} ahead of this machine's clock"
    elif age > max_age:
        verdict, detail = Verdict.FAILED, f"silent for {show_duration(age)}; {show_duration(max_age)} may be"
        hint = "Is the machine up, does `recoup daemon` run there, does it reach the repository?"
    return Finding(check="the daemon lives", subject=one.system, verdict=verdict, detail=detail, hint=hint)


def _promise_kept(one: Heartbeat, promise: Promise, catalog: Catalog, now: datetime, as_of: datetime) -> Finding:
    check, subject = "its newest recovery point is young enough", f"{one.system}: {promise.service}"
    hint = f"Look there: `recoup status`; then `recoup backup {promise.service}`."
    newest = next(
        (entry for entry in catalog.entries if entry.service == promise.service and entry.label != REPLACED), None
    )
    if newest is None:
        verdict = Verdict.UNKNOWN if catalog.silent else Verdict.FAILED
        detail = "there is no copy of it in this repository"
        return Finding(check=check, subject=subject, verdict=verdict, detail=detail, hint=hint)
    point, origin = newest.begun, f"{newest.kind} {newest.id}"
    if promise.streamed_until is not None and promise.streamed_until > point:
        point, origin, now = promise.streamed_until, "its stream, when the heartbeat was written", as_of
    age = now - point
    detail = f"{show_duration(max(age, timedelta(0)))} old ({origin})"
    if promise.rpo is None:
        return Finding(
            check=check, subject=subject, verdict=Verdict.OK, detail=detail, not_checked="no RPO is promised"
        )
    verdict = attainment(Objective(rpo=promise.rpo), Measured(lost_data=max(age, timedelta(0)))).rpo
    if age < -_TOLERANCE:
        verdict, hint = Verdict.UNKNOWN, "Correct the clocks of both machines."
    detail += f"; the RPO is {show_duration(promise.rpo)}"
    return Finding(
        check=check, subject=subject, verdict=verdict, detail=detail, hint=None if verdict is Verdict.OK else hint
    )


def _alarms(one: Heartbeat) -> Iterator[Finding]:
    for what in one.alarms:
        yield Finding(
            check="it has no alarm itself",
            subject=one.system,
            verdict=Verdict.UNKNOWN if one.verdict == "unknown" else Verdict.FAILED,
            detail=what,
            hint="`recoup status` on that machine says more.",
        )
