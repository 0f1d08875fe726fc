"""What this machine saw over time: sizes of repositories, the worst losses while streams ran, pings not taken.

Small JSON files in the state folder. Without them status knows less; nothing else is lost.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from recoup.kernel import clock, files

_DAYS = 400
_WATCHED_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """``used``: bytes by repository and day. ``worst``: the largest loss in seconds by service and day."""

    used: Mapping[str, Mapping[str, int]]
    worst: Mapping[str, Mapping[str, float]]

    def sizes(self, repository: str) -> dict[date, int]:
        """The sizes that were noted down, by day."""
        return {date.fromisoformat(day): size for day, size in self.used.get(repository, {}).items()}

    def worst_of(self, service: str, now: datetime) -> tuple[timedelta, datetime] | None:
        """The largest loss seen in the last thirty days, and since when it is watched."""
        begin = (now - timedelta(days=_WATCHED_DAYS)).astimezone(UTC).date()
        days = {date.fromisoformat(day): seconds for day, seconds in self.worst.get(service, {}).items()}
        recent = {day: seconds for day, seconds in days.items() if day >= begin}
        if not recent:
            return None
        since = datetime.combine(min(recent), datetime.min.time(), UTC)
        return timedelta(seconds=max(recent.values())), since

    def days_of(self, service: str, now: datetime, days: int) -> list[timedelta | None]:
        """The largest loss of each of the last days, the oldest first."""
        known = self.worst.get(service, {})
        names = [(now - timedelta(days=back)).astimezone(UTC).date().isoformat() for back in range(days - 1, -1, -1)]
        return [timedelta(seconds=known[name]) if name in known else None for name in names]


def read_history(state_folder: Path) -> History:
    """What was noted down; nothing when there is no readable note."""
    said = read_note(state_folder / "history.json")
    try:
        return History(
            used={
                str(name): {date.fromisoformat(day).isoformat(): int(size) for day, size in days.items()}
                for name, days in said.get("used", {}).items()
            },
            worst={
                str(name): {date.fromisoformat(day).isoformat(): float(worst) for day, worst in days.items()}
                for name, days in said.get("worst", {}).items()
            },
        )
    except (ValueError, TypeError, AttributeError):
        return History(used={}, worst={})


def note_history(
    state_folder: Path, now: datetime, *, used: Mapping[str, int], losses: Mapping[str, timedelta]
) -> None:
    """Note down the sizes of now, and for each service the loss when it is the largest of the day.

    What cannot be written is left out: the next time will do.
    """
    before = read_history(state_folder)
    today = now.astimezone(UTC).date()
    first = (today - timedelta(days=_DAYS)).isoformat()
    sizes = {name: {day: size for day, size in days.items() if day > first} for name, days in before.used.items()}
    for name, size in used.items():
        sizes.setdefault(name, {})[today.isoformat()] = size
    worst = {name: {day: one for day, one in days.items() if day > first} for name, days in before.worst.items()}
    for name, loss in losses.items():
        days = worst.setdefault(name, {})
        days[today.isoformat()] = max(days.get(today.isoformat(), 0.0), round(loss.total_seconds(), 3))
    write_note(state_folder / "history.json", {"used": sizes, "worst": worst})


def read_note(path: Path) -> dict[str, Any]:
    """A JSON object in a file, or an empty one."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        said = json.loads(path.read_bytes())
        if isinstance(said, dict):
            return said
    return {}


def write_note(path: Path, said: Mapping[str, Any]) -> bool:
    """Write a JSON object; whether it could be written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write_atomically(path, json.dumps(said).encode())
        return True
    return False


def instant_of(said: object) -> datetime | None:
    """An instant in a note or in what a worker says, or None for anything else."""
    try:
        return clock.from_text(said) if isinstance(said, str) else None
    except ValueError:
        return None
