"""How one reaches a PostgreSQL server: sessions in SQL, and its own programs with their credentials.

``DirectAccess`` knows an address; programs run on this machine. ``ProgramAccess`` knows a ``Runner`` into the server's
container, where both the programs and the server's local socket are. Credentials travel in the environment of the
child, never in its arguments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recoup.engines.postgres.program_session import ProgramSession
from recoup.engines.postgres.programs import Programs, find_programs
from recoup.engines.postgres.session import DirectSession, Session
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, LocalRunner, Runner
from recoup.kernel.secret import Secret

_MAINTENANCE = ("postgres", "template1")
_CONNECTABLE = """
SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2 AND datname <> 'template0'
 ORDER BY datname LIKE 'template%', datname"""


class ServerAccess(Protocol):
    """A way to one server."""

    @property
    def place(self) -> str:
        """The server, for people. Never holds a secret."""
        ...

    def session(self, database: str | None = None) -> Session:
        """Connect to ``database`` (default: the one the address names). Raise ``EngineError``."""
        ...

    def programs(self) -> Programs:
        """The programs that fit the server, found once. Raise ``EngineError`` when there are none."""
        ...

    def command(self, program: str, *arguments: str, database: str | None = None) -> Command:
        """The command that runs one of the server's programs against ``database``, ready to be started here."""
        ...


class DirectAccess:
    """A server by its address, ``postgresql://user:password@host:port/database`` or a ``key=value`` string."""

    def __init__(
        self, url: Secret, *, folders: Sequence[Path] = (), statement_timeout_seconds: float = 6 * 3600
    ) -> None:
        """``folders`` are where to look first for the programs. Raise ``EngineError`` for an unreadable address."""
        self._url = url
        self._folders = folders
        self._timeout = statement_timeout_seconds
        self._programs: Programs | None = None
        try:
            self._parts = {
                key: str(value) for key, value in conninfo_to_dict(url.reveal()).items() if value is not None
            }
        except psycopg.ProgrammingError:
            raise EngineError(
                "the address of the PostgreSQL server cannot be read",
                hint="Write it like postgresql://user@host:5432/database, with special characters percent-encoded.",
            ) from None

    @property
    def place(self) -> str:
        """See ``ServerAccess``."""
        return f"{self._parts.get('host', 'the local socket')}:{self._parts.get('port', '5432')}"

    def session(self, database: str | None = None) -> Session:
        """See ``ServerAccess``."""
        return DirectSession(self._url, database=database, statement_timeout_seconds=self._timeout)

    def programs(self) -> Programs:
        """See ``ServerAccess``."""
        if self._programs is None:
            with open_maintenance(self) as session:
                major = server_major(session)
            self._programs = find_programs(LocalRunner(), server_major=major, folders=self._folders)
        return self._programs

    def command(self, program: str, *arguments: str, database: str | None = None) -> Command:
        """See ``ServerAccess``."""
        parts = {**self._parts, **({} if database is None else {"dbname": database})}
        environment: dict[str, str | Secret] = {"PGAPPNAME": "recoup", "PGCLIENTENCODING": "UTF8", "LC_ALL": "C"}
        for option in psycopg.pq.Conninfo.get_defaults():
            key, variable = option.keyword.decode(), (option.envvar or b"").decode()
            # What the address leaves open (PGPASSWORD, PGSSLMODE) is taken from here, as libpq does for our sessions.
            value = parts.get(key, os.environ.get(variable))
            if value is not None and variable and key not in ("client_encoding", "application_name"):
                environment[variable] = Secret(value) if key in _SECRET_PARTS else value
        return Command(argv=[self.programs().path(program), *arguments], environment=environment)


_SECRET_PARTS = ("password", "sslpassword")


class ProgramAccess:
    """A server by a ``Runner`` into its container; the programs connect over the local socket in there."""

    def __init__(
        self,
        runner: Runner,
        *,
        user: str = "postgres",
        database: str | None = None,
        password: Secret | None = None,
        statement_timeout_seconds: float = 6 * 3600,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """``environment`` adds libpq variables (``PGHOST``, ``PGPORT``) where the defaults there do not fit."""
        self._runner = runner
        self._default = database
        self._timeout = statement_timeout_seconds
        self._folder = folder
        self._programs: Programs | None = None
        self._environment: dict[str, str | Secret] = {
            "PGUSER": user,
            "PGAPPNAME": "recoup",
            "PGCLIENTENCODING": "UTF8",
            "LC_ALL": "C",
            **(environment or {}),
        }
        if password is not None:
            self._environment["PGPASSWORD"] = password

    @property
    def place(self) -> str:
        """See ``ServerAccess``."""
        return str(self._runner)

    def session(self, database: str | None = None) -> Session:
        """See ``ServerAccess``."""
        name = database or self._default or "postgres"
        place = f"database {name!r} in {self._runner}"
        return ProgramSession(self._wrapped("psql", (), name), place=place, statement_timeout_seconds=self._timeout)

    def programs(self) -> Programs:
        """See ``ServerAccess``."""
        if self._programs is None:
            with open_maintenance(self) as session:
                major = server_major(session)
            folders = () if self._folder is None else (self._folder,)
            found = find_programs(self._runner, server_major=major, folders=folders)
            # What runs through a runner given from outside runs beside the server, whatever the runner is.
            self._programs = Programs(runner=found.runner, folder=found.folder, version=found.version, local=False)
        return self._programs

    def command(self, program: str, *arguments: str, database: str | None = None) -> Command:
        """See ``ServerAccess``."""
        return self._wrapped(program, arguments, database or self._default or "postgres")

    def beside(self, *argv: str, timeout_seconds: float) -> Command:
        """The command that runs any program beside the server, in its container, without the server's credentials."""
        return self._runner.wrap(Command(argv=argv, timeout_seconds=timeout_seconds))

    def _wrapped(self, program: str, arguments: Sequence[str], database: str) -> Command:
        path = program if self._folder is None else str(self._folder / program)
        environment = {**self._environment, "PGDATABASE": database}
        return self._runner.wrap(Command(argv=[path, *arguments], environment=environment))


def server_major(session: Session) -> int:
    """The major version of the server behind ``session``."""
    return server_version(session) // 10000


def server_version(session: Session) -> int:
    """``server_version_num`` of the server behind ``session``: 150020 for 15.20."""
    return int(session.query("SELECT current_setting('server_version_num')")[0][0] or 0)


def open_maintenance(access: ServerAccess, *, avoid: str | None = None) -> Session:
    """A session on a database that is there in every cluster: for creating, renaming and listing others.

    Tried in turn: ``postgres``, ``template1``, and the database the address names; never ``avoid``, which is to be
    renamed. Raise ``EngineError``.
    """
    first: EngineError | None = None
    names = (*_MAINTENANCE, None) if avoid is None else tuple(name for name in _MAINTENANCE if name != avoid)
    for name in names:
        try:
            return access.session(name)
        except EngineError as failure:
            if "does not exist" not in failure.message and "not currently accepting" not in failure.message:
                raise
            first = first or failure
    assert first is not None
    raise first


def connectable(access: ServerAccess) -> list[str]:
    """The databases that one can connect to, those of users first, without template0.

    A DROP DATABASE that was cut off leaves one that allows connections and takes none (``datconnlimit`` -2).
    """
    with open_maintenance(access) as session:
        return [str(name) for (name,) in session.query(_CONNECTABLE)]


def dbname_argument(database: str) -> str:
    """``--dbname`` for a program, safe for a name that looks like a connection string itself."""
    return "--dbname=" + make_conninfo(dbname=database)
