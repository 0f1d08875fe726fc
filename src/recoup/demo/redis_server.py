"""A real Redis on the loopback."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import redis

from recoup.demo.host import reachable
from recoup.demo.programs import Programs
from recoup.demo.server import Server
from recoup.kernel.process import Command


class RedisServer(Server):
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
        self.settings = {
            "appendonly": "yes" if appendonly else "no",
            "save": '""',
            "repl-diskless-sync-delay": "0",  # five seconds by default, in which a copy waits for more replicas
            **(settings or {}),
        }
        self._client: redis.Redis | None = None

    @property
    def folder(self) -> Path:
        """Its working folder."""
        return self.root / "data"

    def url(self, database: int = 0) -> str:
        """The address of one of its databases, with the password."""
        credentials = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/{database}"

    def wipe(self) -> None:
        """As after a lost disk: not running, its working folder empty."""
        self.kill()
        shutil.rmtree(self.folder)
        self._own_folder("data")

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
