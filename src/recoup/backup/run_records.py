"""What ran on this machine, and how it ended: small JSON files in the state folder, each whole or absent.

They are for people, for ``recoup status`` and for the pauses between failed attempts. Nothing that matters is only
here: *when a service was last copied* is asked of the repositories. A record that is missing or damaged reads as none.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from recoup.kernel import clock, files
from recoup.repository.lease import cannot_note

#: ``running``: begun and not ended (or its process died: see ``TaskRecord.pid``). ``unknown``: could not be checked.
#: ``interrupted``: stopped from outside; that is no failure of its own.
Outcome = Literal["running", "ok", "failed", "unknown", "interrupted"]

#: The ``service`` of a task that concerns the whole plan: pruning, verification.
WHOLE_PLAN: Final = ""

_FOLDER: Final = "runs"
_LONGEST_ERROR: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """The last run of one task: a service and a kind of copy, or ``WHOLE_PLAN`` and ``prune`` or ``verify daily``."""

    service: str
    kind: str
    started: datetime
    outcome: Outcome
    pid: int
    ended: datetime | None = None
    exit_code: int | None = None
    error: str | None = None  #: the message of the failure; never a secret
    failures: int = 0  #: how often in a row it failed, this run included
    last_ok: datetime | None = None  #: when it last began a run that ended well


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """The latest that is known of one worker.

    ``facts`` is what the worker said of itself last, at ``said``; ``state`` and what follows is the supervisor's view.
    """

    name: str
    facts: Mapping[str, Any]
    said: datetime | None
    state: Literal["running", "waiting", "stopped", "unknown"] = "unknown"  #: ``waiting``: for the next attempt
    since: datetime | None = None
    restarts: int = 0  #: since the daemon was started
    error: str | None = None  #: why it ended last
    next_attempt: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonRecord:
    """The daemon as it last said. ``alive`` is renewed every few seconds while it runs."""

    pid: int
    started: datetime
    alive: datetime
    state: Literal["running", "draining", "stopped"]
    plan_loaded: datetime
    plan_fault: str | None = None  #: why the plan that is there now was refused; the one loaded earlier is in force
    next_service: str | None = None
    next_kind: str | None = None
    next_at: datetime | None = None


def begin_task(state_folder: Path, service: str, kind: str, *, pid: int, now: datetime) -> TaskRecord:
    """Record that a task began. Raise ``RecoupError`` when the state folder cannot be written."""
    before = read_task(state_folder, service, kind)
    record = TaskRecord(
        service=service,
        kind=kind,
        started=now,
        outcome="running",
        pid=pid,
        failures=before.failures if before else 0,
        last_ok=before.last_ok if before else None,
    )
    _write(state_folder, _task_file(service, kind), _task_document(record))
    return record


def end_task(
    state_folder: Path, begun: TaskRecord, outcome: Outcome, *, now: datetime, exit_code: int, error: str | None = None
) -> TaskRecord:
    """Record how a task ended that ``begin_task`` began. Raise ``RecoupError`` when that cannot be written."""
    failed = outcome in ("failed", "unknown")
    record = TaskRecord(
        service=begun.service,
        kind=begun.kind,
        started=begun.started,
        outcome=outcome,
        pid=begun.pid,
        ended=now,
        exit_code=exit_code,
        error=None if error is None else error[:_LONGEST_ERROR],
        failures=0 if outcome == "ok" else begun.failures + 1 if failed else begun.failures,
        last_ok=begun.started if outcome == "ok" else begun.last_ok,
    )
    _write(state_folder, _task_file(begun.service, begun.kind), _task_document(record))
    return record


def read_task(state_folder: Path, service: str, kind: str) -> TaskRecord | None:
    """The last run of one task, or None when there is no readable record."""
    return _task(_read(state_folder / _FOLDER / _task_file(service, kind)))


def read_tasks(state_folder: Path) -> tuple[TaskRecord, ...]:
    """The last run of every task that has a readable record, by service and kind."""
    found = (_task(_read(path)) for path in (state_folder / _FOLDER).glob("task:*.json"))
    return tuple(sorted((one for one in found if one is not None), key=lambda one: (one.service, one.kind)))


def record_worker(state_folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Record what worker ``name`` says of itself: a flat dictionary of JSON values; instants by ``clock.to_text``.

    Call it when something changed, and at most every second or so otherwise. Raise ``RecoupError`` when it cannot be
    written.
    """
    said = {"name": name, "said": clock.to_text(clock.now()), "facts": dict(facts)}
    _write(state_folder, f"worker:{name}.json", said)


def record_supervision(state_folder: Path, record: WorkerRecord) -> None:
    """Record the supervisor's view of a worker; its own facts stay. Raise ``RecoupError`` when that fails."""
    view = {
        "name": record.name,
        "state": record.state,
        "since": clock.optional_text(record.since),
        "restarts": record.restarts,
        "error": None if record.error is None else record.error[:_LONGEST_ERROR],
        "next_attempt": clock.optional_text(record.next_attempt),
    }
    _write(state_folder, f"supervised:{record.name}.json", view)


def read_workers(state_folder: Path) -> tuple[WorkerRecord, ...]:
    """The latest of every worker that has a readable record, by name."""
    folder = state_folder / _FOLDER
    paths = [*folder.glob("worker:*.json"), *folder.glob("supervised:*.json")]
    names = sorted({path.stem.partition(":")[2] for path in paths})
    return tuple(_worker(folder, name) for name in names)


