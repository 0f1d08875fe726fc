"""Which faults happen when: drawn from a seed, and the same again from the same seed and length."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass


class Target(enum.Enum):
    """What a fault hits. Each is hit once before one is hit again."""

    DAEMON = "kill -9 of the daemon"
    POSTGRES = "kill -9 of PostgreSQL"
    REDIS = "kill -9 of Redis"
    S3 = "kill -9 of the S3 server"
    POSTGRES_CABLE = "cut cable to PostgreSQL"
    REDIS_CABLE = "cut cable to Redis"
    S3_CABLE = "cut cable to the S3 server"
    MACHINE = "kill -9 of the daemon, PostgreSQL and Redis at once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something breaks ``at`` seconds after the beginning and is whole again after ``seconds``."""

    at: float
    seconds: float
    target: Target

    def __str__(self) -> str:
        return f"{self.at:6.1f} s for {self.seconds:4.1f} s: {self.target.value}"


def faults(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run of so many seconds, the last one over before its end. Some overlap, none with its like."""
    chance = random.Random(seed)
    found: list[Fault] = []
    at, waiting = chance.uniform(0.5, 2.0), list[Target]()
    while True:
        if not waiting:
            waiting = chance.sample(list(Target), len(Target))
        target = waiting.pop()
        # Mostly short ones, as restarts are; now and then one that outlasts the patience of a connection.
        fault = Fault(at=at, seconds=chance.choice((0.3, 1.0, 2.0, 6.0)) * chance.uniform(0.5, 1.0), target=target)
        if fault.at + fault.seconds > seconds:
            return found
        before = [one for one in found if one.target is target]
        if not before or before[-1].at + before[-1].seconds < at:
            found.append(fault)
        at += chance.uniform(0.5, 4.0)
