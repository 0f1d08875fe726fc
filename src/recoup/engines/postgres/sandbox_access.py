"""The way to a server in a sandbox, for what restores dumps: its programs run in the sandbox as well."""

from __future__ import annotations

from recoup.engines.postgres.programs import Programs, find_programs
from recoup.engines.postgres.sandbox_server import SandboxServer
from recoup.engines.postgres.session import Session
from recoup.kernel.process import Command, LocalRunner


class SandboxAccess:
    """``ServerAccess`` to a server in a sandbox, as its superuser."""

    def __init__(self, server: SandboxServer) -> None:
        self._server = server
        self._programs: Programs | None = None

    @property
    def place(self) -> str:
        """See ``ServerAccess``."""
        return "the sandbox"

    def session(self, database: str | None = None) -> Session:
        """See ``ServerAccess``."""
        return self._server.session(database or self._server.database)

    def programs(self) -> Programs:
        """See ``ServerAccess``."""
        if self._programs is None:
            self._programs = find_programs(
                LocalRunner(), server_major=self._server.major, folders=(self._server.programs,)
            )
        return self._programs

    def command(self, program: str, *arguments: str, database: str | None = None) -> Command:
        """See ``ServerAccess``."""
        return self._server.command([self.programs().path(program), *arguments], database=database)
