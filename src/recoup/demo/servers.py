"""Real servers on the loopback, for the demo and the tests: PostgreSQL, Redis, and SeaweedFS as S3.

Each is a context manager: it takes free ports, runs as an ordinary user, keeps everything in a temporary folder of
its own, and is gone, with its folder, when the block or the process ends. ``stop`` and ``start`` keep the data and
the address. Never for production.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self
from urllib.parse import quote

import psycopg
import redis

from recoup.demo.host import (
    Ports,
    guard_files,
    guard_server,
    new_folder,
    ordinary_user,
    reachable,
    release_server,
    remove_files,
    remove_folder,
    wait_until,
)
from recoup.demo.programs import Programs
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Child, Command, run, spawn

_START_LIMIT_SECONDS = 60.0
_ATTEMPTS = 4  # a port may be taken between our look and the server's


class _Server(ABC):
    """What all have in common: one process, one folder, one log, ports that stay the same over a restart."""

    def __init__(self, name: str, *, ports: int, twin: int = 0) -> None:
        self.owner = ordinary_user()
        self._name = name
        self._port_count, self._twin = ports, twin
        self._ports: Ports | None = None
        self._root: Path | None = None
        self._child: Child | None = None
        self._log: IO[bytes] | None = None
        self._prepared = False

    # What each server says about itself.

    @abstractmethod
    def _prepare(self) -> None:
        """Make the folders, once."""

    @abstractmethod
    def _command(self) -> Command: ...

    @abstractmethod
    def _ready(self) -> bool:
        """Whether it serves. Asked again and again, so it must be cheap."""

    _polite: signal.Signals = signal.SIGTERM
    _rude: signal.Signals | None = None  #: sent when the polite one has not helped, before SIGKILL
    _last: signal.Signals = signal.SIGKILL  #: sent when the data are not needed any more

    # What is the same for all.

    @property
    def root(self) -> Path:
        """The temporary folder that holds all of this server. Gone after ``close``."""
        if self._root is None:
            raise EngineError(f"{self._name} is not open", hint="Use it as a context manager.")
        return self._root

    @property
    def ports(self) -> list[int]:
        """The TCP ports of the loopback this server listens on."""
        if self._ports is None:
            raise EngineError(f"{self._name} is not open", hint="Use it as a context manager.")
        return self._ports.numbers

    @property
    def port(self) -> int:
        """The port clients use."""
        return self.ports[0]

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._child.pid if self._child is not None and self._child.alive() else None

    def log_tail(self, size_bytes: int = 4000) -> str:
        """The end of what the server said."""
        if self._log is None:
            return ""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - size_bytes))
        return self._log.read().decode(errors="replace").strip()

    def start(self) -> None:
        """Start, and wait until it serves. Raise ``EngineError`` with the log's end when it does not."""
        if self._child is not None:
            if self._child.alive():
                return
            self._forget()
        for attempt in range(1, _ATTEMPTS + 1):
            if self._ports is None:
                self._ports = Ports(self._port_count, twin=self._twin)
            if not self._prepared:
                self._prepare()
                self._prepared = True
            if self._try_start():
                return
            said = self.log_tail()
            if "ddress already in use" not in said or attempt == _ATTEMPTS:
                raise EngineError(f"{self._name} did not start on port {self.port}; its log ends: {said}")
            assert self._log is not None
            self._log.truncate(0)
            self._ports.release()
            self._ports = None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _try_start(self) -> bool:
        if self._log is None:
            # Held open for the life of the server: its own end, and that of the reader of its tail.
            self._log = open(self.root / "log.txt", "a+b")  # noqa: SIM115
        child = self._child = spawn(self._command(), log=self._log)
        guard_server(child, self._last)
        serves = False

        def settled() -> bool:
            nonlocal serves
            serves = child.alive() and self._ready()
            return serves or not child.alive()

        wait_until(settled, limit_seconds=_START_LIMIT_SECONDS)
        if serves:
            return True
        self._end(signal.SIGKILL)
        return False

    def stop(self, *, grace_seconds: float = 20.0) -> None:
        """Stop as an administrator would, keeping data and address. After ``grace_seconds`` it is killed."""
        self._end(self._polite, *([self._rude] if self._rude else []), signal.SIGKILL, patience=grace_seconds)

    def kill(self) -> None:
        """End at once with SIGKILL, as a power cut would; the data stay as they are."""
        self._end(signal.SIGKILL)

    def _end(self, *signals: signal.Signals, patience: float = 20.0) -> None:
        child = self._child
        if child is None:
            return
        for number in signals:
            if not child.alive():
                break
            child.signal(number)
            wait_until(lambda: not child.alive(), limit_seconds=patience)
        child.wait(patience)
        self._forget()

    def _forget(self) -> None:
        if self._child is not None:
            release_server(self._child)
            self._child = None

    def close(self) -> None:
        """Stop and remove everything. Harmless when repeated."""
        try:
            self._end(self._last, signal.SIGKILL, patience=10)
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None
            if self._ports is not None:
                self._ports.release()
                self._ports = None
            if self._root is not None:
                remove_folder(self._root)
                self._root = None
            self._prepared = False

    def __enter__(self) -> Self:
        try:
            self._root = new_folder(self._name.lower(), self.owner)
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _own_folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        self._give(folder)
        return folder

    def _own_file(self, name: str, text: str) -> Path:
        path = self.root / name
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
            handle.write(text)
        self._give(path)
        return path

    def _give(self, path: Path) -> None:
        if self.owner is not None:
            os.chown(path, *self.owner, follow_symlinks=False)


