"""Bringing the whole stack to one instant: each database through its log, each file set by its newest copy before it.

Every member is chosen before anything is touched: an instant that one of them cannot reach is refused for all.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recoup.assembly.access import Found, Readable
from recoup.assembly.restore.job import Report, Wish
from recoup.assembly.restore.moment import Act, Moment, MomentWish, choose_moment
from recoup.assembly.system import System
from recoup.engines.engine import Member as TarMember
from recoup.engines.engine import ProgressListener, StreamInfo
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError, RefusedError, UsageError
from recoup.plan.services import ComposeService, FilesService
from recoup.recovery.in_place import Consent
from recoup.recovery.stack_in_place import Member, OpenMember, Put, VolumeMember
from recoup.repository.catalog import REPLACED

if TYPE_CHECKING:
    from recoup.assembly.redis import RedisPlace
    from recoup.assembly.restore.redis_moment import BuiltCopy, RedisTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedMember:
    """A database at the instant, reached through its log."""

    service: str
    moment: Moment
    act: Act

    @property
    def what(self) -> str:
        """How the instant is reached, for people."""
        return f"from {self.moment}"


def choose_members(
    opened: Readable, instant: datetime | None, without: Sequence[str]
) -> tuple[Found | TimedMember, ...]:
    """How each service of the plan reaches ``instant``, in the order of recovery; None is all that there is of each.

    Raise ``RefusedError`` naming the service that cannot, ``UsageError`` for what makes no sense.
    """
    from recoup.assembly.protect.stack_points import in_order_of_recovery

    if opened.system is None:
        raise UsageError("without a plan it is not known which services belong together", hint="Give it: -f FILE.")
    services = opened.system.plan.services
    names = [one for one in in_order_of_recovery(services) if not isinstance(services[one], ComposeService)]
    for name in without:
        if name not in names:
            raise UsageError(f"the plan has no service {name!r} with data", hint=f"It has: {', '.join(names)}.")
    members: list[Found | TimedMember] = []
    for name in names:
        if name in without:
            continue
        if isinstance(services[name], FilesService):
            members.append(_files_before(opened, name, instant))
            continue
        try:
            moment, act = choose_moment(opened, name, MomentWish(time=instant, end=instant is None))
        except RecoupError as failure:
            failure.message = f"{name} cannot be brought there: {failure.message}"
            failure.args = (failure.message,)
            failure.hint = f"{failure.hint or ''} Or leave it as it is: --without {name}.".strip()
            raise
        members.append(TimedMember(service=name, moment=moment, act=act))
    if not members:
        raise UsageError("nothing is left to restore", hint="Leave one --without out.")
    return tuple(members)


def _files_before(opened: Readable, service: str, instant: datetime | None) -> Found:
    catalog = opened.catalog()
    for entry in catalog.entries:
        early = instant is None or entry.ended <= instant
        if (entry.service, entry.kind) == (service, "files") and entry.label != REPLACED and early:
            return opened.find(entry.id, catalog=catalog)
    raise RefusedError(
        f"there is no copy of {service}" + ("" if instant is None else f" from before {clock.to_text(instant)}"),
        hint=f"`recoup list {service}` shows what there is; --without {service} leaves it as it is.",
    )


def into_folder(
    member: TimedMember, folder: Path, consent: Consent, say: Callable[[str], None], on_progress: ProgressListener
) -> OpenMember:
    """The recovery of a database into a folder of its own."""

    def put() -> Put:
        folder.parent.mkdir(parents=True, exist_ok=True)
        report: Report = member.act(Wish(destination=str(folder)), consent, say, on_progress)
        return Put(kept=report.kept, notes=report.notes, findings=report.findings)

    return OpenMember(service=member.service, what=member.what, where=str(folder), replaces=lambda: None, put=put)


def in_volume(
    member: TimedMember,
    opened: Readable,
    system: System,
    say: Callable[[str], None],
    on_progress: ProgressListener,
    scope: contextlib.ExitStack,
    consent: Consent | None = None,
) -> Member:
    """The recovery of a database in the volume of its Compose service. ``scope`` keeps what is built on the way.

    A Redis that is reached by its address takes it into its running server, with ``consent``. Raise ``UsageError`` for
    a PostgreSQL that is.
    """
    from recoup.assembly.redis import redis_place
    from recoup.assembly.restore.postgres_moment import PostgresMoment, recovery_in_volume
    from recoup.assembly.restore.redis_moment import RedisTarget

    if isinstance(member.moment, PostgresMoment):
        recovery = recovery_in_volume(opened, member.moment, say, on_progress)
        return VolumeMember(
            service=member.service,
            compose=recovery.compose,
            what=member.what,
            home=recovery.home,
            discard=recovery.home.discard,
            staged=recovery.findings,
            undo=recovery.home,
            reader=recovery.home.candidates[0].reader,
            artefact_id=recovery.placement_id,
            identity=recovery.identity,
        )
    assert isinstance(member.moment, RedisTarget), "only databases have moments"
    place = redis_place(system, member.service)
    if place.url is not None:
        return _into_server(member, place, consent or Consent(), say, on_progress)
    return _redis(member, member.moment, place, system, say, on_progress, scope)


def _into_server(
    member: TimedMember,
    place: RedisPlace,
    consent: Consent,
    say: Callable[[str], None],
    on_progress: ProgressListener,
) -> OpenMember:
    from recoup.assembly.restore.redis import require_empty

    def replaces() -> str | None:
        require_empty(place, force=consent.force)
        return None

    def put() -> Put:
        report: Report = member.act(Wish(), consent, say, on_progress)
        return Put(kept=report.kept, notes=report.notes, findings=report.findings)

    return OpenMember(service=member.service, what=member.what, where="the running server", replaces=replaces, put=put)


def _redis(
    member: TimedMember,
    target: RedisTarget,
    place: RedisPlace,
    system: System,
    say: Callable[[str], None],
    on_progress: ProgressListener,
    scope: contextlib.ExitStack,
) -> VolumeMember:
    from recoup.assembly.redis import RedisHome

    assert place.stack is not None, "a place without an address is in the stack"
    assert place.service.compose is not None, "a place without an address is in the stack"
    facts = target.found.manifest.facts
    said = facts.get("place")
    home = RedisHome(place=place, stack=place.stack, compose_service=place.service.compose, facts=facts)
    return VolumeMember(
        service=member.service,
        compose=place.service.compose,
        what=member.what,
        home=home,
        undo=home,
        reader=_Replayed(system, target, say, on_progress, scope),
        artefact_id=target.found.manifest.id,
        identity=None if said is None else str(said),
        at_once=True,
    )


class _Replayed:
    """The data set of a Redis at an instant, made when it is first asked for. Implements ``CopyReader``."""

    def __init__(
        self,
        system: System,
        target: RedisTarget,
        say: Callable[[str], None],
        on_progress: ProgressListener,
        scope: contextlib.ExitStack,
    ) -> None:
        self._system, self._target, self._say = system, target, say
        self._on_progress, self._scope = on_progress, scope
        self._made: BuiltCopy | None = None

    def _copy(self) -> BuiltCopy:
        if self._made is None:
            from recoup.assembly.restore.redis_moment import build_copy
            from recoup.repository.copy_reader import ArtefactReader

            folder = Path(self._scope.enter_context(tempfile.TemporaryDirectory(prefix="recoup-redis-")))
            found = self._target.found
            stored = ArtefactReader(found.manifest, found.holders)
            self._made = build_copy(self._system, self._target, stored, folder, self._say, self._on_progress)
        return self._made

    @property
    def facts(self) -> Mapping[str, Any]:
        """See ``CopyReader``."""
        return {**self._target.found.manifest.facts, **self._copy().facts}

    @property
    def fingerprint(self) -> Mapping[str, Any] | None:
        """See ``CopyReader``."""
        return self._copy().fingerprint

    def streams(self) -> tuple[StreamInfo, ...]:
        """See ``CopyReader``."""
        return self._copy().streams()

    def read(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See ``CopyReader``."""
        return self._copy().read(name, start, length)

    def members(self, name: str) -> Iterator[TarMember]:
        """See ``CopyReader``."""
        return self._copy().members(name)

    def each_frame(self, name: str, act: Callable[[int, bytes], None], workers: int = 0) -> None:
        """See ``CopyReader``."""
        self._copy().each_frame(name, act, workers)
