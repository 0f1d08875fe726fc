"""A test server in the place of a restored copy."""

from __future__ import annotations

from dataclasses import dataclass

from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.session import Session
from tests.integration.logical import direct


@dataclass(frozen=True, slots=True)
class Restored:
    """As far as the checks of a restored copy see, ``server`` has these databases and no others."""

    server: PostgresServer
    names: tuple[str, ...]

    def session(self, database: str = "postgres") -> Session:
        return direct(self.server).session(database)

    def databases(self) -> list[str]:
        return list(self.names)