class PostgresServer(_Server):
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

    def _prepare(self) -> None:
        if self._given is not None:
            for folder, _, files in os.walk(self._given):
                self._give(Path(folder))
                for name in files:
                    self._give(Path(folder) / name)
            self._given.chmod(0o700)
            return
        arguments = ["--no-sync", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", f"--auth={self.auth}"]
        if self.password is not None:
            arguments.append(f"--pwfile={self._own_file('password', self.password + chr(10))}")
        argv = [self.program("initdb"), "-D", str(self.data_folder), "-U", self.user, *arguments]
        run(Command(argv=[*argv, *self._initdb_arguments], user=self.owner, folder=self.root, timeout_seconds=120))
        with contextlib.suppress(FileNotFoundError):
            (self.root / "password").unlink()

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


class RedisServer(_Server):
    """A Redis server. ``password=None`` makes a random one, ``""`` leaves it open. ``settings`` are its directives.

    ``folder`` is its working folder (``dir``), where ``dump.rdb`` and the append-only files live.
    """

    def __init__(
        self,
        program: Programs,
        *,
        password: str | None = None,
        appendonly: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("Redis", ports=1)
        self.program = reachable(program.path, program.package, self.owner)
        self.password = secrets.token_urlsafe(12) if password is None else password
        self.settings = {"appendonly": "yes" if appendonly else "no", "save": '""', **(settings or {})}
        self._client: redis.Redis | None = None

    @property
    def folder(self) -> Path:
        """Its working folder."""
        return self.root / "data"

    def url(self, database: int = 0) -> str:
        """The address of one of its databases, with the password."""
        credentials = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/{database}"

    def client(self, database: int = 0) -> redis.Redis:
        """A client that gives bytes. Close it."""
        return redis.Redis.from_url(self.url(database), socket_timeout=30, socket_connect_timeout=5)

    def _prepare(self) -> None:
        self._own_folder("data")

    def _command(self) -> Command:
        # The password must not be seen in the list of processes: everything goes through the file.
        directives = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "daemonize": "no",
            "logfile": '""',
            **({"requirepass": f'"{self.password}"'} if self.password else {}),
            **self.settings,
        }
        text = "".join(f"{name} {value}\n" for name, value in directives.items())
        return Command(
            argv=[str(self.program), str(self._own_file("redis.conf", text))], user=self.owner, folder=self.folder
        )

    def _ready(self) -> bool:
        client = redis.Redis.from_url(self.url(), socket_timeout=5, socket_connect_timeout=5, retry=None)
        try:
            # Not only "something answers": the port might have been taken by another server meanwhile.
            return bool(client.info("server")["process_id"] == self.pid and not client.info("persistence")["loading"])
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            return False
        finally:
            client.close()


class S3Server(_Server):
    """SeaweedFS as an S3 server with Object Lock, versioning and signatures. Buckets are made by ``new_bucket``."""

    region = "us-east-1"

    def __init__(self, program: Programs) -> None:
        # S3, master, volume, filer, admin; the gRPC port of each is 10000 above it.
        super().__init__("S3", ports=5, twin=10_000)
        self.program = reachable(program.path, program.package, self.owner)
        self.access_key = "recoup-" + secrets.token_hex(4)
        self.secret_key = secrets.token_urlsafe(24)

    @property
    def endpoint(self) -> str:
        """The address of the service."""
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Any:
        """A boto3 client of this server."""
        import boto3  # loaded only here: it costs 0.2 s
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=30),
        )

    def new_bucket(self, *, lock: bool = False, prefix: str = "bucket") -> str:
        """Create an empty bucket with a name of its own, with Object Lock if asked, and return the name."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        client = self.client()
        try:
            client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        finally:
            client.close()
        return name

    def _prepare(self) -> None:
        self._own_folder("data")
        self._own_folder("tmp")

    def _command(self) -> Command:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        identity = {
            "name": "recoup",
            "credentials": credentials,
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        config = self._own_file("s3.json", json.dumps({"identities": [identity]}))
        s3, master, volume, filer, admin = self.ports
        argv = [
            str(self.program),
            "mini",
            f"-dir={self.root / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.config={config}",
            f"-s3.port={s3}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-admin.port={admin}",
            "-admin.ui=false",
            "-webdav=false",
            # Each bucket takes seven volumes; the default is as many as the disk holds of full ones.
            "-volume.max=10000",
            "-master.telemetry=false",
        ]
        # Its logs and caches go to the temporary folder and the home: to its own, so that they vanish with it.
        return Command(
            argv=argv,
            environment={"TMPDIR": str(self.root / "tmp"), "HOME": str(self.root)},
            user=self.owner,
            folder=self.root,
        )

    def _try_start(self) -> bool:
        for pattern in self._left_behind():
            guard_files(pattern)
        return super()._try_start()

    def close(self) -> None:
        """Stop and remove everything, also the sockets it leaves in ``/tmp`` (that place is fixed in its code)."""
        patterns = self._left_behind() if self._ports is not None else []
        super().close()
        for pattern in patterns:
            remove_files(pattern)

    def _left_behind(self) -> list[str]:
        return [f"/tmp/seaweedfs-*-{number + more}.sock" for number in self.ports for more in (0, self._twin)]  # noqa: S108

    def _ready(self) -> bool:
        # Healthy is not enough: the first write has to wait for a volume, and the port might be another's server,
        # which would not know our key.
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=2):  # noqa: S310 always http
                pass
        except OSError:
            return False
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            client.create_bucket(Bucket="recoup-ready")
            client.put_object(Bucket="recoup-ready", Key="ready", Body=b"yes")
            client.delete_object(Bucket="recoup-ready", Key="ready")
            client.delete_bucket(Bucket="recoup-ready")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True
