"""The way to a server in a sandbox, for what restores dumps: its programs run in the sandbox as well."""

from __future__ import annotations

from recoup.engines.postgres.access import server_version
from recoup.engines.postgres.programs import Programs
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
        """See ``ServerAccess``. They run in the sandbox, so what they are fed can do no more than the server can."""
        if self._programs is None:
            with self.session() as session:
                version = server_version(session)
            folder = self._server.programs
            self._programs = Programs(
                runner=LocalRunner(),
                folder=folder if folder.is_absolute() else None,
                version=(version // 10000, version % 100),
                local=False,
            )
        return self._programs

    def command(self, program: str, *arguments: str, database: str | None = None) -> Command:
        """See ``ServerAccess``."""
        return self._server.command([self.programs().path(program), *arguments], database=database)
