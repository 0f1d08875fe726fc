"""Where an address of production is in a sandbox. Pure: nothing is asked, and nothing is guessed.

A service's name means its container in the sandbox, and nothing else ever. A published port of this machine means the
container that published it in production. Every other address leads out of the sandbox, so there is none for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recoup.engines.compose.project import Project

#: What means this machine itself.
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 - compared with, never listened on


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """``services``: each one's own address in the sandbox. ``published``: this machine's ports, and who is behind."""

    services: Mapping[str, str]
    published: Mapping[int, tuple[str, int]]

    def find(self, host: str, port: int) -> tuple[str, int] | None:
        """Address and port in the sandbox; None for what is not in it."""
        if host in self.services:
            return self.services[host], port
        if host.lower() in LOOPBACK and port in self.published:
            service, inside = self.published[port]
            return (self.services[service], inside) if service in self.services else None
        return None


def published_ports(project: Project) -> dict[int, tuple[str, int]]:
    """Which service and port of it each published TCP port of production belongs to."""
    return {
        port.published: (name, port.target)
        for name, service in project.services.items()
        for port in service.ports
        if port.published is not None and port.protocol == "tcp"
    }
