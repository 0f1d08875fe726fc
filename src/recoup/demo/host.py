"""What a server of the demo needs from this machine: a user, folders, ports, programs it may read, and a clean end.

Servers run as an ordinary user: PostgreSQL refuses root, and the others have no business being it. When root calls,
that user is 65534 (``nobody``); otherwise it is the caller. Whatever a killed process leaves behind is cleaned up
by ``janitor.py``.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from recoup.demo import janitor
from recoup.kernel import clock
from recoup.kernel.errors import EngineError
from recoup.kernel.files import may_enter
from recoup.kernel.process import Child, Command, spawn

_NOBODY = (65534, 65534)
_LONGEST_FOLDER = 60  # a Unix socket's whole path may have 107 bytes
# Above what services use, below where Linux takes the ports of outgoing connections from (32768).
_PORTS = range(11_000, 32_500)


def ordinary_user() -> tuple[int, int] | None:
    """The (uid, gid) servers run as when root calls, else None: then they run as the caller."""
    return _NOBODY if os.geteuid() == 0 else None


class _Keeper:
    """This process's side of the janitor: started with the first server, told of everything that must not stay."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._owner = 0

    def tell(self, **order: object) -> None:
        with self._lock:
            if self._child is None or self._owner != os.getpid():
                # The log must outlive the call; it stays open as long as the janitor runs.
                log = tempfile.TemporaryFile("a+b")  # noqa: SIM115
                program = [sys.executable, "-I", "-S", janitor.__file__]
                self._child = spawn(Command(argv=program, folder=Path("/")), log=log, stdin=True)
                self._owner = os.getpid()
                atexit.register(self._close, self._child, log)
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.write(json.dumps(order).encode() + b"\n")
                self._child.stdin.flush()

    def _close(self, child: Child, log: IO[bytes]) -> None:
        if self._owner == os.getpid():
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
            child.wait(30)
            log.close()


_keeper = _Keeper()


def guard_server(child: Child, polite: signal.Signals) -> None:
    """See to it that a server ends with this process, however this process ends."""
    _keeper.tell(server=child.pid, started=janitor.start_time(child.pid), signal=int(polite))


def release_server(child: Child) -> None:
    """The server has ended; its process id may be used again."""
    _keeper.tell(ended=child.pid)


def new_folder(prefix: str, owner: tuple[int, int] | None, *, mode: int = 0o700) -> Path:
    """A fresh folder with a short path that ``owner`` can reach; removed at the end of this process at the latest."""
    base = Path(tempfile.gettempdir())
    if len(str(base)) > _LONGEST_FOLDER or (owner is not None and not may_enter(base, owner)):
        base = Path("/tmp")  # noqa: S108 the name below is random and made with O_EXCL semantics
    folder = base / f"recoup-{prefix}-{secrets.token_hex(5)}"
    _keeper.tell(folder=str(folder))
    folder.mkdir(mode=0o700)
    if owner is not None:
        os.chown(folder, *owner)
    folder.chmod(mode)
    return folder


def guard_files(pattern: str) -> None:
    """See to it that files a server leaves behind outside its folder (a glob pattern) end with this process."""
    _keeper.tell(files=pattern)


def remove_files(pattern: str) -> None:
    """Remove what ``guard_files`` was told of."""
    folder, _, names = pattern.rpartition("/")
    for path in Path(folder).glob(names):
        path.unlink(missing_ok=True)
    _keeper.tell(unlinked=pattern)


def remove_folder(folder: Path) -> None:
    """Remove what ``new_folder`` made. A file that a dying server still creates meanwhile is removed as well."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        clock.pause(0.05)
    else:
        shutil.rmtree(folder)  # say why it cannot be removed
    _keeper.tell(removed=str(folder))


@contextlib.contextmanager
def temporary_folder(prefix: str = "work", *, mode: int = 0o700) -> Iterator[Path]:
    """A folder that belongs to the servers' user and that it can reach; removed on leaving."""
    folder = new_folder(prefix, ordinary_user(), mode=mode)
    try:
        yield folder
    finally:
        remove_folder(folder)


_copies: dict[Path, Path] = {}
_copies_lock = threading.Lock()


def reachable(program: Path, package: Path | None, owner: tuple[int, int] | None) -> Path:
    """Given a program, return a path under which ``owner`` can run it: the same, or that of a copy.

    ``package`` is the folder whose inner layout the program relies on; ``NAME.libs`` beside it (where wheels keep
    their shared libraries) goes with it. Hard links where possible: then the copy costs no space.
    """
    # Not the program itself: Debian's redis-server is a link whose name says what it shall be.
    program = program.parent.resolve() / program.name
    if owner is None or may_enter(program if program.is_dir() else program.parent, owner):
        return program
    root = program if package is None else package.parent.resolve() / package.name
    with _copies_lock:
        if root not in _copies:
            # The folder stays the caller's: a server must not be able to change its own programs.
            target = new_folder("programs", None, mode=0o755)
            for part in (root, root.with_name(root.name + ".libs")):
                if part.is_dir():
                    shutil.copytree(part, target / part.name, symlinks=True, copy_function=_link_or_copy)
                elif part.is_file():
                    _link_or_copy(str(part), str(target / part.name))
            for folder in target.rglob("*"):
                if folder.is_dir() and not folder.is_symlink():
                    folder.chmod(0o755)
            atexit.register(remove_folder, target)
            _copies[root] = target / root.name
        return _copies[root] / program.relative_to(root)


def _link_or_copy(source: str, target: str) -> None:
    try:
        if os.stat(source).st_mode & 0o004:
            os.link(source, target, follow_symlinks=False)
            return
    except OSError:  # another file system, or links are not allowed
        pass
    shutil.copy2(source, target)
    copy = Path(target)
    copy.chmod(copy.stat().st_mode | 0o444 | (0o111 if os.access(source, os.X_OK) else 0))


class Ports:
    """TCP ports of the loopback that nobody uses, kept for us among all processes that take theirs here.

    A port is kept by an abstract Unix socket of its number: it vanishes with the process and leaves no file. Other
    programs do not know it, so a server that finds its port taken is given another one.
    """

    def __init__(self, count: int, *, twin: int = 0) -> None:
        """Take ``count`` ports; with ``twin``, the port that many above each is free as well."""
        self._leases: list[socket.socket] = []
        self.numbers: list[int] = []
        for _ in range(20_000):
            if len(self.numbers) == count:
                return
            self._try(random.choice(_PORTS), twin)  # noqa: S311 no secret
        self.release()
        raise EngineError(f"found no {count} free ports on 127.0.0.1", hint="Stop what uses so many ports.")

    def _try(self, number: int, twin: int) -> None:
        if number + twin not in _PORTS:
            return
        for candidate in {number, number + twin}:
            lease = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                lease.bind(f"\0recoup-port-{candidate}")
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", candidate))
            except OSError:
                lease.close()
                return  # a lease of the first of two stays with us until release: harmless
            self._leases.append(lease)
        self.numbers.append(number)

    def release(self) -> None:
        """Give the ports back."""
        for lease in self._leases:
            lease.close()
        self._leases.clear()


def wait_until(question: Callable[[], bool], *, limit_seconds: float, every: float = 0.02) -> bool:
    """Ask until the answer is yes, at most ``limit_seconds`` long. Return the last answer."""
    deadline = clock.monotonic() + limit_seconds
    while not (answer := question()) and clock.monotonic() < deadline:
        clock.pause(every)
    return answer