def record_daemon(state_folder: Path, record: DaemonRecord) -> None:
    """Record that the daemon is there, or how it ended. Raise ``RecoupError`` when that cannot be written."""
    document = {
        "pid": record.pid,
        "started": clock.optional_text(record.started),
        "alive": clock.optional_text(record.alive),
        "state": record.state,
        "plan_loaded": clock.optional_text(record.plan_loaded),
        "plan_fault": None if record.plan_fault is None else record.plan_fault[:_LONGEST_ERROR],
        "next_service": record.next_service,
        "next_kind": record.next_kind,
        "next_at": clock.optional_text(record.next_at),
    }
    _write(state_folder, "daemon.json", document)


def read_daemon(state_folder: Path) -> DaemonRecord | None:
    """What the daemon said last, or None when it never ran here or the record is not readable."""
    said = _read(state_folder / _FOLDER / "daemon.json")
    try:
        return DaemonRecord(
            pid=int(said["pid"]),
            started=clock.from_text(said["started"]),
            alive=clock.from_text(said["alive"]),
            state=said["state"] if said["state"] in ("running", "draining") else "stopped",
            plan_loaded=clock.from_text(said["plan_loaded"]),
            plan_fault=said.get("plan_fault"),
            next_service=said.get("next_service"),
            next_kind=said.get("next_kind"),
            next_at=_instant(said.get("next_at")),
        )
    except (ValueError, KeyError, TypeError):
        return None


def request_run(state_folder: Path, service: str, kind: str, why: str) -> None:
    """Ask the daemon for a copy outside of the schedule: as soon as it can, and once.

    For workers: a WAL stream that lost its slot needs a new base backup. Asking again while the first request stands
    changes nothing. A copy begun later than the request, by whomever, satisfies it. Raise ``RecoupError`` when it
    cannot be written.
    """
    name = f"request:{service}:{kind}.json"
    if not _read(state_folder / _FOLDER / name):
        asked = {"service": service, "kind": kind, "why": why[:_LONGEST_ERROR], "asked": clock.to_text(clock.now())}
        _write(state_folder, name, asked)


def read_requests(state_folder: Path) -> dict[tuple[str, str], datetime]:
    """Since when a run is asked for, by service and kind."""
    found = {}
    for path in (state_folder / _FOLDER).glob("request:*.json"):
        said = _read(path)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found[str(said["service"]), str(said["kind"])] = clock.from_text(said["asked"])
    return found


def drop_request(state_folder: Path, service: str, kind: str) -> None:
    """The request is satisfied."""
    (state_folder / _FOLDER / f"request:{service}:{kind}.json").unlink(missing_ok=True)


def forget_workers(state_folder: Path, *, keep: frozenset[str]) -> None:
    """Remove the records of workers that the plan has no more."""
    for path in (state_folder / _FOLDER).glob("*:*.json"):
        what, _, name = path.stem.partition(":")
        if what in ("worker", "supervised") and name not in keep:
            path.unlink(missing_ok=True)


def _task_file(service: str, kind: str) -> str:
    return f"task:{service}:{kind}.json"  # names of services hold no colon


def _task_document(record: TaskRecord) -> dict[str, Any]:
    return {
        "service": record.service,
        "kind": record.kind,
        "started": clock.optional_text(record.started),
        "outcome": record.outcome,
        "pid": record.pid,
        "ended": clock.optional_text(record.ended),
        "exit_code": record.exit_code,
        "error": record.error,
        "failures": record.failures,
        "last_ok": clock.optional_text(record.last_ok),
    }


def _task(said: Mapping[str, Any]) -> TaskRecord | None:
    try:
        if said["outcome"] not in get_args(Outcome):
            return None
        return TaskRecord(
            service=str(said["service"]),
            kind=str(said["kind"]),
            started=clock.from_text(said["started"]),
            outcome=said["outcome"],
            pid=int(said["pid"]),
            ended=_instant(said.get("ended")),
            exit_code=said.get("exit_code"),
            error=said.get("error"),
            failures=int(said.get("failures", 0)),
            last_ok=_instant(said.get("last_ok")),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _worker(folder: Path, name: str) -> WorkerRecord:
    own, view = _read(folder / f"worker:{name}.json"), _read(folder / f"supervised:{name}.json")
    facts = own.get("facts")
    state = view.get("state")
    try:
        return WorkerRecord(
            name=name,
            facts=facts if isinstance(facts, dict) else {},
            said=_instant(own.get("said")),
            state=state if state in ("running", "waiting", "stopped") else "unknown",
            since=_instant(view.get("since")),
            restarts=int(view.get("restarts", 0)),
            error=view.get("error"),
            next_attempt=_instant(view.get("next_attempt")),
        )
    except (ValueError, TypeError):
        return WorkerRecord(name=name, facts={}, said=None)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else clock.from_text(text)


def _write(state_folder: Path, name: str, document: Mapping[str, Any]) -> None:
    path = state_folder / _FOLDER / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write_atomically(path, json.dumps(document, sort_keys=True).encode())
    except OSError as failure:
        raise cannot_note(path, failure) from failure


def _read(path: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
