"""Copies of one journal, and which of them is to be gone on with. Pure.

Every line is chained to all that come before it, so two copies that have one line in common have all earlier ones in
common. The longest copy is the journal, as long as the others are beginnings of it. Where two went apart the run was
carried out from two places at once, and a person has to say which of them counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recoup.kernel.errors import DamageError, RecoupError, RefusedError
from recoup.recovery.journal import Line, parse_journal

#: How this machine's own journal is called among the copies.
HERE = "this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A journal in one place. ``data`` are its whole lines; ``damage`` says why it cannot be believed."""

    where: str
    data: bytes = b""
    lines: tuple[Line, ...] = ()
    damage: DamageError | None = None


def read_copy(where: str, data: bytes) -> Copy:
    """A copy from its bytes, damaged or not."""
    try:
        lines, whole = parse_journal(data, f"the journal in {where}" if where != HERE else "the journal")
    except DamageError as damage:
        return Copy(where=where, damage=damage)
    return Copy(where=where, data=data[:whole], lines=lines)


def longest(copies: Sequence[Copy]) -> Copy:
    """The copy with most lines; of those, the first. Without any, an empty one."""
    whole = [one for one in copies if one.damage is None]
    return max(whole, key=lambda one: len(one.lines), default=Copy(where=HERE))


def in_common(one: Copy, other: Copy) -> int:
    """How many lines two copies have in common."""
    number = min(len(one.lines), len(other.lines))
    while number and one.lines[number - 1].digest != other.lines[number - 1].digest:
        number -= 1
    return number


def trouble(run: str, copies: Sequence[Copy]) -> RecoupError | None:
    """Why these copies cannot simply be gone on with; None when they can.

    A damaged copy elsewhere is no trouble as long as there is a whole one: it is written anew.
    """
    best = longest(copies)
    here = next((one for one in copies if one.where == HERE), None)
    if here is not None and here.damage is not None:
        return _damaged(run, here.damage, best)
    damaged = next((one.damage for one in copies if one.damage is not None), None)
    if damaged is not None and not best.lines:
        return damaged
    for one in copies:
        number = in_common(one, best)
        if one.damage is None and number < len(one.lines):
            return _apart(run, one, best, number)
    return None


def chosen(copies: Sequence[Copy], *, take_over: bool) -> Copy:
    """The copy to go on with. With ``take_over`` that is, where they went apart, the one elsewhere written last.

    Call it without ``take_over`` only when there is no ``trouble``. An empty one means that nothing was begun.
    """
    if not take_over:
        return longest(copies)
    elsewhere = [one for one in copies if one.where != HERE and one.lines]
    here = [one for one in copies if one.where == HERE and one.damage is None]
    best = max(elsewhere, key=lambda one: one.lines[-1].at, default=Copy(where=HERE))
    # What goes on from here without having gone apart is this machine's, and longer.
    return next((one for one in here if in_common(one, best) == len(best.lines)), best)


def _damaged(run: str, damage: DamageError, best: Copy) -> RecoupError:
    if not best.lines:
        return DamageError(
            damage.message,
            hint="No repository that answers has a whole copy. Look at it; to begin anew, end this run: "
            f'recoup recover --abandon {run} --because "…".',
        )
    return DamageError(
        damage.message,
        hint=f"{best.where} has a whole copy of {len(best.lines)} lines: the same command with --take-over goes on "
        "from it, and keeps the damaged journal beside. Every step looks first what is already done.",
    )


def _apart(run: str, one: Copy, other: Copy, number: int) -> RefusedError:
    def tail(copy: Copy) -> str:
        line = copy.lines[number]
        return f"in {copy.where} it goes on with {line.event!r} by {line.who} on {line.host}"

    return RefusedError(
        f"the copies of the journal of {run} went apart after line {number}: {tail(one)}, {tail(other)}",
        hint="It was carried out from two places. Make sure that only one of them goes on, and type the same command "
        "there with --take-over: what was written elsewhere last counts, and the other one is kept beside.",
    )
