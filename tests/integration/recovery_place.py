"""A recovery on its way, for tests of single steps: a plan, its repository, and a run's journal."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recoup.assembly.access import open_for_reading
from recoup.assembly.recover.context import RecoverWish, Recovery
from recoup.assembly.system import System
from recoup.assembly.voice import Voice
from recoup.recovery.executor import begin
from recoup.recovery.journal import Journal
from recoup.recovery.runbook import Situation
from recoup.recovery.runbook_steps import choose
from recoup.recovery.step import Step
from recoup.repository.repository import Repository
from tests.integration.planted import KEY

RUN = "20261123-030000-abcdef"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPlace:
    """A plan with one repository, ``local``, and a key."""

    folder: Path

    @property
    def plan(self) -> Path:
        return self.folder / "recoup.yaml"

    @property
    def repository(self) -> Repository:
        """It is made when it is not there."""
        return System.from_file(self.plan).open(writing=True).repositories[0]


def recovery_place(folder: Path, services: str, more: str = "") -> RecoveryPlace:
    """Write a plan with these services (a YAML mapping)."""
    folder.mkdir(exist_ok=True)
    (folder / "recoup.key").write_text(KEY + "\n")
    (folder / "recoup.yaml").write_text(
        f"recoup: 1\nsystem: Shop\nservices: {services}\nrepositories:\n  local: {{path: backups}}\n"
        f"key: {{file: recoup.key}}\n{more}"
    )
    return RecoveryPlace(folder=folder)


@contextlib.contextmanager
def recovering(
    place: RecoveryPlace,
    situation: Situation,
    service: str,
    *,
    instant: str | None = None,
    said: list[str] | None = None,
    state: Path | None = None,
) -> Iterator[tuple[Recovery, Step]]:
    """A run that has come to the choice for ``service``; it goes on in ``state``. What it says goes to ``said``."""
    step = choose(service, "")
    state = state or Path(tempfile.mkdtemp(prefix="run-", dir=place.folder))
    opened = open_for_reading(place.plan, None, None)
    assert opened.system is not None
    voice = Voice(say=(said if said is not None else []).append, on_progress=lambda _: None)
    with (
        contextlib.ExitStack() as scope,
        Journal(state / "journal", who="a test", host="here", boot="1") as journal,
    ):
        begin(journal, run=RUN, situation=situation, steps=[step], facts={})
        yield (
            Recovery(
                run=RUN, wish=RecoverWish(situation=situation, file=place.plan, instant=instant), opened=opened,
                system=opened.system, state=state, journal=journal, voice=voice, scope=scope,
            ),
            step,
        )  # fmt: skip
