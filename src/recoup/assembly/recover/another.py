"""A choice that turns out to be damaged when it is read: it is passed over from then on, and another one is chosen.

After the loss of a server nothing is looked at before it is restored, and what was looked at may rot in between. The
copy is verified, which names it damaged for every later choice on this machine, and the run chooses once more. The new
choice is in its journal as the first one was, so a run that is killed goes on with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from recoup.assembly.drill.members import copies_of
from recoup.assembly.prove.copies import prove_and_note
from recoup.assembly.recover.choose import choose
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.member import member_of
from recoup.kernel.errors import DamageError, InterruptedRunError, MissingObjectError, RecoupError, WrongKeyError
from recoup.kernel.finding import Verdict, overall
from recoup.recovery import progress as written
from recoup.recovery import runbook_steps as make
from recoup.recovery.step import Done
from recoup.verification.grade import Grade

#: What two choices differ by.
_CHOICE: Final = ("kind", "artefact", "target", "timeline", "base")


@contextlib.contextmanager
def choosing_another(recovery: Recovery, service: str) -> Iterator[None]:
    """While inside, what was chosen for a service is read, and nothing of it is in place yet.

    Where it is damaged, raise ``DamageError`` that says what was chosen instead, or what people can do.
    """
    try:
        yield
    except (DamageError, MissingObjectError) as damage:
        raise _instead(recovery, service, damage) from damage


def _instead(recovery: Recovery, service: str, damage: RecoupError) -> DamageError:
    step = make.choose(service, "")
    before = recovery.learned(step.id)
    recovery.voice.say(f"{damage.message}; looking for another copy of {service}")
    try:
        _note_damaged(recovery, before)
        done = choose(recovery, step)
    except (InterruptedRunError, WrongKeyError):
        raise
    except RecoupError as failure:
        return _nothing_else(recovery, service, f"{damage.message}; {failure.message}")
    if all(done.data.get(name) == before.get(name) for name in _CHOICE):
        return _nothing_else(recovery, service, damage.message)
    if any(one.verdict is Verdict.FAILED for one in done.findings):
        return _nothing_else(recovery, service, f"{damage.message}; {done.detail}")
    _note_choice(recovery, step.id, done)
    return DamageError(f"{damage.message}. Chosen instead: {done.detail}", hint="The same command goes on with that.")


def _note_damaged(recovery: Recovery, chosen: Mapping[str, Any]) -> None:
    """Verify what was chosen, and what it builds on, up to the first that is damaged."""
    opened = recovery.opened
    first = copies_of(member_of(opened, chosen))[0]
    catalog = opened.catalog()
    for part in (first, *(opened.find(one, catalog=catalog) for one in first.manifest.depends_on)):
        if prove_and_note(opened, part, Grade.INTACT).verdict is Verdict.FAILED:
            return


def _note_choice(recovery: Recovery, step: str, done: Done) -> None:
    recovery.journal.append(
        written.STEP_DONE, step=step, detail=done.detail, verdict=overall(done.findings).value, seconds_waited=0.0,
        data=dict(done.data),
    )  # fmt: skip


def _nothing_else(recovery: Recovery, service: str, why: str) -> DamageError:
    return DamageError(
        why,
        hint=f"The data of {service} were not replaced. Where another repository has it whole, `recoup sync` mends it, "
        "and the same command goes on. Else give this run up, and name an instant before it: "
        f"`recoup recover --abandon {recovery.run} --because TEXT`, then the same command with --to-time; `recoup "
        "windows` shows which there are.",
    )
