"""The plan out of a repository's own file sets, for a machine that has only an address and a key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from recoup.assembly.access import Found, Readable
from recoup.assembly.drill.members import copies_newest_first
from recoup.assembly.system import System
from recoup.assembly.watch.notes import read_note, write_note
from recoup.engines.files.copy import FILES_TAR, UNTRACKED_TAR
from recoup.kernel.errors import DamageError, MissingObjectError, UsageError
from recoup.plan.load import FILE_NAME, load
from recoup.repository.copy_reader import ArtefactReader

_NOTE: Final = "plan-here.json"


def sets_with_a_plan(opened: Readable, instant: datetime | None) -> Iterator[Found]:
    """The newest copy of each file set that may hold a plan, the most likely first: it is seen in the index, or it may
    be among what Git keeps. Others are not read: a plan must not wait for a set of photographs. Of a set whose newest
    copy has a damaged index an older one is asked; when none can be, the set comes last.
    """
    catalog = opened.catalog()
    kept_by_git: list[Found] = []
    damaged: list[Found] = []
    for service in dict.fromkeys(one.service for one in catalog.entries if one.kind == "files"):
        unread: list[Found] = []
        for found in copies_newest_first(opened, catalog, service, ("files",), instant):
            try:
                there = _lists_a_plan(found)
            except (DamageError, MissingObjectError):
                unread.append(found)
                continue
            if there:
                yield found
            elif found.manifest.facts.get("git"):
                kept_by_git.append(found)
            break
        else:
            damaged += unread[:1]
    yield from (*kept_by_git, *damaged)


def _lists_a_plan(found: Found) -> bool:
    reader = ArtefactReader(found.manifest, found.holders)
    tars = {one.name for one in reader.streams()} & {FILES_TAR, UNTRACKED_TAR}
    return any(member.path == FILE_NAME for tar in sorted(tars) for member in reader.members(tar))


def with_plan_in(opened: Readable, folder: Path) -> tuple[Readable, System] | None:
    """The system of the plan in ``folder``, with the key that opened the repositories; None when there is no plan."""
    file = folder / FILE_NAME
    if not file.is_file():
        return None
    system = System(load(file))
    system.key = opened.repositories[0].key
    return replace(opened, system=system), system


def note_plan(opened: Readable, system: System) -> None:
    """Remember which plan this machine has for the repository at this address."""
    write_note(opened.state_folder / _NOTE, {"plan": str(system.loaded.file)})


def plan_here(opened: Readable) -> tuple[Readable, System] | None:
    """The plan that was brought here from the repository earlier, with its own state folder; None when there is none.

    Who types an address again, to go on with a run or to look at it, means that one.
    """
    said = read_note(opened.state_folder / _NOTE).get("plan")
    made = None if said is None else with_plan_in(opened, Path(str(said)).parent)
    if made is None:
        return None
    readable, system = made
    return replace(readable, state_folder=system.state_folder), system


def no_plan() -> UsageError:
    """What to raise when no file set holds a plan."""
    return UsageError(
        f"no file set in this repository holds a plan ({FILE_NAME})",
        hint="Give the plan with -f FILE, and add it to the paths of a service with engine: files.",
    )
