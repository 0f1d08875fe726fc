"""What keeps others away from a recovery while it is worked on, and its journal, which is copied as it grows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from recoup.assembly.access import Readable
from recoup.assembly.recover.fence import mark_of
from recoup.assembly.recover.keeper import Claim, Keepers, keeping
from recoup.assembly.recover.runs import JOURNAL, RunSeen, Settled, decide, run_folder, runs_seen, settle
from recoup.assembly.system import System
from recoup.kernel.files import sync_folder
from recoup.kernel.marked import marking
from recoup.kernel.presence import myself
from recoup.recovery import progress as written
from recoup.recovery.journal import Journal, Line
from recoup.repository import layout
from recoup.repository.lease import cannot_note, hold_lease
from recoup.repository.run_lease import Rhythm

#: The lease of a stack on this machine.
LEASE: Final = "recover"


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who works on a recovery, and whether they take it from whoever has it."""

    name: str
    take_over: bool = False
    rhythm: Rhythm = field(default_factory=Rhythm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack that nobody else recovers now. ``runs`` are those that there were when that began."""

    opened: Readable
    system: System
    who: Who
    runs: tuple[RunSeen, ...]
    keepers: Keepers
    say: Callable[[str], None]

    @contextlib.contextmanager
    def journal(self, run: str, there: RunSeen | None) -> Iterator[tuple[Journal, Settled]]:
        """The journal of a run, while inside: the one that is ``there``, or a new one.

        Everything that is started meanwhile carries the run's id. Raise ``RecoupError`` when it cannot be written, or
        what is there cannot be gone on with.
        """
        state = self.opened.state_folder
        settled = Settled(lines=())
        if there is not None:
            settled = settle(state, there, decide(there, take_over=self.who.take_over))
        for said in settled.said:
            self.say(said)
        with _journal(run_folder(state, run), self.who.name) as journal, marking(mark_of(run)):
            self.keepers.copy_from_now(layout.run_journal(self.system.plan.system, run), journal.raw)
            try:
                yield journal, settled
            finally:
                self.keepers.finish()

    def note(self, journal: Journal, settled: Settled) -> None:
        """Write down who works on the run from here on, and what keeps others away."""
        held = self.keepers.held_in()
        missing = {
            **{name: failure.message for name, failure in self.opened.failed.items()},
            **self.keepers.problems(),
        }
        journal.append(
            written.LEASED, repositories=list(held), without=missing, take_over=self.who.take_over,
            journal_from=settled.taken_from, aside=settled.aside,
        )  # fmt: skip
        for name, why in missing.items():
            self.say(f"{name}: nothing keeps others away there, and the journal is not copied there: {why}")


@contextlib.contextmanager
def hold_stack(opened: Readable, system: System, who: Who, purpose: str, say: Callable[[str], None]) -> Iterator[Stack]:
    """Keep everybody else from recovering this stack, here and from other machines, while inside.

    Raise ``BusyError`` when somebody else does, the repositories' errors.
    """
    name = system.plan.system
    claim = Claim(
        system=name, purpose=purpose, who=who.name, presence=myself(), take_over=who.take_over, rhythm=who.rhythm
    )
    with hold_lease(opened.state_folder, LEASE, purpose), keeping(opened.repositories, claim, say) as keepers:
        yield Stack(opened=opened, system=system, who=who, runs=runs_seen(opened, name), keepers=keepers, say=say)


def lines_of(there: RunSeen | None, who: Who) -> Sequence[Line]:
    """The lines that a run would go on from; nothing is changed. Raise as ``Stack.journal`` does."""
    return () if there is None else decide(there, take_over=who.take_over).lines


def _journal(folder: Path, who: str) -> Journal:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for above in (folder.parent, folder.parent.parent):  # a power cut must not take the folder away
            sync_folder(above)
    except OSError as failure:
        raise cannot_note(folder, failure) from failure
    me = myself()
    return Journal(folder / JOURNAL, who=who, host=me.host, boot=me.boot)
