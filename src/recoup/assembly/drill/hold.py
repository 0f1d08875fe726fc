"""``recoup drill`` from end to end: tells the team, holds the drill, finds its issues, stores its record."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from recoup.assembly.access import Readable, open_for_reading
from recoup.assembly.drill.people import (
    Surprise,
    announce,
    announce_end,
    announce_none,
    choose_by_chance,
    require_roles,
)
from recoup.assembly.drill.run import DrillWish, hold_drill
from recoup.assembly.protect.agenda import DRILL
from recoup.assembly.prove.run import recorded_as
from recoup.assembly.restore.windows import read_windows
from recoup.assembly.voice import Voice
from recoup.drill.book import level, read_book, write_drill
from recoup.drill.issues import find_issues
from recoup.drill.model import DrillRecord, verdicts
from recoup.kernel import clock
from recoup.kernel.errors import Exit, RecoupError, UsageError
from recoup.kernel.finding import Verdict, exit_code
from recoup.plan.people import Drill
from recoup.recovery.step import Watching
from recoup.repository.repository import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A drill that was held. ``stored``: each repository, and why it did not take the record (None: it did)."""

    record: DrillRecord
    stored: Mapping[str, RecoupError | None] = field(default_factory=dict)

    @property
    def exit_code(self) -> Exit:
        """That of its verdict; ``FAILED`` for a drill whose record is nowhere."""
        if not any(error is None for error in self.stored.values()):
            return Exit.FAILED
        return exit_code(self.record.verdict)


def by_chance(wish: DrillWish, seed: int | None, say: Callable[[str], None]) -> DrillWish:
    """What to rehearse when nobody chose: situation, instant and who is absent. The seed is said first."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    opened = open_for_reading(wish.file, wish.source, wish.key_file)
    if opened.system is None:
        raise UsageError("chance chooses from the plan, and there is none here", hint="Give it: -f FILE.")
    plan = opened.system.plan
    situations = plan.drill.situations if plan.drill is not None else ()
    roles = [] if wish.absent else list(plan.team)
    found: Surprise = choose_by_chance(seed, situations, read_windows(opened), roles, clock.now())
    where, gone = found.instant or "the newest", found.absent or "nobody"
    say(f"surprise: seed {seed}, {found.situation}, to {where}, absent: {gone}")
    absent = wish.absent or (() if found.absent is None else (found.absent,))
    return replace(wish, situation=found.situation, instant=found.instant, absent=absent, surprise=True)


def hold(wish: DrillWish, voice: Voice, watching: Watching, *, tell_team: bool) -> Held:
    """Hold a drill and store its record in every repository that answers. Raise as ``hold_drill``."""
    opened = open_for_reading(wish.file, wish.source, wish.key_file)
    system = opened.system
    if system is not None:
        require_roles(system.plan, wish.absent)
    elif wish.absent or tell_team:
        raise UsageError("the team is in the plan, and there is none here", hint="Give it: -f FILE.")
    if tell_team and system is not None:
        wrong = announce(system, wish.situation, absent=wish.absent)
        voice.say("the team was told that this is a drill" if wrong is None else f"the team was not told: {wrong}")
    if system is None:
        return _hold(wish, voice, watching, opened)
    held: list[Held] = []

    def act() -> tuple[Exit, str]:
        held.append(_hold(wish, voice, watching, opened))
        one = held[0].record
        bad = [name for name, verdict in verdicts(one) if verdict is not Verdict.OK]
        return held[0].exit_code, "" if not bad else one.stopped or f"not ok: {', '.join(bad)}"

    try:
        recorded_as(system, DRILL, act)  # the plan's schedule goes by it, and so does the alarm of one that was missed
    except RecoupError as failure:
        if tell_team:
            announce_none(system, failure)
        raise
    record = held[0].record
    if tell_team and (wrong := announce_end(system, record)) is not None:
        voice.say(f"the team was not told of the end: {wrong}")
    return held[0]


def _hold(wish: DrillWish, voice: Voice, watching: Watching, opened: Readable) -> Held:
    record = hold_drill(wish, voice, watching)
    repositories, failed = _all(opened)
    record = _with_issues(record, repositories, opened)
    stored: dict[str, RecoupError | None] = {**failed, **write_drill(repositories, record)}
    level(repositories)  # one that was away gets the earlier records too; what fails there is said by --list
    return Held(record=record, stored=stored)


def _all(opened: Readable) -> tuple[Sequence[Repository], Mapping[str, RecoupError]]:
    """Where the record goes: every repository of the plan, also when the drill read from one of them.

    Those that could not be opened come with why not.
    """
    if opened.system is None:
        return opened.repositories, {}
    every = opened.system.open()
    return every.repositories, every.failed


def _with_issues(record: DrillRecord, repositories: Sequence[Repository], opened: Readable) -> DrillRecord:
    book = read_book(repositories, system=record.system)
    plan = None if opened.system is None else opened.system.plan
    drill = Drill() if plan is None or plan.drill is None else plan.drill
    team = () if plan is None else tuple(plan.team)
    owner = drill.owner or (team[0] if team else "nobody yet")
    return replace(record, issues=find_issues(record, book.records, book.issues, owner=owner, due=drill.due))
