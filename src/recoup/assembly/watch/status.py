"""How everything stands, as one document: what ``recoup status`` shows, in words and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from recoup.assembly.drill.book import state_now
from recoup.assembly.system import System
from recoup.assembly.watch.alarms import verdict_of
from recoup.assembly.watch.notes import note_history, read_history
from recoup.assembly.watch.survey import Survey, survey
from recoup.drill.state import PlanState
from recoup.kernel import clock
from recoup.kernel.finding import Verdict
from recoup.objectives.alarms import Alarm, RepositoryFacts, Run, ServiceFacts, alarms
from recoup.objectives.freshness import CoverageFacts, Latest, Renewal, best
from recoup.objectives.standing import Point, Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What was found out, what is wrong, and the whole."""

    survey: Survey
    alarms: tuple[Alarm, ...]
    verdict: Verdict
    plan: PlanState | None = None  #: what drills proved of it; None when it has none


def status(system: System, now: datetime) -> Status:
    """Look at everything now. The sizes of the repositories are noted down once a day, for the forecast."""
    found = survey(system, now)
    present = alarms(found.facts)
    known, today = read_history(system.state_folder).used, now.astimezone(UTC).date().isoformat()
    used = {
        one.name: one.used_bytes
        for one in found.facts.repositories
        if one.used_bytes is not None and today not in known.get(one.name, {})
    }
    if used:
        note_history(system.state_folder, now, used=used, losses={})
    plan = None if found.drills is None else state_now(system, found.drills, now)
    return Status(survey=found, alarms=present, verdict=verdict_of(found, present), plan=plan)


def document(found: Status) -> dict[str, Any]:
    """All of it as JSON. Durations are in seconds, sizes in bytes; null is what is not known."""
    facts = found.survey.facts
    return {
        "system": found.survey.system,
        "at": clock.to_text(facts.now),
        "verdict": found.verdict.value,
        "alarms": [_alarm(one) for one in found.alarms],
        "services": [_service(one, found.survey.days.get(one.name, ()), facts.now) for one in facts.services],
        "repositories": [_repository(one) for one in facts.repositories],
        "upkeep": [_run(one) for one in facts.runs],
        "coverage": _coverage(facts.coverage),
        "plan": _plan(found.plan),
        "daemon": {"state": facts.daemon, "heard": clock.optional_text(facts.daemon_since)},
    }


def _plan(one: PlanState | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "state": one.state.value,
        "reasons": list(one.reasons),
        "drill": one.drill,
        "declared": clock.optional_text(one.declared),
        "until": clock.optional_text(one.until),
    }


def _alarm(alarm: Alarm) -> dict[str, Any]:
    return {
        "key": alarm.key,
        "subject": alarm.subject,
        "severity": alarm.severity,
        "verdict": alarm.verdict.value,
        "what": alarm.what,
        "hint": alarm.hint,
        "since": clock.optional_text(alarm.since),
    }


def _service(service: ServiceFacts, days: Sequence[timedelta | None], now: datetime) -> dict[str, Any]:
    stands = service.standing
    return {
        "name": service.name,
        "engine": service.engine,
        "tier": service.tier,
        "rto_seconds": _seconds(service.objective.rto),
        "rpo_seconds": _seconds(service.objective.rpo),
        "verdict": stands.verdict.value,
        "detail": stands.detail,
        "rpo_now_seconds": _seconds(stands.rpo_now),
        "rpo_now_from": stands.rpo_from or None,
        "rpo_worst_seconds": _seconds(stands.worst),
        "rpo_worst_since": clock.optional_text(stands.worst_since),
        "rpo_worst_by_day_seconds": [_seconds(one) for one in days],
        "copies": len(service.points),
        "last_good": _point(service, stands.last_good),
        "last_proven": _point(service, stands.last_proven),
        "best_proof": _latest(best(service.latest, now)),
        "proofs": [_latest(one) for one in service.latest],
        "renewals": [_renewal(one, now) for one in service.renewals],
        "streams": [_stream(one, now) for one in service.streams],
        "runs": [_run(one) for one in service.runs],
    }


def _point(service: ServiceFacts, point: Point | None) -> dict[str, Any] | None:
    if point is None:
        return None
    proof = service.proofs.get(point.id)
    return {
        "id": point.id,
        "kind": point.kind,
        "begun": clock.to_text(point.at),
        "ended": clock.to_text(point.usable),
        "repositories": list(point.repositories),
        "grade": None if proof is None else proof.grade,
        "proof": None if proof is None else proof.verdict.value,
        "proven_at": None if proof is None else clock.to_text(proof.when),
    }


def _latest(one: Latest | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "id": one.id,
        "kind": one.kind,
        "grade": one.grade,
        "proven_at": clock.to_text(one.when),
        "expires": clock.to_text(one.expires),
    }


def _renewal(one: Renewal, now: datetime) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "grade": one.grade,
        "last": clock.optional_text(one.last),
        "due": clock.to_text(one.due),
        "overdue": one.due < now,
    }


def _coverage(one: CoverageFacts | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "total_bytes": one.total_bytes,
        "oldest_read": clock.optional_text(one.oldest),
        "oldest_in": one.where or None,
        "every_byte_within_seconds": _seconds(one.within),
        "late_bytes": one.late_bytes,
    }


def _stream(stream: Stream, now: datetime) -> dict[str, Any]:
    return {
        "kind": stream.kind,
        "state": stream.state,
        "as_of": clock.optional_text(stream.as_of),
        "lag_seconds": None if stream.as_of is None else max(0.0, _seconds(now - stream.as_of) or 0.0),
        "position": stream.position,
        "error": stream.error,
        "gap": stream.gap,
        "slot": stream.slot,
        "slot_held_bytes": stream.slot_bytes,
        "slot_limit_bytes": stream.slot_limit_bytes,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "kind": run.kind,
        "outcome": run.outcome,
        "started": clock.optional_text(run.started),
        "ended": clock.optional_text(run.ended),
        "error": run.error,
        "failures": run.failures,
        "next": clock.optional_text(run.next),
    }


def _repository(one: RepositoryFacts) -> dict[str, Any]:
    return {
        "name": one.name,
        "address": one.address,
        "error": one.error,
        "hint": one.hint,
        "problems": list(one.problems),
        "used_bytes": one.used_bytes,
        "bytes_per_day": None if one.bytes_per_day is None else round(one.bytes_per_day),
        "disk_bytes": one.disk_bytes,
        "free_bytes": one.free_bytes,
        "full_in_days": None if one.days_until_full is None else round(one.days_until_full, 1),
    }


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else round(duration.total_seconds(), 3)
