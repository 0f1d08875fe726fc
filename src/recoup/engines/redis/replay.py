"""Building the data set of an instant: a scratch Redis loads an RDB and replays the commands after it.

The RDB becomes the base of an append-only log and the commands its continuation, and a server of the same release
loads both, as it would after a crash (Redis, src/aof.c). While a Redis loads, nothing expires: a key that was alive
when a command touched it is alive for that command, however long ago that was. The scratch server starts as a replica
of nobody, so that nothing expires after loading either, and saves what it holds. It listens on a socket in a private
folder only.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recoup.engines.redis.address import RedisAddress
from recoup.engines.redis.command_log import LoggedCommand
from recoup.engines.redis.commands import arguments, encode
from recoup.engines.redis.connection import LostConnectionError, RefusedByServerError, connect
from recoup.engines.redis.restore_folder import multi_part_names
from recoup.engines.redis.seal import newest_loadable
from recoup.engines.redis.socket_path import short_path
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, EngineError, UsageError
from recoup.kernel.process import Child, Command, run, spawn

_POLL_SECONDS = 0.05
_START_SECONDS = 60.0
_LOAD_SECONDS = 4 * 3600.0
_SAVE_SECONDS = 4 * 3600.0
_STOP_SECONDS = 20.0
_LOG, _FOLDER = "appendonly.aof", "appendonlydir"
SOCKET, CONFIGURATION, BUILT = "socket", "scratch.conf", "built.rdb"
_PROGRAMS = ("redis-server", "valkey-server")
#: No server replicates these. A log that holds one was made by somebody, and a server that loads it would obey.
_NEVER_REPLICATED = frozenset(
    b"ACL BGREWRITEAOF BGSAVE CLUSTER CONFIG DEBUG FAILOVER MIGRATE MODULE MONITOR PSYNC REPLICAOF SAVE SHUTDOWN "
    b"SLAVEOF SYNC".split()
)


@dataclass(slots=True, kw_only=True)
class CommandCut:
    """Passes on the commands behind ``after`` (an offset) that came up to ``until_ms``; says what it passed on.

    ``until_offset``: where it ends as well, when that comes first.
    """

    after: int
    until_ms: int
    until_offset: int | None = None
    commands: int = field(default=0, init=False)
    last_ms: int | None = field(default=None, init=False)  #: when the last command passed on had come
    offset: int = field(init=False)  #: behind the last command passed on
    ended: bool = field(default=False, init=False)  #: a command came after ``until_ms``
    _database: bytes | None = field(default=None, init=False)
    _stated: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.offset = self.after

    def pass_on(self, commands: Iterable[LoggedCommand], end: int) -> Iterator[bytes]:
        """The bytes to replay of one segment, which ends at ``end``. Raise ``DamageError`` when it does not fit."""
        for command in commands:
            if command.name in _NEVER_REPLICATED:
                raise DamageError(
                    f"the command stream holds {command.name.decode()}, which no server replicates",
                    hint="Do not replay it: restore a copy as it is, and find out who wrote into the repository.",
                )
            selects = command.name == b"SELECT"
            if selects:
                self._database = arguments(command.data)[1]
            if command.offset < self.offset:
                continue  # before the RDB, or in an earlier segment as well
            # Where it begins counts: a command that was rewritten (a time to live made absolute) may read longer.
            if command.at_ms > self.until_ms or (self.until_offset is not None and command.offset >= self.until_offset):
                self.ended = True
                return
            if not self._stated and not selects and command.name != b"MULTI":
                if self._database is None:
                    raise DamageError("the command stream does not say which database its first command is for")
                yield encode(b"SELECT", self._database)
            self._stated = self._stated or command.name != b"MULTI"
            yield command.data
            if command.name not in (b"SELECT", b"MULTI", b"EXEC"):
                self.commands += 1
                self.last_ms = command.at_ms
        self.offset = end


#: The replay inside a throw-away container of the service's own image: the layout comes in as a tar, the RDB goes out.
IMAGE_SCRIPT = r"""set -eu
umask 077
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null; rm -rf "$folder"' EXIT
trap 'exit 130' HUP INT TERM
cd "$folder"
tar -xf -
printf 'dir %s\nunixsocket %s/socket\n' "$folder" "$folder" >>scratch.conf
redis-server ./scratch.conf >log.txt 2>&1 &
server=$!
ask() { redis-cli -s "$folder/socket" "$@"; }
until [ "$(ask PING 2>/dev/null)" = PONG ]; do
    if ! kill -0 "$server" 2>/dev/null; then
        tail -n 3 log.txt >&2
        server=
        exit 3
    fi
    sleep 1
done
if [ "$(ask SAVE)" != OK ]; then
    tail -n 3 log.txt >&2
    exit 4
