"""Preparing servers for the streaming of their WAL, and taking that back: ``recoup check --prepare`` and ``--undo``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from recoup.assembly.postgres import postgres_place
from recoup.assembly.postgres_address import replication_url
from recoup.assembly.protect.wal import slot_name
from recoup.assembly.system import System
from recoup.engines.postgres.access import ServerAccess
from recoup.engines.postgres.prepare import (
    Kind,
    Step,
    carry_out,
    plan_heartbeat,
    plan_preparation,
    plan_undo,
    take_back,
)
from recoup.engines.postgres.slot import look_at_slot
from recoup.engines.postgres.wal_guard import DEFAULT_LIMIT_BYTES, judge, limit_of
from recoup.kernel import files
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.secret import Secret
from recoup.kernel.units import show_size
from recoup.plan.services import PostgresService
from recoup.repository.lease import cannot_note


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePreparation:
    """What one service needs (or what is taken back), ready to be shown and done."""

    service: str
    place: str
    steps: tuple[Step, ...]
    access: ServerAccess
    url: Secret
    undoing: bool
    notes: Path

    def do(self, step: Step) -> None:
        """Carry out one step and note it, so that ``--undo`` knows what was ours. Raise ``RecoupError``."""
        if self.undoing:
            take_back(self.access, self.url, step)
            _write(self.notes, [one for one in _read(self.notes) if one != (step.kind, step.note)])
            return
        if step.kind == "hba":  # noted first: to remove a line that never came to be harms nothing
            self._note(step)
        carry_out(self.access, self.url, step)
        self._note(step)

    def _note(self, step: Step) -> None:
        noted = _read(self.notes)
        if (step.kind, step.note) not in noted:
            _write(self.notes, [*noted, (step.kind, step.note)])


def preparations(system: System, *, undo: bool) -> Iterator[ServicePreparation]:
    """For every service whose WAL is streamed or that has a heartbeat, what is missing, or what ``--undo`` takes back.

    Changes nothing. Raise ``EngineError`` when a server does not answer.
    """
    for name, service in system.plan.services.items():
        if not isinstance(service, PostgresService) or (service.wal is None and not service.heartbeat):
            continue
        place = postgres_place(system, name)
        url = Secret("") if service.wal is None else replication_url(system, place)
        slot = slot_name(system, name)
        notes = system.state_folder / f"prepared-{name}.json"
        steps: tuple[Step, ...] = ()
        if undo:
            steps = plan_undo(place.access, slot, tuple(_read(notes))).steps
        elif service.wal is not None:
            keep_bytes = service.wal_limit or DEFAULT_LIMIT_BYTES
            steps = plan_preparation(place.access, url, slot, keep_bytes=keep_bytes).steps
        if service.heartbeat and not undo:
            steps = (*steps, *plan_heartbeat(place.access))
        yield ServicePreparation(
            service=name, place=place.access.place, steps=steps, access=place.access, url=url, undoing=undo, notes=notes
        )


def wal_findings(system: System, name: str, service: PostgresService) -> Iterator[Finding]:
    """What ``recoup check`` says of a service whose WAL is streamed: production's disk, and the slot."""
    if service.wal is None:
        return
    place = postgres_place(system, name)
    facts = look_at_slot(place.access, slot_name(system, name))
    limited = facts.keep_bytes is not None
    yield Finding(
        check="the server limits the WAL it keeps for the archive",
        subject=name,
        verdict=Verdict.OK if limited else Verdict.FAILED,
        detail=f"max_slot_wal_keep_size is {'unlimited' if facts.keep_bytes is None else show_size(facts.keep_bytes)}",
        hint=None
        if limited
        else "When the archive stands still, WAL fills the server's disk until it stops. Run: recoup check --prepare.",
    )
    judgement = judge(facts, planned_bytes=service.wal_limit, protect=service.protect)
    check = "the WAL held for the archive is far from its limit"
    if not facts.exists:
        yield Finding(
            check=check,
            subject=name,
            verdict=Verdict.UNKNOWN,
            detail="there is no slot yet: WAL is not streamed",
            hint="Start `recoup daemon`, which makes it, or run: recoup check --prepare.",
        )
        return
    held = "an unknown amount" if facts.held_bytes is None else show_size(facts.held_bytes)
    bad = judgement.level in ("alarm", "lost", "let go")
    yield Finding(
        check=check,
        subject=name,
        verdict=Verdict.FAILED if bad else Verdict.OK,
        detail=judgement.text or f"{held} of {show_size(limit_of(facts, service.wal_limit))}",
        hint="See with `recoup status` why the archive does not keep up." if bad else None,
    )


def _read(notes: Path) -> list[tuple[Kind, str]]:
    try:
        said = json.loads(notes.read_bytes())
        return [(kind, str(note)) for kind, note in said if kind in get_args(Kind)]
    except (OSError, ValueError, TypeError):
        return []  # nothing was prepared from here, so nothing but the slot is taken back


def _write(notes: Path, done: list[tuple[Kind, str]]) -> None:
    try:
        notes.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write_atomically(notes, json.dumps(done).encode())
    except OSError as failure:
        raise cannot_note(notes, failure) from failure
