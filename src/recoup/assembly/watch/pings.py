"""Dead-man pings around runs: a start, and at the end success or failure, as the plan's ``pings`` want them.

A success is sent only after a copy was read back from every repository and verified as the plan says, and only while
no other task of the same ping failed last. A ping that is not taken never fails a run; it is noted down, and that is
an alarm.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from recoup.assembly.system import System
from recoup.assembly.watch.notes import read_note, write_note
from recoup.backup.run_records import Outcome, read_tasks
from recoup.channels.message import Delivered
from recoup.channels.ping import Event, ping
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError

_ALL = "backup"
#: What became of the pings that were sent last, in the state folder.
PINGS_NOTE = "pings.json"


class Pings:
    """The pings of one run of one task."""

    def __init__(self, system: System, service: str, kind: str) -> None:
        self._system, self._service, self._task = system, service, f"{service} {kind}"
        self._kind = kind
        self._run = str(uuid.uuid4())
        self._begun = clock.monotonic()

    def begin(self) -> None:
        """A run begins."""
        self._send("start", f"{self._task} begins", self._names())

    def end(self, outcome: Outcome, error: str | None) -> None:
        """A run ended. An interruption is neither: the dead-man service will see that no success comes."""
        if outcome == "interrupted":
            return
        if outcome != "ok":
            self._send("fail", f"{self._task}: {outcome}: {error or 'it did not say why'}", self._names())
            return
        for name in self._names():
            others = self._failing(name)
            if others:
                self._send("fail", f"{self._task} is done; failed before: {', '.join(others)}", [name])
            else:
                self._send("success", f"{self._task} is stored, read back and verified", [name])

    def _names(self) -> list[str]:
        return [name for name in self._system.plan.pings if name in (_ALL, self._service)]

    def _failing(self, name: str) -> list[str]:
        """The other tasks of a ping whose last run failed or could not be checked."""
        return [
            f"{one.service} {one.kind}".strip()
            for one in read_tasks(self._system.state_folder)
            if one.outcome in ("failed", "unknown")
            and (one.service, one.kind) != (self._service, self._kind)
            and one.service in self._system.plan.services
            and (name == _ALL or one.service == self._service)
        ]

    def _send(self, event: Event, text: str, names: Iterable[str]) -> None:
        for name in names:
            seconds = None if event == "start" else clock.monotonic() - self._begun
            try:
                address = self._system.resolver.resolve(self._system.plan.pings[name])
            except RecoupError as failure:
                note_delivery(self._system, PINGS_NOTE, name, Delivered(error=failure.message))
                continue
            delivered = ping(address, event, text=text, run_id=self._run, seconds=seconds)
            note_delivery(self._system, PINGS_NOTE, name, delivered)


def note_delivery(system: System, note: str, name: str, delivered: Delivered) -> None:
    """Remember whether what was sent to ``name`` last was taken, and since when it is not."""
    path = system.state_folder / note
    known = read_note(path)
    now = clock.to_text(clock.now())
    before = known.get(name)
    if delivered.error is None:
        known[name] = {"error": None, "taken": now}
    else:
        failing = isinstance(before, dict) and before.get("error")
        since = before.get("since", now) if failing and isinstance(before, dict) else now
        taken = before.get("taken") if isinstance(before, dict) else None
        known[name] = {"error": delivered.error, "since": since, "taken": taken}
    write_note(path, known)


def not_taken(system: System) -> list[tuple[str, str]]:
    """The pings of the plan that were not taken when they were last sent, and why."""
    known = read_note(system.state_folder / PINGS_NOTE)
    said = [(name, known[name]) for name in system.plan.pings if isinstance(known.get(name), dict)]
    return [(name, str(one["error"])) for name, one in said if one.get("error")]
