"""A PostgreSQL server over a restored data folder, in a sandbox: nothing it was configured to do, it does.

The copy's ``postgresql.conf``, ``pg_hba.conf`` and ``pg_ident.conf`` are not read, its ``postgresql.auto.conf`` is put
aside, and so are the files that would make it a standby. It listens on a socket in a private folder only, where the
superuser needs no password.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from psycopg.conninfo import make_conninfo

from recoup.engines.postgres.place_files import writing_in
from recoup.engines.postgres.sandbox_faults import judge_start
from recoup.engines.postgres.sandbox_programs import Installation, local_installation
from recoup.engines.postgres.sandbox_settings import closed_settings, preloaded, session_options
from recoup.engines.postgres.session import DirectSession, Session, identifier
from recoup.engines.sandbox import Sandbox
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, EngineError, UncheckedError
from recoup.kernel.process import Child, Command, run, spawn
from recoup.kernel.secret import Secret

_START_SECONDS: Final = 6 * 3600.0
_CONNECT_SECONDS: Final = 60
_STOP_SECONDS: Final = 600.0
_END_SECONDS: Final = 20.0
_ALONE_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.01
_SOCKET, _LOG, _CONFIGURATION, _HBA, _IDENT = "socket", "log", "postgresql.conf", "pg_hba.conf", "pg_ident.conf"
_PORT: Final = "5432"
_LONGEST_SOCKET_FOLDER: Final = 107 - len(f"/.s.PGSQL.{_PORT}")
_LOG_HALF: Final = 256 << 10
_MAINTENANCE: Final = ("postgres", "template1")
_NOT_READ: Final = ("postgresql.auto.conf", "standby.signal", "recovery.signal", "recovery.conf", "postmaster.pid")
_CUSTOM_WAL: Final = re.compile(r"resource manager with ID \d+ not registered")
_WHO: Final = "SELECT rolname FROM pg_catalog.pg_authid WHERE rolsuper AND rolcanlogin ORDER BY oid LIMIT 1\n"
#: The superuser that initdb made: BOOTSTRAP_SUPERUSERID (src/include/catalog/pg_authid.dat). It cannot be dropped.
_FIRST: Final = "SELECT rolname FROM pg_catalog.pg_authid WHERE oid = 10\n"
_ALONE_ANSWER: Final = re.compile(r'rolname = "(.*)"\t\(typeid')


class SandboxServer:
    """A running server. ``folder`` is its data folder, ``programs`` the folder of its programs.

    ``superuser`` is one of the cluster's own; nobody asks for its password. ``owner`` (uid, gid) is whom it runs as.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        folder: Path,
        place: Path,
        *,
        major: int,
        installation: Installation,
        settings: Mapping[str, str],
    ) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.major = major
        self.installation = installation
        self.programs = installation.folder
        self.socket_folder = place / _SOCKET
        self.superuser = "postgres"
        self.owner = sandbox.user
        self._place = place
        self._settings = dict(settings)
        self._child: Child | None = None
        self._log: IO[bytes] | None = None
        self._handle: int | None = None
        self._first: str | None = None

    @property
    def log(self) -> str:
        """What it has said: the first and the last 256 KiB."""
        try:
            with open(self._place / _LOG, "rb") as handle:
                said = handle.read(_LOG_HALF)
                size = handle.seek(0, os.SEEK_END)
                handle.seek(max(len(said), size - _LOG_HALF))
                return (said + handle.read()).decode(errors="replace")
        except FileNotFoundError:
            return ""

    @property
    def database(self) -> str:
        """A database that is there and can be connected to: ``postgres``, or else ``template1``."""
        if self._first is None:
            self._first = self._way_in()
        return self._first

    def session(self, database: str = "postgres", *, statement_timeout_seconds: float = 6 * 3600) -> Session:
        """A connection as the superuser. Raise ``EngineError``."""
        return self._session(database, self.superuser, statement_timeout_seconds)

    def databases(self) -> list[str]:
        """The databases that allow connections, without template0."""
        with self.session(self.database) as session:
            rows = session.query(
                """SELECT datname FROM pg_database
                    WHERE datallowconn AND datconnlimit <> -2 AND datname <> 'template0' ORDER BY datname"""
            )
        return [str(name) for (name,) in rows]

    def program(self, name: str) -> str:
        """The path of one of the server's programs. It may not be there."""
        return self.installation.program(name)

    def variables(self, database: str | None = None) -> dict[str, str | Secret]:
        """What libpq needs in the environment of a program that runs in the sandbox, in the folder of the socket."""
        variables: dict[str, str | Secret] = {
            # The process's own current folder: a path that is short wherever the sandbox is.
            "PGHOST": "/proc/self/cwd" if self._far else str(self.socket_folder),
            "PGPORT": _PORT,
            "PGUSER": self.superuser,
            "PGOPTIONS": session_options(self.major),
            "PGAPPNAME": "recoup",
            "PGCLIENTENCODING": "UTF8",
            "PGCONNECT_TIMEOUT": str(_CONNECT_SECONDS),
            "LC_ALL": "C",
        }
        return variables if database is None else {**variables, "PGDATABASE": database}

    def command(
        self,
        argv: Sequence[str],
        *,
        database: str | None = None,
        timeout_seconds: float | None = None,
        environment: Mapping[str, str | Secret] | None = None,
    ) -> Command:
        """The command that runs a program in the sandbox; libpq in it connects to this server as the superuser."""
        variables = {**self.variables(database), **(environment or {})}
        command = Command(argv=argv, environment=variables, timeout_seconds=timeout_seconds, folder=self.socket_folder)
        return self.installation.inside(self.sandbox, command, False)

    def stop(self) -> None:
        """Shut it down in order, so that its files can be looked at. Harmless when repeated."""
        child, self._child = self._child, None
        try:
            if child is not None:
                child.signal(signal.SIGINT)
                child.wait(_STOP_SECONDS)
                self._drop_leash(child)
        finally:
            self._let_go()

    def end(self) -> None:
        """End it at once: nobody needs its files any more. Harmless when repeated."""
        child, self._child = self._child, None
        if child is not None:
            child.signal(signal.SIGQUIT)  # an immediate shutdown, which leaves no shared memory behind
            self._drop_leash(child)
            with contextlib.suppress(EngineError):  # it was killed then, which is all that is wanted
                child.wait(_END_SECONDS)
        self._let_go()

    def _drop_leash(self, child: Child) -> None:
        if self.installation.leashed:
            with contextlib.suppress(OSError):
                child.stdin.close()

    def _let_go(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def start(self, seconds: float, wanted_libraries: Sequence[str] = ()) -> None:
        """Start it and wait until it answers. ``wanted_libraries`` are loaded only when recovery needs them.

        Raise ``DamageError`` when it cannot for the copy's sake, ``UncheckedError`` for what this machine lacks.
        """
        if not self._started(seconds):
            if not (wanted_libraries and _CUSTOM_WAL.search(self.log)):
                raise self._failure
            (self._place / _LOG).write_bytes(b"")
            self._settings["shared_preload_libraries"] = ", ".join(f'"{name}"' for name in wanted_libraries)
            if not self._started(seconds):
                raise self._failure
        try:
            self._first = self._way_in()
        except EngineError as refused:
            if not re.search(
                r"role .* does not exist|not permitted to log in|must be superuser|permission denied to set",
                refused.message,
            ):
                raise
            self.superuser = self._find_superuser()
            if not self._started(seconds):
                raise self._failure from None
            self._first = self._way_in()

    @property
    def _far(self) -> bool:
        return len(os.fsencode(self.socket_folder)) > _LONGEST_SOCKET_FOLDER

    def _session(self, database: str, user: str, timeout_seconds: float = 60.0) -> Session:
        if self._far and self._handle is None:
            self._handle = os.open(self.socket_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        host = f"/proc/self/fd/{self._handle}" if self._far else str(self.socket_folder)
        address = make_conninfo(
            host=host, port=_PORT, user=user, dbname=database, options=session_options(self.major),
            sslmode="disable", gssencmode="disable",
        )  # fmt: skip
        return DirectSession(
            Secret(address), statement_timeout_seconds=timeout_seconds, connect_timeout_seconds=_CONNECT_SECONDS
        )

    def _way_in(self) -> str:
        """A database to connect to as the superuser. Raise ``EngineError`` with why the first one is not."""
        first: EngineError | None = None
        for database in _MAINTENANCE:
            try:
                self._require_superuser(database)
            except EngineError as failure:
                first = first or failure
            else:
                return database
        assert first is not None
        raise first

    def _require_superuser(self, database: str) -> None:
        with self._session(database, self.superuser) as session:
            if session.query("SELECT current_setting('is_superuser')")[0][0] != "on":
                raise EngineError(f"the role {self.superuser!r} must be superuser")

    def _started(self, seconds: float) -> bool:
        self.stop()
        log = self._log = open(self._place / _LOG, "a+b")  # noqa: SIM115 closed when it has ended
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        argv = [self.program("postgres"), "-D", str(self.folder), *options]
        command = Command(argv=argv, environment={"LC_ALL": "C"}, folder=self.folder)
        leashed = self.installation.leashed
        child = self._child = spawn(self.installation.inside(self.sandbox, command, True), log=log, stdin=leashed)
        deadline = clock.monotonic() + seconds
        while not self._ready():
            if not child.alive():
                status = child.wait(_STOP_SECONDS).exit_status
                self._failure = judge_start(self.log, exit_status=status, major=self.major)
                return False
            if clock.monotonic() > deadline:
                self.stop()
                raise UncheckedError(
                    f"PostgreSQL {self.major} was not ready on the restored copy within {seconds:.0f} s"
                )
            clock.pause(_POLL_SECONDS)
        return True

    def _ready(self) -> bool:
        # The eighth line of postmaster.pid is its state (src/include/utils/pidfile.h).
        try:
            lines = (self.folder / "postmaster.pid").read_text(errors="replace").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _find_superuser(self) -> str:
        """The name of a superuser who may log in, who is made to be one when there is none."""
        self.stop()
        found = self._alone(_WHO)
        if found is None:
            found = self._alone(_FIRST)
            if found is None:
                raise DamageError(
                    "the copy has no superuser, so its catalogue of roles is damaged",
                    hint="Do not count on this copy. Verify the one before it, and take a new one.",
                )
            self._alone(f"ALTER ROLE {identifier(found)} SUPERUSER LOGIN\n")
        return found

    def _alone(self, statement: str) -> str | None:
        """Run one statement in single-user mode, where nobody logs in. Return the name of a role in its answer."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        argv = [self.program("postgres"), "--single", "-D", str(self.folder), *options, "template1"]
        command = Command(argv=argv, environment={"LC_ALL": "C"}, folder=self.folder, timeout_seconds=_ALONE_SECONDS)
        said = run(self.installation.inside(self.sandbox, command, False), stdin=statement.encode(), expect=None)
        match = _ALONE_ANSWER.search(said.stdout.decode(errors="replace"))
        if match is None and said.exit_status != 0:
            raise judge_start(said.stderr, exit_status=said.exit_status, major=self.major)
        return None if match is None else match[1]


@contextlib.contextmanager
def start_sandbox_server(
    sandbox: Sandbox,
    folder: Path,
    *,
    major: int,
    facts: Mapping[str, Any] | None = None,
    programs: Sequence[Path] = (),
    installation: Installation | None = None,
    settings: Mapping[str, str] | None = None,
    start_seconds: float = _START_SECONDS,
) -> Iterator[SandboxServer]:
    """Start a server of exactly this major version on a data folder in the sandbox, and wait until it answers.

    ``facts`` are those of the copy in it. Without an ``installation`` one of this machine is found, in the folders
    ``programs`` first; ``settings`` are added to ours, and win. On leaving it is ended at once. Raise ``DamageError``
    when the copy is why it does not start, ``UncheckedError`` when this machine is, and ``EngineError`` with what to
    install when it has no such server.
    """
    installation = installation or local_installation(sandbox, major, folders=programs)
    place = sandbox.child(f"server-{os.urandom(4).hex()}")
    files = {_HBA: "local all all trust\n", _IDENT: "", _CONFIGURATION: ""}
    with writing_in(place):
        (place / _SOCKET).mkdir(mode=0o700)
        for name, text in files.items():
            (place / name).write_text(text)
        for path in place.iterdir():
            if sandbox.user is not None:
                os.chown(path, *sandbox.user)
    own = {
        "config_file": str(place / _CONFIGURATION),
        "hba_file": str(place / _HBA),
        "ident_file": str(place / _IDENT),
        # Relative to the data folder, where the server is: a path that is short wherever the sandbox is.
        "unix_socket_directories": os.path.relpath(place / _SOCKET, folder),
    }
    put_aside(folder)
    server = SandboxServer(
        sandbox, folder, place, major=major, installation=installation,
        settings={**closed_settings(major, facts), **(settings or {}), **own},
    )  # fmt: skip
    try:
        server.start(start_seconds, preloaded(facts or {}))
        yield server
    finally:
        server.end()


def put_aside(folder: Path) -> None:
    """Take away what would make the server on a restored folder do as it was told, or remember whom it served."""
    with writing_in(folder):
        for name in _NOT_READ:
            (folder / name).unlink(missing_ok=True)
        for slot in (folder / "pg_replslot").glob("*/"):
            shutil.rmtree(slot)


__all__ = ["SandboxServer", "put_aside", "start_sandbox_server"]