fi
cat built.rdb
"""


def image_settings(databases: int, *, multi_part: bool) -> bytes:
    """The configuration of the server that ``IMAGE_SCRIPT`` starts; it adds the folder."""
    settings = _settings(databases) | ({"appenddirname": _FOLDER} if multi_part else {})
    return "".join(f"{name} {value}\n" for name, value in settings.items()).encode()


def _settings(databases: int) -> dict[str, str]:
    return {
        "port": "0",
        "dbfilename": BUILT,
        "appendonly": "yes",
        "appendfilename": _LOG,
        "appendfsync": "no",
        "aof-load-truncated": "no",
        "save": '""',
        "databases": str(databases),
        "replicaof": "127.0.0.1 1",
        "daemonize": "no",
        "logfile": '""',
        "rdbchecksum": "yes",
        "proto-max-bulk-len": str(1 << 30),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchProgram:
    """A ``redis-server`` of this machine and its version."""

    path: str
    version: str

    @property
    def multi_part(self) -> bool:
        """Whether its append-only log is a folder with a manifest, and may hold annotations."""
        return int(self.version.split(".")[0]) >= 7


def find_scratch_program(rdb_version: int, server_version: str) -> ScratchProgram:
    """The ``redis-server`` in the PATH, when it loads the RDB and writes one that ``server_version`` loads.

    Raise ``UsageError`` saying what to install.
    """
    major_minor = ".".join(server_version.split(".")[:2]) or "of that version"
    hint = f"Install Redis {major_minor} on this machine (redis-server in the PATH; it need not run)."
    seen = []
    for name in _PROGRAMS:
        path = shutil.which(name)
        if path is None:
            continue
        said = run(Command(argv=[path, "--version"], timeout_seconds=20)).stdout.decode(errors="replace")
        match = re.search(r"v=(\d+\.\d+\.\d+)", said)
        if match is None:
            continue
        writes = newest_loadable(match[1])
        if writes >= rdb_version and (not server_version or writes <= newest_loadable(server_version)):
            return ScratchProgram(path=path, version=match[1])
        seen.append(f"{path} is {match[1]}")
    found = "; ".join(seen) or "there is no redis-server in the PATH"
    raise UsageError(f"the commands of Redis {server_version} cannot be replayed here: {found}", hint=hint)


class Scratch:
    """A private folder, and in it the files and the server of one replay.

    ``inside`` puts the server's command into a sandbox, whose programs run as ``owner``.
    """

    def __init__(
        self,
        folder: Path,
        program: ScratchProgram,
        *,
        inside: Callable[[Command], Command] = lambda command: command,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self.folder, self.program = folder, program
        self._inside, self._owner = inside, owner

    def write(self, rdb: Iterable[bytes], commands: Iterable[bytes]) -> None:
        """Lay out the append-only log: the RDB, and the commands behind it. Raise ``EngineError`` for a full disk."""
        try:
            if not self.program.multi_part:
                self._write(self.folder / _LOG, rdb, commands)
                return
            log = self.folder / _FOLDER
            log.mkdir(mode=0o700)
            if self._owner is not None:
                os.chown(log, *self._owner)
            base, manifest = multi_part_names(_LOG, 1)
            increment = f"{_LOG}.1.incr.aof"
            self._write(log / base, rdb)
            self._write(log / increment, commands)
            self._write(log / manifest, [f"file {base} seq 1 type b\nfile {increment} seq 1 type i\n".encode()])
        except OSError as failure:
            raise EngineError(
                f"cannot lay out the replay in {self.folder}: {failure.strerror or failure}",
                hint="It needs room for the RDB twice and for the commands; name another folder in TMPDIR.",
            ) from failure

    def replay(self, *, databases: int) -> Path:
        """Load it all, and save it again: the path of the RDB that was built.

        Raise ``EngineError`` with the server's last words when it cannot load the log.
        """
        settings = _settings(databases) | {"dir": "./", "unixsocket": SOCKET}
        if self.program.multi_part:
            settings["appenddirname"] = _FOLDER
        configuration = self.folder / CONFIGURATION
        self._write(configuration, ["".join(f"{name} {value}\n" for name, value in settings.items()).encode()])
        with open(self.folder / "log.txt", "a+b") as log:
            command = Command(argv=[self.program.path, CONFIGURATION], folder=self.folder)
            child = spawn(self._inside(command), log=log)
            try:
                self._save(child)
            finally:
                child.signal(signal.SIGKILL)  # it holds nothing that is not in the file
                child.wait(_STOP_SECONDS)
        return self.folder / BUILT

    def _save(self, child: Child) -> None:
        with short_path(self.folder, SOCKET) as socket:
            self._save_by(child, RedisAddress(socket=socket))

    def _save_by(self, child: Child, address: RedisAddress) -> None:
        self._wait_until_loaded(child, address)
        with connect(address) as link:
            link.limit_silence(_SAVE_SECONDS)
            try:
                link.command("SAVE")
            except (RefusedByServerError, LostConnectionError) as failure:
                raise EngineError(f"the scratch server could not save: {failure.message}; {self._words()}") from failure

    def _wait_until_loaded(self, child: Child, address: RedisAddress) -> None:
        begun, answered = clock.monotonic(), False
        while True:
            try:
                with connect(address):
                    return
            except RefusedByServerError as refusal:  # LOADING
                if not refusal.may_retry:
                    raise
                answered = True
            except EngineError:
                pass  # it has no socket yet, or not any more
            if not child.alive():
                raise EngineError(
                    f"the scratch server could not load the command stream: {self._words()}",
                    hint="Restore to the time of a copy: `recoup restore ID`; `recoup list` shows the copies.",
                )
            if clock.monotonic() - begun > (_LOAD_SECONDS if answered else _START_SECONDS):
                raise EngineError(f"the scratch server is not ready after {clock.monotonic() - begun:.0f} s")
            clock.pause(_POLL_SECONDS)

    def _words(self) -> str:
        text = (self.folder / "log.txt").read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
        return " ".join(text[-3:])

    def _write(self, path: Path, *parts: Iterable[bytes]) -> None:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            if self._owner is not None:
                os.fchown(handle.fileno(), *self._owner)
            for part in parts:
                handle.writelines(part)
