"""A PostgreSQL server over a restored data folder, in a sandbox: nothing it was configured to do, it does.

All settings that matter stand on the command line, which wins over the copy's ``postgresql.auto.conf``; the copy's
``postgresql.conf``, ``pg_hba.conf`` and ``pg_ident.conf`` are not read. It listens on a socket in a private folder
only, archives nothing, fetches nothing, and starts no background worker: with none allowed, neither subscriptions nor
jobs of extensions run.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from psycopg.conninfo import make_conninfo

from recoup.engines.postgres.programs import find_server
from recoup.engines.postgres.session import DirectSession, Session
from recoup.engines.sandbox import Sandbox
from recoup.kernel import clock
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Child, Command, spawn
from recoup.kernel.secret import Secret

_SETTINGS: Final = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "ssl": "off",
    # It sends nothing anywhere and fetches nothing.
    "archive_mode": "off",
    "archive_command": "",
    "restore_command": "",
    "archive_cleanup_command": "",
    "recovery_end_command": "",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "synchronous_standby_names": "",
    "max_wal_senders": "0",
    # Background workers of extensions, and the launcher of subscriptions among them, cannot be started.
    "max_worker_processes": "0",
    "max_logical_replication_workers": "0",
    "shared_preload_libraries": "",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "autovacuum": "off",
    # What it says, it says to its standard error, which is a file of the sandbox.
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "log_line_prefix": "%b ",
    "lc_messages": "C",
    # It is thrown away afterwards.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    # It leaves nothing outside its folder, and takes little of this machine.
    "dynamic_shared_memory_type": "mmap",
    "huge_pages": "off",
    "shared_buffers": "64MB",
    "max_connections": "20",
    # A check may lock every table of a database at once (``emptied.py``).
    "max_locks_per_transaction": "4096",
    "jit": "off",
}
_START_SECONDS: Final = 6 * 3600.0
_CONNECT_SECONDS: Final = 60
_STOP_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02
_SOCKET, _LOG, _CONFIGURATION = "socket", "postgres.log", "configuration"


class SandboxServer:
    """A running server. ``folder`` is its data folder, ``programs`` the folder of its programs.

    ``superuser`` is the cluster's own; nobody asks for its password. ``owner`` (uid, gid) is whom it runs as.
    """

    def __init__(
        self, sandbox: Sandbox, folder: Path, *, major: int, programs: Path, socket_folder: Path, superuser: str
    ) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.major = major
        self.programs = programs
        self.socket_folder = socket_folder
        self.superuser = superuser
        self.owner = sandbox.user
        self._child: Child | None = None
        self._log: IO[bytes] | None = None

    @property
    def log(self) -> str:
        """The last 64 KiB of what it has said."""
        path = self.socket_folder.parent / _LOG
        with open(path, "rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(0, size - (64 << 10)))
            return handle.read().decode(errors="replace")

    def session(self, database: str = "postgres", *, statement_timeout_seconds: float = 6 * 3600) -> Session:
        """A connection as the superuser. Raise ``EngineError``."""
        address = make_conninfo(host=str(self.socket_folder), port="5432", user=self.superuser, dbname=database)
        return DirectSession(
            Secret(address), statement_timeout_seconds=statement_timeout_seconds,
            connect_timeout_seconds=_CONNECT_SECONDS,
        )  # fmt: skip

    def databases(self) -> list[str]:
        """The databases that allow connections, without template0."""
        with self.session("template1") as session:
            rows = session.query(
                "SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'template0' ORDER BY datname"
            )
        return [str(name) for (name,) in rows]

    def program(self, name: str) -> str:
        """The path of one of the server's programs. It may not be there."""
        return str(self.programs / name)

    def command(
        self,
        argv: Sequence[str],
        *,
        database: str | None = None,
        timeout_seconds: float | None = None,
        environment: Mapping[str, str | Secret] | None = None,
    ) -> Command:
        """The command that runs a program in the sandbox; libpq in it connects to this server as the superuser."""
        variables: dict[str, str | Secret] = {
            "PGHOST": str(self.socket_folder),
            "PGPORT": "5432",
            "PGUSER": self.superuser,
            "PGAPPNAME": "recoup",
            "PGCLIENTENCODING": "UTF8",
            "PGCONNECT_TIMEOUT": str(_CONNECT_SECONDS),
            "LC_ALL": "C",
        }
        if database is not None:
            variables["PGDATABASE"] = database
        variables |= environment or {}
        return self.sandbox.command(Command(argv=argv, environment=variables, timeout_seconds=timeout_seconds))

    def stop(self) -> None:
        """Shut it down in order, so that its files can be looked at. Harmless when repeated."""
        child, self._child = self._child, None
        if child is None:
            return
        child.signal(signal.SIGINT)
        child.wait(_STOP_SECONDS)
        if self._log is not None:
            self._log.close()

    def _start(self, settings: Mapping[str, str], seconds: float) -> None:
        self._log = open(self.socket_folder.parent / _LOG, "a+b")  # noqa: SIM115 closed when it has ended
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        argv = [self.program("postgres"), "-D", str(self.folder), *options]
        command = Command(argv=argv, environment={"LC_ALL": "C"}, folder=self.folder)
        child = self._child = spawn(self.sandbox.command(command), log=self._log)
        deadline = clock.monotonic() + seconds
        while not self._ready():
            if not child.alive():
                raise EngineError(f"PostgreSQL {self.major} did not start on the restored copy: {self._last_words()}")
            if clock.monotonic() > deadline:
                raise EngineError(f"PostgreSQL {self.major} is not ready after {seconds:.0f} s")
            clock.pause(_POLL_SECONDS)

    def _ready(self) -> bool:
        # The eighth line of postmaster.pid is its state (src/include/utils/pidfile.h).
        try:
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return len(lines) >= 8 and lines[7].strip() in ("ready", "standby")

    def _last_words(self) -> str:
        return " ".join(self.log.strip().splitlines()[-3:])


@contextlib.contextmanager
def start_sandbox_server(
    sandbox: Sandbox,
    folder: Path,
    *,
    major: int,
    superuser: str = "postgres",
    programs: Sequence[Path] = (),
    settings: Mapping[str, str] | None = None,
    start_seconds: float = _START_SECONDS,
) -> Iterator[SandboxServer]:
    """Start a server of exactly this major version on a data folder in the sandbox, and wait until it answers.

    ``programs`` are the folders to look for it first; ``settings`` are added to ours. On leaving it is shut down.
    Raise ``EngineError`` naming the package to install when there is no such server, or with its last words.
    """
    found = find_server(major, user=sandbox.user, folders=programs)
    place = sandbox.child(f"server-{os.urandom(4).hex()}")
    socket_folder = place / _SOCKET
    files = {"hba": "local all all trust\n", "ident": "", _CONFIGURATION: ""}
    for name, text in files.items():
        (place / name).write_text(text)
    socket_folder.mkdir(mode=0o700)
    if sandbox.user is not None:
        for path in (socket_folder, *(place / name for name in files)):
            os.chown(path, *sandbox.user)
    server = SandboxServer(
        sandbox, folder, major=major, programs=found, socket_folder=socket_folder, superuser=superuser
    )
    own = {
        "config_file": str(place / _CONFIGURATION),
        "hba_file": str(place / "hba"),
        "ident_file": str(place / "ident"),
        "unix_socket_directories": str(socket_folder),
    }
    try:
        server._start({**_SETTINGS, **(settings or {}), **own}, start_seconds)
        yield server
    finally:
        server.stop()


__all__ = ["SandboxServer", "start_sandbox_server"]
