"""A recovery whose data are back, as the steps behind that see it: a journal, a plan, and people who answer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from recoup.assembly.access import open_for_reading
from recoup.assembly.recover.context import RecoverWish, Recovery
from recoup.assembly.voice import Voice
from recoup.kernel.finding import Verdict
from recoup.recovery import progress as written
from recoup.recovery.executor import begin
from recoup.recovery.journal import Journal
from recoup.recovery.runbook import Database, Facts, Situation, steps_of
from recoup.recovery.step import Step
from tests.acceptance.workplace import Workplace


class After:
    """The recovery, its steps by their ids, what it said, and what people are asked and answer."""

    def __init__(self, recovery: Recovery, steps: tuple[Step, ...], said: list[str]) -> None:
        self.recovery = recovery
        self.steps = {one.id: one for one in steps}
        self.said = said
        self.asked: list[str] = []

    def done(self, *names: str, verdict: Verdict = Verdict.OK) -> None:
        """Write into the journal that these steps were done, now."""
        for name in names:
            self.recovery.journal.append(written.STEP_BEGUN, step=name, attempt=1)
            self.recovery.journal.append(written.STEP_DONE, step=name, verdict=verdict.value, data={})

    def somebody(self, answers: Mapping[str, bool] | None) -> None:
        """From now on somebody is there who answers yes, but for what is in ``answers``; None: nobody is."""

        def ask(step: Step) -> bool | None:
            self.asked.append(step.id.removeprefix("checklist-"))
            return True if answers is None else answers.get(step.id.removeprefix("checklist-"), True)

        voice = self.recovery.voice
        self.recovery.voice = Voice(say=voice.say, on_progress=voice.on_progress, ask=None if answers is None else ask)


@contextlib.contextmanager
def after_restore(
    work: Workplace,
    situation: Situation,
    *databases: Database,
    flows: tuple[str, ...] = (),
    health: tuple[str, ...] = (),
    checked: tuple[str, ...] = (),
    compose: bool = False,
    file: Path | None = None,
) -> Iterator[After]:
    """A run that has come to the steps behind the data, with the environment of the workplace."""
    before = dict(os.environ)
    os.environ.update({**work.environment, "RECOUP_STATE": str(work.state)})
    facts = Facts(databases=databases, flows=flows, health=health, checked=checked, compose=compose)
    steps = steps_of(situation, facts, "production")
    said: list[str] = []
    try:
        wish = RecoverWish(situation=situation, file=file or work.folder / "recoup.yaml")
        opened = open_for_reading(wish.file, None, None)
        assert opened.system is not None
        run = "20261123-030000-abcdef"
        state = opened.state_folder / "runs" / run
        state.mkdir(parents=True)
        say: Callable[[str], None] = said.append
        with (
            Journal(state / "journal", who="anna", host="here", boot="now") as journal,
            contextlib.ExitStack() as scope,
        ):
            begin(journal, run=run, situation=situation, steps=steps, facts={})
            recovery = Recovery(
                run=run, wish=wish, opened=opened, system=opened.system, state=state, journal=journal,
                voice=Voice(say=say, on_progress=lambda _progress: None), scope=scope,
            )  # fmt: skip
            yield After(recovery, steps, said)
    finally:
        os.environ.clear()
        os.environ.update(before)
