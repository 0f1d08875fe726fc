"""What ``recoup backup --due`` takes, and how it says what comes next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from recoup.assembly.protect.agenda import DRILL, VERIFY, decide, look
from recoup.assembly.protect.copies import Task, choose_tasks
from recoup.assembly.system import System
from recoup.backup.due import Run
from recoup.backup.run_records import WHOLE_PLAN
from recoup.cli.output import Output
from recoup.kernel import clock
from recoup.kernel.errors import Exit, RecoupError, UsageError
from recoup.kernel.units import show_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The next run of each service and kind that was asked about, at one moment."""

    runs: tuple[Run, ...]
    now: datetime
    zone: str
    silent: Mapping[str, RecoupError]
    nobody_answered: bool

    @property
    def tasks(self) -> list[Task]:
        """What to take now, in this order."""
        due = [run for run in self.runs if run.is_due(self.now) and run.service != WHOLE_PLAN]
        return [Task(service=run.service, kind=run.kind) for run in due]

    @property
    def rhythms(self) -> list[str]:
        """Which verifications to do now, after that: ``daily``, ``slice`` and so on."""
        due = [run.kind for run in self.runs if run.is_due(self.now) and run.service == WHOLE_PLAN]
        return [kind.removeprefix(VERIFY) for kind in due]

    def note_silence(self, output: Output) -> None:
        """Say which repositories could not be asked for their newest copies."""
        for name, error in self.silent.items():
            output.note(f"{name} did not answer: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))

    @property
    def is_due(self) -> bool:
        """Whether any of it is."""
        return any(run.is_due(self.now) for run in self.runs)

    def say_nothing_is_due(self, output: Output, schema: str = "backup") -> Exit:
        """Say what comes next and when. That is a success only when a repository could be asked."""
        self.note_silence(output)
        following = self.runs[0] if self.runs else None
        if self.nobody_answered:
            output.line("whether anything is due is not known: no repository answered")
        elif following is not None:
            name = f"{following.service} {following.kind}".strip()
            output.line(f"nothing is due; next: {name} {self._when(following)}")
        output.document(schema, {**({"copies": []} if schema == "backup" else {}), "next": self.documents()})
        return Exit.UNKNOWN if self.nobody_answered else Exit.OK

    def show(self, output: Output, system: System) -> None:
        """The table of ``--plan``."""
        self.note_silence(output)
        rows = []
        for run in self.runs:
            places = [name for name, one in system.plan.repositories.items() if one.takes(run.kind)]
            into = "" if run.service == WHOLE_PLAN else ", ".join(places)
            rows.append((run.service, run.kind, self._when(run), run.reason, into))
        output.table(("SERVICE", "KIND", "WHEN", "WHY", "INTO"), rows)
        output.document("backup-due", {"runs": self.documents()})

    def documents(self) -> list[dict[str, Any]]:
        """The runs as JSON."""
        return [
            {
                "service": run.service,
                "kind": run.kind,
                "due": run.is_due(self.now),
                "at": clock.to_text(run.at),
                "reason": run.reason,
            }
            for run in self.runs
        ]

    def _when(self, run: Run) -> str:
        if run.is_due(self.now):
            return "now"
        return f"{show_instant(run.at, self.zone)}, in {show_duration(run.at - self.now)}"


def outlook(system: System, services: Sequence[str], kind: str | None) -> Outlook:
    """What is due and what comes next. Raise ``UsageError`` when the plan schedules nothing of what is asked about."""
    if services or kind:
        choose_tasks(system, services, kind)  # refuses what the plan does not have
    everything = not services and kind is None
    found = _runs(
        system,
        lambda run: (
            (not services or run.service in services)
            and (kind is None or run.kind == kind)
            and (run.service != WHOLE_PLAN or run.kind.startswith(VERIFY))
        ),
        upkeep=everything,
    )
    if not found.runs:
        raise UsageError(
            "the plan has no schedule for any of it", hint="Give services one, such as `base: daily 02:00`."
        )
    return found


def drill_outlook(system: System) -> Outlook:
    """Whether a drill is due, and when the next one is. Raise ``UsageError`` when the plan schedules none."""
    if system.plan.drill is None or system.plan.drill.schedule is None:
        hint = "Give it one: drill: {schedule: first monday 04:00}."
        raise UsageError("the plan has no schedule for drills", hint=hint)
    return _runs(system, lambda run: (run.service, run.kind) == (WHOLE_PLAN, DRILL), upkeep=True)


def _runs(system: System, wanted: Callable[[Run], bool], *, upkeep: bool) -> Outlook:
    known = look(system, upkeep=upkeep)
    now = clock.now()
    return Outlook(
        runs=tuple(run for run in decide(system, known, now, jitter=timedelta(0)) if wanted(run)),
        now=now,
        zone=system.plan.timezone,
        silent=known.silent,
        nobody_answered=not known.answered,
    )


def show_instant(instant: datetime, zone: str) -> str:
    """An instant as people of the plan's zone read it: ``2026-11-24 02:00 CET``."""
    from zoneinfo import ZoneInfo

    return instant.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %Z")
