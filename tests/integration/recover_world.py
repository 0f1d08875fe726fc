"""A recovery whose steps are files in a folder: everything around the steps is real, what they do is cheap.

Each step of the list writes what it did into files that tell whether anything was done twice. ``python -m`` runs one
orchestrator in a process of its own, to be killed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recoup.assembly.access import Readable, open_for_reading
from recoup.assembly.recover.context import RecoverWish, Recovery
from recoup.assembly.recover.end import Given
from recoup.assembly.recover.hold import Who
from recoup.assembly.recover.run import Parts, RecoverControl, RecoveryOutcome, run_recovery
from recoup.assembly.system import System
from recoup.assembly.voice import Voice
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.executor import Agreement
from recoup.recovery.runbook import Database, Facts, Situation
from recoup.recovery.step import Done, Step

PLAN = """
recoup: 1
system: marketplace
services:
  postgres:
    engine: postgres
    url: postgresql://recoup@127.0.0.1:1/marketplace
repositories:
  local: {{path: {folder}/repository}}
key: {{file: {folder}/key}}
"""
KEY = "5" * 64
FACTS = Facts(
    databases=(Database(service="postgres", engine="postgres", what="as of now", replaces="the cluster"),),
    applications=("api",),
    stopped=("api", "postgres"),
    flows=("a user orders",),
)


def make_place(folder: Path) -> Path:
    """A plan with its key and an empty repository; return the plan."""
    (folder / "key").write_text(KEY + "\n")
    (folder / "world").mkdir()
    (folder / "recoup.yaml").write_text(PLAN.format(folder=folder))
    System.from_file(folder / "recoup.yaml").open(writing=True)
    return folder / "recoup.yaml"


@dataclass
class FileActor:
    """Does a step by writing its line into ``done``; complains in ``twice`` when it was there already."""

    recovery: Recovery
    world: Path

    def fence(self, step: Step) -> None:
        """Nothing outlives these steps."""

    def done(self, step: Step) -> bool:
        """Whether the file of the step is there."""
        return (self.world / step.id).exists()

    def act(self, step: Step) -> Done:
        """Write the file of the step."""
        with open(self.world / step.id, "x") as handle:
            handle.write(self.recovery.run)
        return Done(detail=f"{step.id} is done")

    def after(self, step: Step) -> Sequence[Finding]:
        """Look at the file."""
        good = (self.world / step.id).exists()
        return [Finding(check="it is done", subject=step.id, verdict=Verdict.OK if good else Verdict.FAILED)]


def open_place(wish: RecoverWish) -> tuple[Readable, System]:
    """The repositories and the plan."""
    opened = open_for_reading(wish.file, wish.source, wish.key_file)
    assert opened.system is not None
    return opened, opened.system


def parts_of(world: Path) -> Parts:
    """A recovery whose steps are files in ``world``."""
    return Parts(
        open=open_place,
        facts=lambda _opened, _system, _wish: FACTS,
        actor=lambda recovery: FileActor(recovery, world),
    )


def given(plan: Path, run: str | None = None, say: Callable[[str], None] = lambda _text: None, **who: object) -> Given:
    """What works on a run apart from its steps."""
    opened, system = open_place(RecoverWish(situation="database-corruption", file=plan))
    voice = Voice(say=say, on_progress=lambda _progress: None)
    return Given(opened=opened, system=system, who=Who(**{"name": "alice", **who}), voice=voice, run=run)  # type: ignore[arg-type]


def recover(
    plan: Path,
    say: Callable[[str], None] = lambda _text: None,
    folder: Path | None = None,
    situation: Situation = "database-corruption",
    **wishes: object,
) -> RecoveryOutcome:
    """One call of the orchestrator in this process; everybody agrees."""
    control = RecoverControl(**{"agree": lambda _step: Agreement(how="typed"), "who": "alice", **wishes})  # type: ignore[arg-type]
    wish = RecoverWish(situation=situation, file=plan, folder=folder)
    return run_recovery(
        wish, Voice(say=say, on_progress=lambda _progress: None), control, parts_of(plan.parent / "world")
    )
