"""A real PostgreSQL on the loopback."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg

from recoup.demo.host import reachable
from recoup.demo.programs import Programs
from recoup.demo.server import Server
from recoup.kernel.process import Command, run


class PostgresServer(Server):
    """A PostgreSQL cluster. Superuser ``user``; checksums on; replication connections allowed; ``wal_level`` replica.

    ``auth`` is what local and TCP connections must show; with ``scram-sha-256`` a random password is made unless one
    is given. ``durable=False`` (the default) turns fsync off: fine as long as the machine itself stays up.
    ``settings`` are configuration parameters and win over everything in the data folder's own files.

    With ``data_folder``, no cluster is made: the one there (a restored copy, say) is given to the server's user and
    started. It keeps its own ``pg_hba.conf`` and is not removed at the end.
    """

    _polite = signal.SIGINT  # fast shutdown
    _rude = _last = signal.SIGQUIT  # immediate shutdown: nothing is left in shared memory

    def __init__(
        self,
        programs: Programs,
        *,
        user: str = "postgres",
        auth: Literal["trust", "scram-sha-256"] = "trust",
        password: str | None = None,
        settings: Mapping[str, str] | None = None,
        durable: bool = False,
        data_folder: Path | None = None,
        initdb_arguments: Sequence[str] = (),
    ) -> None:
        super().__init__("PostgreSQL", ports=1)
        self.bin = reachable(programs.path, programs.package, self.owner)
        self.user = user
        self.auth = auth
        self.password = password or (secrets.token_urlsafe(12) if auth != "trust" else None)
        self.settings = dict(settings or {})
        self._durable = durable
        self._given = data_folder
        self._initdb_arguments = tuple(initdb_arguments)

    @property
    def major(self) -> int:
        """The major version of the data folder: 14 to 18."""
        return int((self.data_folder / "PG_VERSION").read_text())

    @property
    def data_folder(self) -> Path:
        """``PGDATA``."""
        return self._given or self.root / "data"

    @property
    def socket_folder(self) -> Path:
        """Where the Unix socket is."""
        return self.root

    def url(self, database: str = "postgres", *, user: str | None = None, password: str | None = None) -> str:
        """The address of a database over TCP, with the superuser's name and password unless others are given."""
        word = password if password is not None or user is not None else self.password
        credentials = quote(user or self.user, safe="") + (f":{quote(word, safe='')}" if word else "")
        return f"postgresql://{credentials}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection as the superuser, in autocommit mode unless told otherwise."""
        return psycopg.connect(self.url(database), **{"autocommit": True, "connect_timeout": 10, **options})

    def execute(self, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser and return its rows, if it has any."""
        with self.connect(database) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def new_database(self, prefix: str = "db") -> str:
        """Create an empty database with a name of its own and return the name."""
        name = f"{prefix}_{secrets.token_hex(4)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return name

    def program(self, name: str) -> str:
        """The path of one of its programs: ``psql``, ``pg_dump``, ``pg_verifybackup`` ..."""
        return str(self.bin / name)

    def adopt(self) -> None:
        """Give the data folder, which somebody else has filled, to the server's user."""
        for folder, _, files in os.walk(self.data_folder):
            self._give(Path(folder))
            for name in files:
                self._give(Path(folder) / name)
        self.data_folder.chmod(0o700)

    def _prepare(self) -> None:
        if self._given is not None:
            self.adopt()
            return
        arguments = ["--no-sync", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", f"--auth={self.auth}"]
        if self.password is not None:
            arguments.append(f"--pwfile={self._own_file('password', self.password + chr(10))}")
        self._make_cluster([*arguments, *self._initdb_arguments])
        with contextlib.suppress(FileNotFoundError):
            (self.root / "password").unlink()

    def _make_cluster(self, arguments: Sequence[str]) -> None:
        """Make the data folder. The tests replace this: they copy one that was made before."""
        argv = [self.program("initdb"), "-D", str(self.data_folder), "-U", self.user, *arguments]
        run(Command(argv=argv, user=self.owner, folder=self.root, timeout_seconds=120))

    def _command(self) -> Command:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_folder),
            "wal_level": "replica",
            "max_wal_senders": "10",
            "max_replication_slots": "10",
            "shared_buffers": "64MB",
            "logging_collector": "off",
            "log_destination": "stderr",
            "fsync": "on" if self._durable else "off",
        } | self.settings
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        argv = [self.program("postgres"), "-D", str(self.data_folder), *options]
        return Command(argv=argv, user=self.owner, folder=self.root)

    def _ready(self) -> bool:
        # The postmaster's own word (src/include/utils/pidfile.h): line 1 its process id, line 8 its state. A stale
        # file of a killed server has another id.
        try:
            lines = (self.data_folder / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() in ("ready", "standby")
