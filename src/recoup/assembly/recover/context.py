"""One recovery of production: what its steps share. Everything in it can be had again after a kill."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from recoup.assembly.access import Readable
from recoup.assembly.system import System
from recoup.assembly.voice import Voice
from recoup.recovery.executor import Log
from recoup.recovery.progress import Progress, read_progress
from recoup.recovery.runbook import Situation


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverWish:
    """What the operator asked for. ``source`` is one repository, by its name in the plan or its address.

    ``services`` are the databases to bring back; empty, they follow from the situation. ``folder`` is where a blank
    machine gets the stack. ``instant`` is as in ``recoup restore --to-time``, as text; None is the newest good one.
    ``detected`` is when somebody first saw that something is wrong.
    """

    situation: Situation
    file: Path | None = None
    source: str | None = None
    key_file: Path | None = None
    services: tuple[str, ...] = ()
    instant: str | None = None
    folder: Path | None = None
    install: bool = False
    detected: datetime | None = None
    force: bool = False


@dataclass(slots=True, kw_only=True)
class Recovery:
    """A run on its way. ``scope`` keeps what is built on the way until this process ends.

    ``run`` is its id, ``state`` its folder on this machine. What one step has to tell another goes through the journal
    (``learned``), never through a field: the other one may run in another process, on another machine.
    """

    run: str
    wish: RecoverWish
    opened: Readable
    system: System
    state: Path
    journal: Log
    voice: Voice
    scope: contextlib.ExitStack

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        found = read_progress(self.journal.lines)
        assert found is not None, "a run is begun before its steps"
        return found

    def learned(self, step_id: str) -> Mapping[str, Any]:
        """What a step that is done told the others; empty when it is not done."""
        found = self.progress.steps.get(step_id)
        return {} if found is None else found.data

    def frozen(self, name: str) -> Any:
        """A fact that was chosen when the run began, or None."""
        return self.progress.facts.get(name)

    def placement(self, artefact_id: str) -> str:
        """Under which id a copy is put in place by this run: the same after a kill, another one in another run."""
        return f"{artefact_id}.{self.run[-6:]}"
