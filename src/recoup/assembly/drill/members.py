"""What a drill goes back to: for each service the copy, or the instant in its log, that a recovery would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from recoup.assembly.access import Found, Readable
from recoup.assembly.protect.stack_points import in_order_of_recovery
from recoup.assembly.restore.moment import MomentWish, choose_moment
from recoup.assembly.restore.stack_moment import TimedMember
from recoup.kernel.errors import NoRepositoryError, RefusedError, UsageError
from recoup.plan.services import FilesService, PostgresService, RedisService
from recoup.repository.catalog import REPLACED, Catalog

if TYPE_CHECKING:
    from recoup.assembly.restore.redis_moment import RedisTarget

#: Whole copies of a database that can be put in place as they are.
_WHOLE = {PostgresService: ("base",), RedisService: ("rdb",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The members of a drill, in the order of recovery. ``instant`` None: the newest there is."""

    instant: datetime | None
    files: tuple[Found, ...]
    databases: tuple[Found | TimedMember, ...]
    missing: tuple[str, ...] = ()  #: services without anything to bring back, and why


def choose(opened: Readable, instant: datetime | None, *, files_lost: bool) -> Chosen:
    """Choose for every service of the plan. Files that were not lost are as they are now, whatever the instant.

    Raise ``RefusedError`` naming a database that cannot be brought there.
    """
    assert opened.system is not None, "a drill has a plan"
    services = opened.system.plan.services
    catalog = opened.catalog()
    files: list[Found] = []
    databases: list[Found | TimedMember] = []
    missing: list[str] = []
    for name in in_order_of_recovery(services):
        match services[name]:
            case FilesService():
                found = newest(opened, catalog, name, ("files",), instant if files_lost else None)
                if found is None:
                    missing.append(f"the files of {name}: there is no copy of them")
                else:
                    files.append(found)
            case PostgresService() | RedisService():
                databases.append(choose_database(opened, catalog, name, instant))
    return Chosen(instant=instant, files=tuple(files), databases=tuple(databases), missing=tuple(missing))


def newest(
    opened: Readable, catalog: Catalog, service: str, kinds: Sequence[str], instant: datetime | None
) -> Found | None:
    """The newest copy of a service from before ``instant``; None when there is none."""
    return next(copies_newest_first(opened, catalog, service, kinds, instant), None)


def copies_newest_first(
    opened: Readable, catalog: Catalog, service: str, kinds: Sequence[str], instant: datetime | None
) -> Iterator[Found]:
    """The copies of a service from before ``instant``, the newest first."""
    for entry in catalog.entries:
        early = instant is None or entry.ended <= instant
        if entry.service == service and entry.kind in kinds and entry.label != REPLACED and early:
            yield opened.find(entry.id, catalog=catalog)


def choose_database(opened: Readable, catalog: Catalog, name: str, instant: datetime | None) -> Found | TimedMember:
    """What a recovery of one database goes back to: through its log where it has one, else its newest copy.

    ``instant`` None: as near to now as can be. Raise ``RefusedError`` when it cannot be brought there.
    """
    assert opened.system is not None, "a drill has a plan"
    described = opened.system.plan.services[name]
    kinds = _WHOLE[PostgresService if isinstance(described, PostgresService) else RedisService]
    if instant is not None or _logged(described):
        try:
            moment, act = choose_moment(opened, name, MomentWish(time=instant, end=instant is None))
            return TimedMember(service=name, moment=moment, act=act)
        except (RefusedError, UsageError, NoRepositoryError) as failure:
            if instant is not None:
                failure.message = f"{name} cannot be brought there: {failure.message}"
                failure.args = (failure.message,)
                raise
    found = newest(opened, catalog, name, kinds, instant)
    if found is None:
        raise RefusedError(
            f"there is no copy of {name} that a drill or a recovery could bring back ({' or '.join(kinds)})",
            hint=f"While it runs, take one: recoup backup {name} --kind {kinds[0]}. When its data are "
            f"lost, `recoup list {name}` shows what else there is: a dump goes into a new server by `recoup restore`.",
        )
    return found


def _logged(described: object) -> bool:
    """Whether the plan keeps a log of a database, so that it goes back to more than its copies."""
    if isinstance(described, PostgresService):
        return described.wal is not None
    return isinstance(described, RedisService) and described.stream is not None


def service_of(member: Found | TimedMember) -> str:
    """The service that a member is of."""
    return member.manifest.service if isinstance(member, Found) else member.service


def what_of(member: Found | TimedMember) -> str:
    """From what a member comes back, for people."""
    return f"from {member.manifest.kind} {member.manifest.id}" if isinstance(member, Found) else member.what


def copies_of(member: Found | TimedMember) -> tuple[Found, ...]:
    """The stored copies that a member may be brought back from; of several, the first that fits is used."""
    if isinstance(member, Found):
        return (member,)
    from recoup.assembly.restore.postgres_moment import PostgresMoment

    if isinstance(member.moment, PostgresMoment):
        return tuple(member.moment.cluster.found[one.id] for one in member.moment.choice.bases)
    target: RedisTarget = member.moment  # type: ignore[assignment]
    return (target.found,)
