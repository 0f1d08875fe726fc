"""What the checks of a restored copy need of the server that it runs on."""

from __future__ import annotations

from typing import Protocol

from recoup.engines.postgres.session import Session


class RestoredServer(Protocol):
    """A server on a restored copy, away from production: what is done to it harms nobody."""

    def session(self, database: str = "postgres") -> Session:
        """Connect as a superuser. Raise ``EngineError``."""
        ...

    def databases(self) -> list[str]:
        """The databases that accept connections, without ``template0``."""
        ...
