"""Telling the service manager how a service is, by the protocol of sd_notify(3). Without one, everything is silent."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceManager:
    """Where a service manager listens. ``address`` is None when there is none."""

    address: str | None
    watchdog_seconds: float | None  #: it expects to hear something at least so often

    @classmethod
    def from_environment(cls) -> ServiceManager:
        """What ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` say; both are taken out, as they are not meant for children."""
        address = os.environ.pop("NOTIFY_SOCKET", None)
        microseconds, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        seconds = int(microseconds) / 1e6 if ours and microseconds.isdecimal() and int(microseconds) else None
        return cls(address=address or None, watchdog_seconds=seconds)

    def tell(self, *assignments: str) -> None:
        """Send ``READY=1``, ``STOPPING=1``, ``WATCHDOG=1``, ``STATUS=…``. Never raises: the work goes on unheard."""
        if self.address is None or not self.address.startswith(("/", "@")):
            return
        where = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.settimeout(1)
            speaker.sendto("\n".join(assignments).encode(), where)
