"""Recovers a base backup to a target in a folder of this machine, with this machine's own PostgreSQL.

Until the end the folder carries a note and ``recovery.signal``: nobody can start it by mistake, and the same call goes
on where an interrupted one stopped, or starts over when it cannot.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from recoup.engines.engine import CopyReader, ProgressListener
from recoup.engines.postgres.control import CONTROL_FILE, ClusterState, parse_control
from recoup.engines.postgres.identity import describe_folder, running_pid
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.place_chain import restore_chain_to_folder
from recoup.engines.postgres.place_files import writing_in
from recoup.engines.postgres.place_folder import unfinish
from recoup.engines.postgres.programs import find_server
from recoup.engines.postgres.recovery_choice import WalFile
from recoup.engines.postgres.recovery_script import RECOVER, SPOOL, Reached, Said, recovery_settings
from recoup.engines.postgres.recovery_target import AtLsn, AtTime, Latest, Target
from recoup.engines.postgres.wal_feed import Fetch, WalFeed
from recoup.engines.postgres.wal_screen import WalScreen
from recoup.kernel import clock, files
from recoup.kernel.errors import BusyError, DamageError, EngineError, RecoupError, RefusedError
from recoup.kernel.process import Command, open_child

#: The note of a recovery that is not finished, in the folder.
RECOVERY_NOTE: Final = "recoup-recovery.json"
_SIGNAL: Final = "recovery.signal"
_SURVIVOR_SECONDS: Final = 60.0


class TargetTooEarlyError(RecoupError):
    """The server met the target before the base backup was consistent: an older base backup is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What to recover: from which base backup, to what, with which WAL. ``roles`` are tried to ask the server."""

    base_id: str
    begin: Lsn  #: where its replay begins
    target: Target
    timeline: int
    end_suffices: bool
    wal: Sequence[WalFile]
    fetch: Fetch
    segment_bytes: int
    roles: Sequence[str] = ("postgres",)
    begun: Callable[[], datetime] | None = None  #: after when, by the server's clock, the base backup surely had begun


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredFolder:
    """A finished recovery in a folder."""

    folder: Path
    tablespaces: Mapping[int, Path]
    reached: Reached
    resumed: bool


def recover_to_folder(
    chain: Sequence[CopyReader],
    folder: Path,
    recovery: Recovery,
    *,
    owner: tuple[int, int] | None = None,
    on_progress: ProgressListener | None = None,
    on_replay: Callable[[int, int], None] = lambda _done, _of: None,
    programs: Sequence[Path] = (),
    server: Path | None = None,
    inside: Callable[[Command], Command] = lambda command: command,
) -> RecoveredFolder:
    """Put a base backup into ``folder`` as ``restore_chain_to_folder`` does, and recover it.

    ``chain`` is a base backup and the incremental ones that follow it, the one to start from last. ``inside`` makes of
    the command that runs the server the one that runs it in a sandbox; ``server`` is the folder of the server's
    programs there (empty: its PATH has them), and None when one of this machine is to be found.

    The result is a cluster on a timeline of its own, cleanly shut down, without a trace of the recovery's settings.
    Raise ``TargetTooEarlyError`` when the base backup is too young for the target, ``EngineError`` when the server
    fails or stops elsewhere, ``RefusedError``, ``BusyError`` and ``DamageError`` as ``restore_chain_to_folder``.
    """
    owner = owner or server_owner(folder)
    reader = chain[-1]
    if server is None:
        server = find_server(int(reader.facts["major"]), user=owner, folders=programs)
    with contextlib.ExitStack() as held:
        note = _Note(folder)
        resumed = note.exists() and note.fits(recovery)
        if note.exists():
            held.enter_context(note.locked())
            _await_survivor(folder)
            if not resumed:
                unfinish(folder, note.tablespaces())
        if not resumed:

            def before_control(place: Path, tablespaces: Mapping[int, Path]) -> None:
                for name in ("standby.signal", SPOOL):
                    _remove(place / name)
                _write(place / _SIGNAL, b"", owner)
                note.write(recovery, tablespaces)

            restore_chain_to_folder(
                chain, folder, owner=owner, on_progress=on_progress, before_control=before_control, programs=programs
            )
            held.enter_context(note.locked())
        said = _recover(server, folder, recovery, reader.facts, owner, on_replay, inside)
        _require_recovered(folder, reader.facts)
        tablespaces = note.tablespaces_by_oid()
        note.remove()
    return RecoveredFolder(folder=folder, tablespaces=tablespaces, reached=said.reached(), resumed=resumed)


def server_owner(folder: Path) -> tuple[int, int] | None:
    """Whom to run the server as: PostgreSQL refuses to run as root. None: as oneself.

    Raise ``RefusedError`` when one is root and there is nobody to take.
    """
    if os.geteuid() != 0:
        return None
    if folder.is_dir() and folder.stat().st_uid != 0:
        return folder.stat().st_uid, folder.stat().st_gid
    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        raise RefusedError(
            "PostgreSQL does not run as root, and this machine has no user 'postgres' to run it as",
            hint=f"Make the folder and give it to the user that shall run PostgreSQL: mkdir {folder} && chown USER "
            f"{folder}; then run the same again.",
        ) from None
    return found.pw_uid, found.pw_gid


def run_recovery(
    start: Callable[[Target, bool], contextlib.AbstractContextManager[Any]],
    recovery: Recovery,
    on_replay: Callable[[int, int], None],
) -> Said:
    """Run the script, by ``start(target, look_ahead)``, until the folder is recovered.

    Once more without the target when the WAL ended before it and that end is the target. Raise ``TargetTooEarlyError``
    or ``EngineError`` with the server's own words, or the error of reading the WAL.
    """
    said = _run_once(start, recovery.target, recovery, on_replay)
    if said.target_not_reached and recovery.end_suffices:
        said = _run_once(start, Latest(), recovery, on_replay)
    if said.finished and not _too_late(recovery, said.reached()):
        return said
    if said.finished or said.target_too_early:
        raise TargetTooEarlyError(f"{recovery.target} comes before the end of the base backup {recovery.base_id}")
    if said.target_not_reached:
        raise EngineError(
            f"the WAL ended before {recovery.target}: it is not in it",
            hint="`recoup windows` shows how far one can go; --to-time and --to-lsn are checked before they start.",
        )
    raise EngineError(f"PostgreSQL did not recover to {recovery.target}: {said.fault}", hint=_hint(said.fault))


def _too_late(recovery: Recovery, reached: Reached) -> bool:
    """Whether the server may have begun after the target: it then stops at the first commit, having replayed none."""
    if not isinstance(recovery.target, AtTime) or reached.last_commit is not None or recovery.begun is None:
        return False
    return recovery.begun() > recovery.target.time


def _run_once(
    start: Callable[[Target, bool], contextlib.AbstractContextManager[Any]],
    target: Target,
    recovery: Recovery,
    on_replay: Callable[[int, int], None],
) -> Said:
    until = target.lsn if isinstance(target, AtLsn) else None
    screen = WalScreen(recovery.segment_bytes, begin=recovery.begin, until=until)

    def fetch(file: WalFile) -> bytes:
        data = recovery.fetch(file)
        return data if file.segment is None else screen.look(file.segment, data)

    def run(look_ahead: bool) -> Said:
        feed = WalFeed(recovery.wal, fetch, segment_bytes=recovery.segment_bytes, on_replay=on_replay)
        with start(target, look_ahead) as peer:
            return feed.run(peer)

    try:
        return run(True)
    except (DamageError, RefusedError):
        # The server reads ahead of what it replays; the target may come before what cannot be had.
        return run(False)


def _hint(fault: str) -> str | None:
    if "No space left" in fault or "could not write" in fault:
        return "Make room on that disk; the same command goes on."
    if "resource manager" in fault:
        return "The WAL was written with an extension's own record types; replay it with the server's own image."
    return "The same command goes on where it stopped, or starts over."


def _recover(
    server: Path,
    folder: Path,
    recovery: Recovery,
    facts: Mapping[str, Any],
    owner: tuple[int, int] | None,
    on_replay: Callable[[int, int], None],
    inside: Callable[[Command], Command],
) -> Said:
    @contextlib.contextmanager
    def start(target: Target, look_ahead: bool) -> Iterator[Any]:
        command = Command(
            argv=[
                *("sh", "-c", RECOVER, "recoup", str(folder)),
                *(str(server / "postgres"), str(server / "psql"), "\n".join(recovery.roles)),
                *recovery_settings(target, recovery.timeline, facts, look_ahead=look_ahead),
            ],
            user=owner,
            folder=Path("/"),
            environment={"LC_ALL": "C"},
        )
        with open_child(inside(command), stdin=True) as child:
            yield child
            child.wait(_SURVIVOR_SECONDS)

    return run_recovery(start, recovery, on_replay)


def _require_recovered(folder: Path, facts: Mapping[str, Any]) -> None:
    """Nothing is believed of a script that was not looked at: it is the cluster, shut down, out of recovery."""
    with writing_in(folder):
        control = parse_control((folder / CONTROL_FILE).read_bytes())
    left = [name for name in (_SIGNAL, SPOOL, "postmaster.pid") if (folder / name).exists()]
    if control.state is not ClusterState.SHUT_DOWN or left:
        raise EngineError(f"{folder} was left in the state {control.state.name}, with {', '.join(left) or 'no trace'}")
    expected = facts.get("system_identifier")
    if expected is not None and control.system_identifier != expected:
        raise EngineError(f"{folder} is of cluster {control.system_identifier} and not of {expected}")


def _await_survivor(folder: Path) -> None:
    """A script whose starter was killed stops its server by itself. Raise ``BusyError`` when it does not."""
    deadline = clock.monotonic() + _SURVIVOR_SECONDS
    while running_pid(folder) is not None:
        if clock.monotonic() > deadline:
            raise BusyError(
                f"a PostgreSQL runs on {folder} (process {running_pid(folder)})", hint="Stop it, then try again."
            )
        clock.pause(0.05)


class _Note:
    """The note in the folder: that it is a recovery, of what, and that it is not finished."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / RECOVERY_NOTE

    def exists(self) -> bool:
        return self._path.is_file()

    def fits(self, recovery: Recovery) -> bool:
        """Whether the folder can go on: the base is in place, not beyond its target, and the target is the same."""
        seen = describe_folder(self._folder)
        same = self._read().get("recovery") == _identity(recovery)
        return same and seen.system_identifier is not None and (self._folder / _SIGNAL).exists()

    def write(self, recovery: Recovery, tablespaces: Mapping[int, Path]) -> None:
        said = {
            "recoup_recovery": 1,
            "state": "unfinished",
            "meaning": "Recoup has not finished recovering this folder. The same recoup command goes on.",
            "recovery": _identity(recovery),
            "tablespaces": {str(oid): str(place) for oid, place in tablespaces.items()},
        }
        files.write_atomically(self._path, json.dumps(said, indent=1).encode() + b"\n")

    def tablespaces_by_oid(self) -> dict[int, Path]:
        said = self._read().get("tablespaces", {})
        return {int(oid): Path(place) for oid, place in said.items()}

    def tablespaces(self) -> list[Path]:
        return list(self.tablespaces_by_oid().values())

    def remove(self) -> None:
        with writing_in(self._folder):
            self._path.unlink()
            files.sync_folder(self._folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        handle = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another recovery is at work in {self._folder}", hint="Wait for it, or end it.") from None
        else:
            yield
        finally:
            os.close(handle)

    def _read(self) -> dict[str, Any]:
        try:
            said = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}


def _identity(recovery: Recovery) -> dict[str, Any]:
    return {"base": recovery.base_id, "target": str(recovery.target), "timeline": recovery.timeline}


def _write(path: Path, data: bytes, owner: tuple[int, int] | None) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(handle, "wb") as out:
        out.write(data)
        if owner is not None:
            os.fchown(handle, *owner)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
