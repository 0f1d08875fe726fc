"""A Redis of our own for a copy, closed on all sides: it listens on a socket in a private folder and nowhere else.

Nothing of production's configuration reaches it: no ``replicaof``, no modules, no users, no TLS, no saving. It starts
in its sandbox's network namespace where this machine allows one. Its data end with the sandbox.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recoup.engines.redis.address import RedisAddress
from recoup.engines.redis.connection import (
    Connection,
    LostConnectionError,
    RefusedByServerError,
    connect,
    read_info,
)
from recoup.engines.redis.local_servers import release
from recoup.engines.redis.socket_path import short_path
from recoup.engines.sandbox import Sandbox
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, EngineError, RecoupError, UncheckedError
from recoup.kernel.files import may_enter
from recoup.kernel.process import Child, Command, spawn

SOCKET, CONFIGURATION, DATA, LOG = "socket", "redis.conf", "dump.rdb", "log.txt"
#: How long a server may need until it has its socket, and until it has loaded its data.
START_SECONDS = 60.0
LOAD_SECONDS = 4 * 3600.0
_POLL_SECONDS = 0.02
_STOP_SECONDS = 20.0
_DEFAULT_DATABASES = 16
#: What the log of a server that gives up says when it lacks something, which is no fault of the copy.
_LACKS = (
    (re.compile(r"no matching module(?: type)? '([^']+)'"), "the module {}", "Install a Redis that has it."),
    (
        re.compile(r"Can't handle RDB format version (\d+)"),
        "a server that knows RDB version {}",
        "Install a newer one.",
    ),
    (re.compile(r"([Oo]ut [Oo]f [Mm]emory)"), "memory ({})", "Free memory on this machine, and try again."),
    (re.compile(r"(No space left on device)"), "disk space ({})", "Free space, and try again."),
    (re.compile(r"(bind source path does not exist)"), "a Docker engine that sees this machine's folders ({})", None),
    (re.compile(r"(Permission denied)"), "the right to read its own files ({})", None),
    (re.compile(r"(Bad directive or wrong number of arguments)"), "a server that takes its configuration ({})", None),
)
#: What it says when the data are to blame (Redis, src/rdb.c, src/aof.c and, when it crashed of them, src/debug.c).
_DAMAGED = re.compile(
    r"Wrong RDB checksum|Bad file format|Wrong signature|Short read|Unexpected EOF|Unknown RDB|Internal error in RDB"
    r"|rdb file reading failure|Fatal error loading|[Ii]ntegrity check failed|corrupt|reading the append only"
    r"|ASSERTION FAILED|crashed by signal|BUG REPORT"
)
_TAIL_BYTES = 64 * 1024  # a report of a crash is long


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """A ``redis-server`` that can be started on a folder of a sandbox.

    ``command`` is given the sandbox, the folder and the name of the configuration in it; its program reads its stdin
    and ends when that ends, when it is ``leashed``. ``closed``: it is cut off from every network by itself, as a
    container without one is, whatever the sandbox can do.
    """

    version: str
    where: str  #: for people: a path, ``the image of redis``
    command: Callable[[Sandbox, Path, str], Command]
    leashed: bool = False
    closed: bool = False


def local_launcher(path: str, version: str) -> Launcher:
    """A program of this machine, which runs as the user of the sandbox and behind its walls."""
    return Launcher(
        version=version,
        where=path,
        command=lambda sandbox, folder, configuration: sandbox.command(
            Command(argv=[reachable_program(sandbox, path), configuration], folder=folder)
        ),
    )


def reachable_program(sandbox: Sandbox, path: str) -> str:
    """The program, or a copy of it where the user of the sandbox may not go where it lies (a private home folder)."""
    if sandbox.user is None or may_enter(Path(path).parent, sandbox.user):
        return path
    # Under its own name: Debian's redis-server is redis-check-rdb, and what it is called says what it shall be.
    copy = sandbox.folder / "programs" / Path(path).name
    if not copy.exists():
        copy.parent.mkdir(mode=0o755)
        shutil.copy(path, copy)
        copy.chmod(0o755)
    return str(copy)


class SandboxRedis:
    """A running server of a sandbox."""

    def __init__(self, child: Child, address: RedisAddress, folder: Path, launcher: Launcher) -> None:
        self._child = child
        self.address = address
        self.folder = folder
        self.launcher = launcher

    @property
    def pid(self) -> int:
        """Its process id on this machine (the client's, when it runs in a container)."""
        return self._child.pid

    def connect(self, database: int = 0) -> Connection:
        """A connection to one of its databases. Raise ``EngineError`` with its last words when it has gone."""
        try:
            return connect(self.address, database=database)
        except EngineError as failure:
            if self._child.alive():
                raise
            raise EngineError(f"the server of the sandbox has ended: {_words(_said(self.folder))}") from failure

    def info(self, *sections: str) -> dict[str, str]:
        """The fields of its ``INFO``."""
        with self.connect() as connection:
            return read_info(connection, *sections)

    def stop(self) -> None:
        """End it. Harmless when repeated."""
        if self.launcher.leashed:
            with contextlib.suppress(OSError):
                self._child.stdin.close()  # it ends what it runs elsewhere, and then itself
            with contextlib.suppress(EngineError):
                self._child.wait(_STOP_SECONDS)
        self._child.signal(signal.SIGKILL)  # it holds nothing that is not in the copy
        self._child.wait(_STOP_SECONDS)


def settings_of(version: str, databases: int) -> dict[str, str]:
    """The configuration of a sandbox's server of that version. Everything in it is written out, nothing inherited."""
    settings = {
        "port": "0",
        "unixsocket": SOCKET,
        "unixsocketperm": "700",
        "protected-mode": "yes",
        "daemonize": "no",
        "dir": "./",
        "logfile": '""',
        "dbfilename": DATA,
        "save": '""',
        "appendonly": "no",
        "rdbchecksum": "yes",
        "databases": str(max(_DEFAULT_DATABASES, databases)),
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "proto-max-bulk-len": str(1 << 30),
        # It sends what it holds to whoever reads it for the checks, at once and as slowly as that goes.
        "repl-diskless-sync": "yes",
        "repl-diskless-sync-delay": "0",
        "repl-timeout": "86400",
        "client-output-buffer-limit": "replica 0 0 0",
    }
    if (release(version) or (0, 0)) >= (6, 2):
        settings |= {
            "sanitize-dump-payload": "yes",  # every packed value is looked through while loading
            "set-proc-title": "no",  # it would overwrite the environment, by which processes of a sandbox are known
            "oom-score-adj": "absolute",  # when memory ends, this server goes and not production
            "oom-score-adj-values": "1000 1000 1000",
        }
    return settings


@contextlib.contextmanager
def start_sandbox_redis(
    sandbox: Sandbox,
    launcher: Launcher,
    folder: Path,
    *,
    databases: int = 0,
    load_seconds: float = LOAD_SECONDS,
) -> Iterator[SandboxRedis]:
    """Start a server on ``folder`` (of the sandbox; ``dump.rdb`` in it is loaded) and wait until it has loaded.

    Raise ``DamageError`` when it refuses the data, ``UncheckedError`` naming what is missing when it lacks a module,
    memory or a newer release, and ``EngineError`` when it does not start or is not ready within ``load_seconds``. On
    leaving it is dead.
    """
    text = "".join(f"{name} {value}\n" for name, value in settings_of(launcher.version, databases).items())
    _write_private(folder / CONFIGURATION, text.encode(), sandbox.user)
    with contextlib.ExitStack() as until_stopped:
        log = until_stopped.enter_context(open(_private(folder / LOG), "a+b"))
        child = spawn(launcher.command(sandbox, folder, CONFIGURATION), log=log, stdin=launcher.leashed)
        address = RedisAddress(socket=until_stopped.enter_context(short_path(folder, SOCKET)))
        server = SandboxRedis(child, address, folder, launcher)
        until_stopped.callback(server.stop)
        _wait_until_loaded(child, server, load_seconds)
        yield server


def _wait_until_loaded(child: Child, server: SandboxRedis, load_seconds: float) -> None:
    begun, answered = clock.monotonic(), False
    while True:
        try:
            with connect(server.address):
                return
        except RefusedByServerError as refusal:
            if not refusal.may_retry:  # anything but LOADING
                raise
            answered = True
        except (LostConnectionError, EngineError):
            pass  # it has no socket yet, or not any more
        if not child.alive():
            raise why_ended(_said(server.folder))
        waited = clock.monotonic() - begun
        if waited > (load_seconds if answered else min(START_SECONDS, load_seconds)):
            raise EngineError(
                f"the server of the sandbox has not loaded the copy within {waited:.0f} s",
                hint="This machine is slow or busy; give the verification more time.",
            )
        clock.pause(_POLL_SECONDS)


def why_ended(log: str) -> RecoupError:
    """Given the end of a server's log, return the error for it: what it lacks, what is damaged, or neither. Pure."""
    words = _words(log)
    for pattern, lacking, hint in _LACKS:
        if match := pattern.search(log):
            return UncheckedError(f"the sandbox lacks {lacking.format(match[1])}: {words}", hint=hint)
    if _DAMAGED.search(log):
        return DamageError(f"Redis does not load it: {words}", hint="Use another copy; this one does not load.")
    return EngineError(f"the server of the sandbox did not start, or was killed: {words or 'it said nothing'}")


def _said(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return (folder / LOG).read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    return ""


def _words(log: str) -> str:
    """The last lines that say something, without dates and process ids."""
    lines = [re.sub(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ [.\-*#] ", "", line).strip() for line in log.splitlines()]
    return "; ".join([line for line in lines if line][-3:])[-600:]


def _private(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _write_private(path: Path, data: bytes, owner: tuple[int, int] | None) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as handle:
        if owner is not None:
            os.fchown(handle.fileno(), *owner)
        handle.write(data)
