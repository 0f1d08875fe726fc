"""A closed place to bring a copy to life in: a private folder and processes of its own, which never outlast it.

Whose a sandbox is says a note beside it, which its owner keeps locked for as long as it lives: a note that can be
locked belongs to nobody any more, however its owner ended. Every process of a sandbox carries the sandbox's id in its
environment (``SANDBOX_VARIABLE``), so that it can be found when nobody remembers having started it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from recoup.engines.sandbox_processes import SANDBOX_VARIABLE, end_processes
from recoup.engines.sandbox_walls import Walls, find_walls
from recoup.kernel import clock
from recoup.kernel.errors import BusyError, EngineError
from recoup.kernel.files import may_enter, sync_folder
from recoup.kernel.process import Command

__all__ = ["SANDBOX_VARIABLE", "Sandbox", "clean_leftovers", "open_sandbox"]

_DOOR: Final = "door.lock"
_DOOR_SECONDS: Final = 30.0
_NOTE_SUFFIX: Final = ".json"
_FAR_PREFIX: Final = "recoup-sandbox-"
_FAR_PLACE: Final = Path("/var/tmp")  # noqa: S108 the name in it is random, and made so that nobody else's is taken
_NOBODY: Final = 65534
_ATTEMPTS, _AGAIN_SECONDS = 20, 0.1

#: Removes what a sandbox has outside its folder (containers, say), given its id. Must be harmless when repeated.
RemoveElsewhere = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """An open sandbox. ``folder`` is private (0700), and all of it is removed at the end.

    ``user`` (uid, gid) is whom its programs run as: never root, and nobody who owns anything of production. None is
    ourselves, where we are not root.
    """

    id: str
    folder: Path
    user: tuple[int, int] | None
    walls: Walls

    @property
    def network_closed(self) -> bool:
        """Whether its processes have no network at all. Where they might, findings must say so in ``not_checked``."""
        return self.walls.network_closed

    @property
    def open_ways(self) -> str:
        """What could have led out of it, for ``not_checked`` of findings; empty when nothing could."""
        if not self.walls.network_closed:
            return "that nothing left this machine: it allows no namespaces (unshare), so the network was open"
        if not self.walls.sockets_hidden:
            return "that it met no other service of this machine: their sockets in the file system were within reach"
        return ""

    def child(self, name: str) -> Path:
        """A new, private folder in it, which belongs to ``user``. ``name`` is unused so far."""
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        if self.user is not None:
            os.chown(folder, *self.user)
        return folder

    def command(self, command: Command) -> Command:
        """Given a command, return the one that runs it in this sandbox: marked, without network, never as root.

        It runs as ``command.user``, or else as ``user``, in ``command.folder``, or else in ``folder``. Of our own
        environment it sees only what programs need; what ``command.environment`` names it is given.
        """
        inside = replace(
            command,
            environment={
                "HOME": str(self.folder),
                "TMPDIR": str(self.folder),
                **command.environment,
                SANDBOX_VARIABLE: self.id,
            },
            folder=command.folder or self.folder,
            user=command.user or self.user,
        )
        return self.walls.around(inside, self.folder)


@contextlib.contextmanager
def open_sandbox(root: Path, purpose: str, *, elsewhere: RemoveElsewhere | None = None) -> Iterator[Sandbox]:
    """Open a sandbox in ``root``, which is made when missing; at the end its processes and its folder are removed.

    When the folder could not be reached by the user that its programs run as, it is made as near to ``root`` as that
    user gets. Call ``clean_leftovers`` first. Raise ``EngineError`` when something of it cannot be removed: then the
    note stays, and the next cleaning tries again.
    """
    user = _programs_user()
    identifier = secrets.token_hex(8)
    with _made_in(root):
        folder = _place(root, identifier, user)
    with _noted(root, identifier, folder, purpose) as note:
        try:
            with _made_in(root):
                folder.mkdir(mode=0o700)
                if user is not None:
                    os.chown(folder, *user)
            yield Sandbox(id=identifier, folder=folder, user=user, walls=find_walls())
        finally:
            _remove(identifier, folder, elsewhere)
            note.unlink()


def clean_leftovers(root: Path, *, elsewhere: RemoveElsewhere | None = None) -> tuple[str, ...]:
    """Remove the sandboxes in ``root`` whose owner is dead, and return their ids. Those of the living stay.

    Raise ``EngineError`` when one cannot be removed, after all others have been.
    """
    if not root.is_dir():
        return ()
    removed, failures = [], []
    with contextlib.ExitStack() as locks:
        ownerless = []
        with _door(root):
            for note in sorted(root.glob("*" + _NOTE_SUFFIX)):
                handle = _lock_if_ownerless(note)
                if handle is not None:
                    locks.callback(os.close, handle)
                    ownerless.append(note)
        for note in ownerless:
            identifier = note.name.removesuffix(_NOTE_SUFFIX)
            try:
                folder = _noted_folder(note, root)
                if folder is not None:  # without it, its owner died before anything of it was made
                    _remove(identifier, folder, elsewhere)
                note.unlink()
            except EngineError as failure:
                failures.append(failure)
            else:
                removed.append(identifier)
    if failures:
        raise failures[0]
    return tuple(removed)


# -- where ---------------------------------------------------------------------------------------------------------


def _programs_user() -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam("nobody")
    except KeyError:
        return _NOBODY, _NOBODY
    return found.pw_uid, found.pw_gid


def _place(root: Path, identifier: str, user: tuple[int, int] | None) -> Path:
    root.mkdir(parents=True, exist_ok=True, mode=0o711)
    if user is None or may_enter(root, user):
        return root.absolute() / identifier
    for folder in list(root.absolute().parents)[:-1]:
        if may_enter(folder, user) and os.access(folder, os.W_OK):
            return folder / (_FAR_PREFIX + identifier)
    return _FAR_PLACE / (_FAR_PREFIX + identifier)


@contextlib.contextmanager
def _made_in(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise EngineError(
            f"a sandbox cannot be made in {root}: {failure.strerror or failure}",
            hint="Make room, or set $RECOUP_STATE to a folder that may be written to.",
        ) from failure


# -- whose ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _noted(root: Path, identifier: str, folder: Path, purpose: str) -> Iterator[Path]:
    """Keep a locked note of a sandbox. It is on the disk before anything of the sandbox is made."""
    note = root / (identifier + _NOTE_SUFFIX)
    said = {
        "recoup_sandbox": 1,
        "meaning": "A sandbox of Recoup. Its owner keeps this file locked; without one, the next run removes it.",
        "purpose": purpose,
        "process": os.getpid(),
        "folder": str(folder),
        "begun": clock.to_text(clock.now()),
    }
    with _made_in(root), _door(root):
        handle = os.open(note, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        with _made_in(root):
            os.write(handle, json.dumps(said, indent=1).encode() + b"\n")
            os.fsync(handle)
            sync_folder(root)
        yield note
    finally:
        os.close(handle)


@contextlib.contextmanager
def _door(root: Path) -> Iterator[None]:
    """One at a time looks for ownerless notes or makes one: a new note is locked before anyone else can see it."""
    handle = os.open(root / _DOOR, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    deadline = clock.monotonic() + _DOOR_SECONDS
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock.monotonic() > deadline:
                    raise BusyError(f"somebody else has been opening a sandbox in {root} for long") from None
                clock.pause(0.02)
        yield
    finally:
        os.close(handle)


def _lock_if_ownerless(note: Path) -> int | None:
    try:
        handle = os.open(note, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _noted_folder(note: Path, root: Path) -> Path | None:
    """The folder that a note speaks of, when it is one that ``open_sandbox`` makes. None when nothing was written.

    Raise ``EngineError`` for a note that says anything else: nothing is removed on its word.
    """
    text = note.read_bytes()
    if not text:
        return None
    identifier = note.name.removesuffix(_NOTE_SUFFIX)
    try:
        folder = Path(json.loads(text)["folder"])
    except (ValueError, KeyError, TypeError):
        folder = Path()
    if folder.name == _FAR_PREFIX + identifier or folder == root.absolute() / identifier:
        return folder
    raise EngineError(
        f"{note} is not a note of a sandbox as Recoup writes them", hint="Look at it, and remove it by hand."
    )


# -- the end -------------------------------------------------------------------------------------------------------


def _remove(identifier: str, folder: Path, elsewhere: RemoveElsewhere | None) -> None:
    end_processes(identifier)
    if elsewhere is not None:
        elsewhere(identifier)
    if folder.is_symlink():
        raise EngineError(f"the folder of the sandbox {identifier} was replaced by a link", hint=_BY_HAND)
    for _ in range(_ATTEMPTS):
        # What ends elsewhere at this moment (a container) may still make a file.
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        clock.pause(_AGAIN_SECONDS)
    try:
        shutil.rmtree(folder)
    except OSError as failure:
        raise EngineError(
            f"the folder of the sandbox {identifier} cannot be removed: {failure.filename}: {failure.strerror}",
            hint=_BY_HAND,
        ) from failure


_BY_HAND: Final = "Remove what keeps it; the next run removes the rest."
