"""The heartbeat: an object that the daemon renews, so that another machine notices when it does not.

It is authenticated like a manifest and says what was promised, so that the one who watches needs the repository and
its key, and no plan. An old one put back in place of a newer one is silence, and that is noticed as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from recoup.kernel import clock
from recoup.kernel.errors import DamageError, UnknownFormatError
from recoup.repository import layout
from recoup.repository.repository import Repository
from recoup.repository.seal import authenticate, open_authenticated

VERSION: Final = 1
_PURPOSE: Final = "heartbeat"
_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One service in a heartbeat: what was promised, and until when its streams were known to be complete."""

    service: str
    rpo: timedelta | None
    rto: timedelta | None
    streamed_until: datetime | None = None  #: also while nothing was written that could have been streamed


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a daemon says of itself. ``every`` is how often it means to."""

    system: str
    written: datetime
    every: timedelta
    verdict: str
    alarms: tuple[str, ...]
    promises: tuple[Promise, ...]


def write_heartbeat(repository: Repository, beat: Heartbeat) -> None:
    """Replace the heartbeat of this system. Raise ``StorageError``."""
    key = layout.heartbeat_key(beat.system)
    body = {
        "recoup_heartbeat": VERSION,
        "system": beat.system,
        "written": clock.to_text(beat.written),
        "every_seconds": beat.every.total_seconds(),
        "verdict": beat.verdict,
        "alarms": list(beat.alarms),
        "services": {
            one.service: {
                "rpo_seconds": _seconds(one.rpo),
                "rto_seconds": _seconds(one.rto),
                "streamed_until": None if one.streamed_until is None else clock.to_text(one.streamed_until),
            }
            for one in beat.promises
        },
    }
    text = json.dumps(body, indent=1).encode() + b"\n"
    repository.store.put(key, authenticate(repository.key, _PURPOSE, key, text))


def read_heartbeats(repository: Repository) -> tuple[Heartbeat, ...]:
    """The heartbeat of every system that leaves one there.

    Raise ``DamageError`` for one that is not authentic, ``WrongKeyError``, ``UnknownFormatError``, ``StorageError``.
    """
    keys = [info.key for info in repository.store.list(layout.HEARTBEATS)]
    return tuple(_read(repository, key) for key in keys)


def _read(repository: Repository, key: str) -> Heartbeat:
    data = repository.store.get(key, limit_bytes=_LIMIT_BYTES)
    body = open_authenticated(repository.key, _PURPOSE, key, data)
    try:
        said = json.loads(body)
        if said["recoup_heartbeat"] == VERSION:
            return _heartbeat(said)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as wrong:
        raise DamageError(f"{key} is authentic but is not what Recoup writes") from wrong
    raise UnknownFormatError(
        f"{key} has version {said['recoup_heartbeat']!r}; this Recoup knows version {VERSION}",
        hint="Watch with a Recoup as new as the one that is watched.",
    )


def _heartbeat(said: dict[str, Any]) -> Heartbeat:
    return Heartbeat(
        system=str(said["system"]),
        written=clock.from_text(said["written"]),
        every=timedelta(seconds=said["every_seconds"]),
        verdict=str(said["verdict"]),
        alarms=tuple(str(one) for one in said["alarms"]),
        promises=tuple(
            Promise(
                service=name,
                rpo=_duration(one["rpo_seconds"]),
                rto=_duration(one["rto_seconds"]),
                streamed_until=None if one["streamed_until"] is None else clock.from_text(one["streamed_until"]),
            )
            for name, one in said["services"].items()
        ),
    )


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
