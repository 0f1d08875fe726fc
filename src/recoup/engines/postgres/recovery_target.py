"""When to go back to. Each target becomes exactly one of PostgreSQL's ``recovery_target_*`` settings.

Documentation: "Write Ahead Log", "Recovery Target".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from recoup.engines.postgres.lsn import Lsn

#: All of PostgreSQL's targets. At most one may be set, so the others are set to nothing *first*: the files of a
#: restored server may hold one of an earlier recovery (``error_multiple_recovery_targets``, xlogrecovery.c).
_ALL: Final = ("", "_lsn", "_name", "_time", "_xid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The end of the WAL there is."""

    def __str__(self) -> str:
        return "the end of the WAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtTime:
    """The last transaction that committed at or before ``time``; with ``before``, strictly before it."""

    time: datetime
    before: bool = False

    def __str__(self) -> str:
        return f"{'before ' if self.before else ''}{self.time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%fZ}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLsn:
    """The record that begins at ``lsn`` is the last one; with ``before``, the first one that is left out."""

    lsn: Lsn
    before: bool = False

    def __str__(self) -> str:
        return f"{'before ' if self.before else ''}LSN {self.lsn}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtXid:
    """The end of transaction ``xid`` is the last thing; with ``before``, the first that is left out."""

    xid: int
    before: bool = False

    def __str__(self) -> str:
        return f"{'before ' if self.before else ''}transaction {self.xid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtName:
    """The restore point that was made with ``pg_create_restore_point(name)``."""

    name: str

    def __str__(self) -> str:
        return f"the restore point {self.name!r}"


Target = Latest | AtTime | AtLsn | AtXid | AtName


def target_settings(target: Target) -> Mapping[str, str]:
    """The settings of a target, in the order in which they must be given."""
    settings = {f"recovery_target{one}": "" for one in _ALL}
    match target:
        case AtTime():
            settings.pop("recovery_target_time")
            settings["recovery_target_time"] = f"{target.time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"
        case AtLsn():
            settings.pop("recovery_target_lsn")
            settings["recovery_target_lsn"] = str(target.lsn)
        case AtXid():
            settings.pop("recovery_target_xid")
            settings["recovery_target_xid"] = str(target.xid & 0xFFFFFFFF)
        case AtName():
            settings.pop("recovery_target_name")
            settings["recovery_target_name"] = target.name
        case Latest():
            pass
    before = not isinstance(target, Latest | AtName) and target.before
    settings["recovery_target_inclusive"] = "off" if before else "on"
    return settings
