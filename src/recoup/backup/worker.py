"""What runs without end beside the scheduled copies: a WAL stream, a Redis stream, the sender of alarms."""

from __future__ import annotations

import threading
from typing import Protocol


class Worker(Protocol):
    """Work without an end, in a thread of its own. The daemon starts it, watches it, and starts it again."""

    @property
    def name(self) -> str:
        """What logs and records call it, unique in a plan: ``wal postgres``. It may hold no ``/``."""
        ...

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then finish what is in hand (drain) and return.

        Called again after an end or a failure, always from a fresh thread and never twice at once, so it begins from
        what is really there and not from what it remembers. Wait with ``stop.wait(seconds)``, never with a plain sleep.
        Raise ``RecoupError`` when it cannot go on: the supervisor records it and tries again after a growing, bounded
        pause. A worker that has been running well for a while begins with the shortest pause again.
        """
        ...
