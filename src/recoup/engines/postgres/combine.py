"""Making one data folder of a base backup and the incremental ones after it, with PostgreSQL's own pg_combinebackup."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recoup.engines.postgres.programs import find_exactly
from recoup.kernel.errors import DamageError, EngineError
from recoup.kernel.process import Command, failure_of, open_child

_PROGRAM: Final = "pg_combinebackup"
_LINKS_SINCE: Final = 18
#: The visibility map of a table, of which a backup holds the changed blocks only.
_PART_OF_A_MAP: Final = re.compile(r"INCREMENTAL\.(\d+_vm(?:\.\d+)?)")
#: The program must not outlive us and write where the next restore has begun. It ends when our end of its standard
#: input closes, which happens however we end (kernel/leash.py does the same for our own programs).
_ON_A_LEASH: Final = """
exec 3<&0
"$@" </dev/null 3<&- & program=$!
{ read -r _ <&3; kill -KILL $program; } 2>/dev/null & leash=$!
exec 3<&-
wait $program; status=$?
kill $leash 2>/dev/null
exit $status
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combiner:
    """A ``pg_combinebackup`` of the right major version. ``user`` (uid, gid) runs it; None is ourselves."""

    program: Path
    major: int
    user: tuple[int, int] | None

    @property
    def links(self) -> bool:
        """Whether it takes whole files over by hard links, so that they need no room of their own."""
        return self.major >= _LINKS_SINCE

    def combine(self, inputs: Sequence[Path], output: Path, spaces: Mapping[Path, Path]) -> None:
        """Make ``output`` of the backups in ``inputs``, which are unpacked, the oldest first.

        ``spaces`` maps the folders of the newest one's tablespaces to those that are made. All must be on one file
        system with their inputs. Nothing is synced. Raise ``EngineError`` with what the program said, ``DamageError``
        when it says that the backups do not fit together.
        """
        argv = [str(self.program), "--no-sync", "--output", str(output)]
        if self.links:
            argv.append("--link")
        for old, new in spaces.items():
            argv.append(f"--tablespace-mapping={_escaped(old)}={_escaped(new)}")
        argv += map(str, inputs)
        command = Command(
            argv=["sh", "-c", _ON_A_LEASH, "recoup", *argv],
            user=self.user,
            folder=Path("/"),
            environment={"LC_ALL": "C"},
        )
        with open_child(command, stdin=True, stdout=False) as child:
            done = child.wait()
        if done.exit_status != 0:
            said = failure_of(done).message.replace("sh ended", f"{_PROGRAM} ended", 1)
            raise _explained(said)


def find_combiner(major: int, *, user: tuple[int, int] | None = None, folders: Sequence[Path] = ()) -> Combiner:
    """The ``pg_combinebackup`` for backups of this major version. Raise ``EngineError`` with what to install."""
    try:
        why = "an incremental backup is put together with it"
        program = find_exactly(_PROGRAM, major, user=user, folders=folders, why=why)
    except EngineError as missing:
        missing.hint = f"{missing.hint} Or restore a base backup instead: --kind base."
        raise
    return Combiner(program=program, major=major, user=user)


def drop_stale_maps(newest: Path, made: Path) -> None:
    """Remove the visibility maps that were put together from ``made``; ``newest`` is the last backup of the same place.

    Who deletes a row clears a bit of the map, and the WAL does not name the block of it: servers of 17 leave it out of
    the incremental backup (seen with 17.10; 18.6 sends every map whole). A map put together of such parts still says
    that all rows of a page are there: deleted ones come back through an index, and VACUUM passes the page over. Without
    a map the server looks into every page, and VACUUM makes a new one.
    """
    for part in newest.rglob("INCREMENTAL.*_vm*"):
        if name := _PART_OF_A_MAP.fullmatch(part.name):
            (made / part.relative_to(newest).with_name(name[1])).unlink(missing_ok=True)


def _escaped(path: Path) -> str:
    return os.fspath(path).replace("=", "\\=")


def _explained(said: str) -> EngineError | DamageError:
    if "No space left" in said or "Disk quota" in said:
        return EngineError(
            said, hint="Make room on that disk, or restore to another one; the same command starts over."
        )
    if "starts at LSN" in said or "system identifier" in said or "is a full backup" in said:
        return DamageError(said, hint="The backups do not follow each other. Restore an earlier one.")
    return EngineError(said, hint="The same command starts over; `recoup verify` says whether the copies are whole.")
