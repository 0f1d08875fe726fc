"""The lease of a system's recoveries in a repository: one operator at a time, from whatever machine.

Whoever takes it makes the next object of a row (``layout.run_lease_key``), which exactly one can: the newest counts.
Its holder writes it anew every now and then, and says until when it holds; it looks first whether a newer one is there,
for then it has lost the lease. Clocks of machines differ, so a lease that looks expired is watched before it is taken:
one that is still written is held.

Where a store does not refuse to make an object twice, two that begin within the same second may both believe to hold
it until the first of them looks again (``look_again_seconds``).
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from recoup.kernel import clock
from recoup.kernel.errors import BusyError, DamageError, MissingObjectError, StorageError, UnknownFormatError
from recoup.kernel.presence import Presence, is_dead
from recoup.kernel.units import show_duration
from recoup.repository import layout
from recoup.repository.repository import Repository
from recoup.repository.seal import authenticate, open_authenticated
from recoup.storage.object_store import ObjectExistsError

VERSION: Final = 1
_PURPOSE: Final = "run-lease"
_LIMIT_BYTES: Final = 1 << 16
_LOOKS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often a lease is written anew, and how long it holds when it is not any more, in seconds."""

    every_seconds: float = 20.0
    lasts_seconds: float = 120.0
    look_again_seconds: float = 2.0

    @property
    def watch_seconds(self) -> float:
        """How long one that looks expired is watched."""
        return 1.5 * self.every_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLease:
    """A lease as it is stored. ``token`` is its holder's own, by chance; ``presence`` is which process that is."""

    system: str
    purpose: str
    who: str
    presence: Presence
    token: str
    since: datetime
    until: datetime
    every_seconds: float
    released: bool = False

    def __str__(self) -> str:
        return (
            f"{self.purpose}, {self.who} on {self.presence.host} (process {self.presence.pid}), "
            f"since {clock.to_text(self.since)[:19]}Z"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The newest lease there is. ``generation`` 0: there was none yet."""

    generation: int
    lease: RunLease | None = None


#: ``free``: take it. ``watch``: it looks expired; take it when it does not change any more. ``held``: somebody has it.
Standing = Literal["free", "watch", "held"]


def standing(seen: RunLease | None, me: Presence, now: datetime) -> Standing:
    """Whether a lease may be taken. Pure but for the question whether a process of this machine lives."""
    if seen is None or seen.released or is_dead(seen.presence, me):
        return "free"
    return "watch" if now > seen.until else "held"


def look(repository: Repository, system: str) -> Seen:
    """The newest lease. Raise ``DamageError`` when it cannot be believed, ``UnknownFormatError``, ``StorageError``."""
    for _ in range(_LOOKS):
        generation = newest_generation(repository, system)
        if generation == 0:
            return Seen(generation=0)
        try:
            return Seen(generation=generation, lease=_read(repository, system, generation))
        except MissingObjectError:  # removed between the listing and the reading: a newer one is there
            continue
    raise StorageError(f"the lease of {system} in {repository} is listed and is not there")


def newest_generation(repository: Repository, system: str) -> int:
    """The number of the newest lease, whether it can be believed or not; 0 when there is none."""
    keys = (info.key for info in repository.store.list(layout.run_leases(system)))
    return max((number for key in keys if (number := layout.run_lease_generation(key)) is not None), default=0)


def take(repository: Repository, lease: RunLease, seen: Seen) -> int:
    """Make the next lease after the ``seen`` one; return its generation. Older ones are removed, where that may be.

    Raise ``BusyError`` when somebody else was quicker. After a ``StorageError`` it may be there all the same: look, and
    compare the token.
    """
    generation = seen.generation + 1
    key = layout.run_lease_key(lease.system, generation)
    # What is there already may be ours, when an answer was lost and the store's client asked again.
    with contextlib.suppress(ObjectExistsError):
        repository.store.put(key, _text(repository, key, lease), if_absent=True)
    there = _read(repository, lease.system, generation)
    if there.token != lease.token:
        raise held(repository, there)
    with contextlib.suppress(StorageError):  # only the newest counts, so that those that stay do no harm
        for number in range(max(1, generation - 8), generation):
            repository.store.delete(layout.run_lease_key(lease.system, number))
    return generation


def renew(repository: Repository, lease: RunLease, generation: int, *, lasts_seconds: float) -> RunLease | None:
    """Write the lease anew. None when it was done; else the lease of who has it now. Raise ``StorageError``."""
    now = look(repository, lease.system)
    if now.lease is not None and (now.generation > generation or now.lease.token != lease.token):
        return now.lease
    fresh = replace(lease, until=clock.now() + timedelta(seconds=lasts_seconds))
    key = layout.run_lease_key(lease.system, generation)
    repository.store.put(key, _text(repository, key, fresh))
    return None


def release(repository: Repository, lease: RunLease, generation: int) -> None:
    """Let it go, unless somebody else has it. Raise ``StorageError``."""
    now = look(repository, lease.system)
    if now.generation == generation and now.lease is not None and now.lease.token == lease.token:
        key = layout.run_lease_key(lease.system, generation)
        repository.store.put(key, _text(repository, key, replace(lease, until=clock.now(), released=True)))


def held(repository: Repository, lease: RunLease) -> BusyError:
    """The error for a lease that somebody else has."""
    left = (lease.until - clock.now()).total_seconds()
    expires = f"; it ends in {show_duration(left)} unless it is written anew" if left > 0 else ""
    return BusyError(
        f"{repository.name} says that a recovery of {lease.system} goes on: {lease}{expires}",
        hint="Look at it: recoup recover --show. When that one is surely dead, add --take-over.",
    )


def _text(repository: Repository, key: str, lease: RunLease) -> bytes:
    body = {
        "recoup_run_lease": VERSION,
        **asdict(lease),
        "since": clock.to_text(lease.since),
        "until": clock.to_text(lease.until),
    }
    text = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"
    return authenticate(repository.key, _PURPOSE, key, text)


def _read(repository: Repository, system: str, generation: int) -> RunLease:
    key = layout.run_lease_key(system, generation)
    text = open_authenticated(repository.key, _PURPOSE, key, repository.store.get(key, limit_bytes=_LIMIT_BYTES))
    try:
        body: dict[str, Any] = json.loads(text)
        if body.pop("recoup_run_lease") == VERSION:
            presence = Presence(**body.pop("presence"))
            since, until = clock.from_text(body.pop("since")), clock.from_text(body.pop("until"))
            return RunLease(**body, presence=presence, since=since, until=until)
    except (KeyError, TypeError, ValueError, RecursionError) as wrong:
        raise DamageError(f"{key} is authentic but is not what Recoup writes: {wrong!r}") from wrong
    raise UnknownFormatError(
        f"{key} is of a version that this Recoup does not know", hint="Use the Recoup that wrote it, or a newer one."
    )
