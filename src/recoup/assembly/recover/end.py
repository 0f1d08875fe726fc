"""Working on a run apart from its steps: giving it up, and whatever ends it for good."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, get_args

from recoup.assembly.access import Readable
from recoup.assembly.recover.context import RecoverWish, Recovery
from recoup.assembly.recover.data import fence_run
from recoup.assembly.recover.fence import mark_of
from recoup.assembly.recover.hold import Stack, Who, hold_stack
from recoup.assembly.recover.resume import find_run
from recoup.assembly.recover.runs import JOURNAL, RunSeen, run_folder
from recoup.assembly.system import System
from recoup.assembly.voice import Voice
from recoup.kernel import clock, ids
from recoup.kernel.errors import UsageError
from recoup.kernel.marked import end_processes
from recoup.recovery import progress as written
from recoup.recovery.executor import begin
from recoup.recovery.journal import Line
from recoup.recovery.runbook import Situation
from recoup.repository.lease import cannot_note

#: What a run is said to be for whose journal was damaged everywhere.
_LOST: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Which run, of which stack, and who works on it. ``run`` None is the newest."""

    opened: Readable
    system: System
    who: Who
    voice: Voice
    run: str | None = None


@contextlib.contextmanager
def open_run(given: Given, purpose: str) -> Iterator[Recovery]:
    """A run that was begun, also one that has ended, while nobody else works on its stack.

    What is appended to its journal meanwhile is copied as in a run. Raise ``BusyError`` while somebody else works on
    it, ``UsageError`` when there is no such run, ``DamageError`` or ``RefusedError`` when its journal is not to be
    gone on with.
    """
    with hold_stack(given.opened, given.system, given.who, purpose, given.voice.say) as stack:
        there = find_run(stack.runs, given.run)
        with _recovery(stack, there, given.voice) as recovery:
            yield recovery


def abandon(given: Given, because: str) -> tuple[Line, ...]:
    """Give a run up as it is: what it left at work is ended, and nothing goes on with it any more.

    What it stopped stays stopped, what it set aside stays aside, and its hold stays. That this Recoup cannot go on with
    it, because another one has begun it, is no hindrance. Return its journal; a new one, when it is damaged everywhere.
    Raise as ``open_run`` does, and ``UsageError`` when the run has ended already.
    """
    with hold_stack(given.opened, given.system, given.who, "giving a recovery up", given.voice.say) as stack:
        there = find_run(stack.runs, given.run)
        if there.damage is not None and not there.lines:
            return _give_up_damaged(stack, there.run, because)
        if there.progress is not None and there.progress.ended is not None:
            raise UsageError(
                f"the run {there.run} has ended already: {there.progress.ended}",
                hint="`recoup recover --show` says how; --close and --rollback are for runs that have ended.",
            )
        with _recovery(stack, there, given.voice) as recovery:
            fence_run(recovery)
            recovery.journal.append(written.RUN_ENDED, outcome=written.ABANDONED, because=because)
            return tuple(recovery.journal.lines)


@contextlib.contextmanager
def _recovery(stack: Stack, there: RunSeen, voice: Voice) -> Iterator[Recovery]:
    assert there.progress is not None, "it was begun"
    situation = _situation(there.progress.situation)
    with stack.journal(there.run, there) as (journal, settled), contextlib.ExitStack() as scope:
        end_processes(mark_of(there.run), strangers_only=True)
        stack.note(journal, settled)
        recovery = Recovery(
            run=there.run, wish=RecoverWish(situation=situation), opened=stack.opened,
            system=stack.system, state=run_folder(stack.opened.state_folder, there.run), journal=journal, voice=voice,
            scope=scope,
        )  # fmt: skip
        yield recovery


def _situation(name: str) -> Situation:
    found: Situation | None = next((one for one in get_args(Situation) if one == name), None)
    if name == _LOST:
        raise UsageError(
            "the journal of the run is lost, and nobody knows what it replaced",
            hint="`recoup diagnose` looks how it stands; `recoup hold` lists its hold, and ends it with --release.",
        )
    if found is None:
        raise UsageError(
            f"the run is of {name}, which this Recoup does not know", hint="Use the version that began it, or newer."
        )
    return found


def _give_up_damaged(stack: Stack, run: str, because: str) -> tuple[Line, ...]:
    """Nothing can be appended to a damaged journal: it stays, under another name, and a new one says that it ended."""
    path = run_folder(stack.opened.state_folder, run) / JOURNAL
    kept = path.with_name(f"{JOURNAL}.aside-{ids.stamp(clock.now())}")
    try:
        if path.exists():
            path.replace(kept)
            stack.say(f"the damaged journal of {run} is kept in {kept}")
    except OSError as failure:
        raise cannot_note(path, failure) from failure
    end_processes(mark_of(run), strangers_only=True)
    with stack.journal(run, None) as (journal, _):
        begin(journal, run=run, situation=_LOST, steps=(), facts={})
        journal.append(written.RUN_ENDED, outcome=written.ABANDONED, because=because)
        return tuple(journal.lines)
