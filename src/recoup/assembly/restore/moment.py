"""Going back to a moment, whatever product the service is: the choice first, then the act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from recoup.assembly.access import Readable
from recoup.assembly.restore.job import Report, Wish
from recoup.engines.engine import ProgressListener
from recoup.kernel.errors import UsageError
from recoup.recovery.in_place import Consent

if TYPE_CHECKING:
    from recoup.engines.postgres.recovery_target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentWish:
    """Which moment. Exactly one of ``time``, ``end``, ``lsn``, ``xid`` and ``name`` is given."""

    time: datetime | None = None
    end: bool = False  #: everything there is
    lsn: str | None = None
    xid: int | None = None
    name: str | None = None
    before: bool = False  #: exclusive
    timeline: int | None = None
    base: str | None = None  #: which base backup, or copy of a Redis, to start from


class Moment(Protocol):
    """A moment that can be reached. Its text says how."""

    @property
    def service(self) -> str: ...

    def __str__(self) -> str: ...


Act = Callable[[Wish, Consent, Callable[[str], None], ProgressListener], Report]


def choose_moment(opened: Readable, service: str | None, wish: MomentWish) -> tuple[Moment, Act]:
    """Decide how to reach the moment; what carries it out is the second.

    Raise ``RefusedError`` with the windows when it cannot be reached, ``UsageError`` for what makes no sense.
    """
    name, engine = _service_of(opened, service, wish)
    if engine == "redis":
        return _redis(opened, name, wish)
    if engine != "postgres":
        raise UsageError(
            f"{name} is kept as copies, not as a stream: it has no moments between them",
            hint=f"`recoup list {name}` shows its copies; `recoup restore ID` brings one back.",
        )
    from recoup.assembly.restore.postgres_moment import choose_postgres, restore_postgres

    moment = choose_postgres(opened, name, _target(wish), timeline=wish.timeline, base=wish.base)

    def act(to: Wish, consent: Consent, say: Callable[[str], None], on_progress: ProgressListener) -> Report:
        return restore_postgres(opened, moment, to, consent, say, on_progress)

    return moment, act


def _redis(opened: Readable, name: str, wish: MomentWish) -> tuple[Moment, Act]:
    from recoup.assembly.restore.redis_moment import choose_redis, restore_redis

    if (wish.time is None and not wish.end) or wish.before or wish.timeline is not None:
        raise UsageError(f"{name} is a Redis: its moments are times, and nothing else", hint="Use --to-time alone.")
    moment = choose_redis(opened, name, wish.time, base=wish.base)

    def act(to: Wish, consent: Consent, say: Callable[[str], None], on_progress: ProgressListener) -> Report:
        return restore_redis(opened, moment, to, consent, say, on_progress)

    return moment, act


def _target(wish: MomentWish) -> Target:
    from recoup.engines.postgres.lsn import Lsn
    from recoup.engines.postgres.recovery_target import AtLsn, AtName, AtTime, AtXid, Latest

    if wish.before and (wish.name is not None or wish.end):
        raise UsageError("--before makes no sense here: a restore point holds no transaction, the end has no after")
    if wish.time is not None:
        return AtTime(time=wish.time, before=wish.before)
    if wish.lsn is not None:
        try:
            return AtLsn(lsn=Lsn.parse(wish.lsn), before=wish.before)
        except ValueError as wrong:
            raise UsageError(str(wrong), hint="Write it as PostgreSQL shows it: 16/B374D848.") from None
    if wish.xid is not None:
        return AtXid(xid=wish.xid, before=wish.before)
    return AtName(name=wish.name) if wish.name is not None else Latest()


def _service_of(opened: Readable, service: str | None, wish: MomentWish) -> tuple[str, str]:
    """The service that is meant, and its engine. Raise ``UsageError`` when it is not clear or not known."""
    if opened.system is not None:
        known: dict[str, str] = {name: one.engine for name, one in opened.system.plan.services.items()}
    else:
        known = {one.service: one.engine for one in opened.catalog().entries}
    if service is not None:
        if service not in known:
            raise UsageError(f"there is no service {service!r}", hint=f"There is: {', '.join(known) or 'none'}.")
        return service, known[service]
    kinds = ("postgres", "redis") if wish.time is not None or wish.end else ("postgres",)
    fitting = [(name, engine) for name, engine in known.items() if engine in kinds]
    if len(fitting) != 1:
        raise UsageError(
            "which service shall go back?" if fitting else "no service here can go back to a moment",
            hint=f"Say --service {' or --service '.join(name for name, _ in fitting)}." if fitting else None,
        )
    return fitting[0]
