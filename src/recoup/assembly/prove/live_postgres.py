"""Bringing a PostgreSQL copy to life in a sandbox, with the plan's checks and what other copies say of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from recoup.assembly.access import Found, Readable
from recoup.assembly.prove.cross_chain import RequireRoom, cross_chain
from recoup.assembly.prove.postgres_image import find_installation
from recoup.assembly.system import System
from recoup.engines.postgres.live import LiveRequest, PostgresLive
from recoup.engines.postgres.plan_checks import PlanCheck
from recoup.engines.postgres.sameness import settle
from recoup.engines.sandbox import Sandbox
from recoup.kernel.errors import UncheckedError
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.plan.services import PostgresService
from recoup.repository.copy_reader import ArtefactReader


@contextlib.contextmanager
def postgres_live(
    opened: Readable,
    found: Found,
    chain: Sequence[ArtefactReader],
    sandbox: Sandbox,
    *,
    sandboxes: Path,
    left_seconds: Callable[[], float | None],
    require_room: RequireRoom,
) -> Iterator[CrossedLive]:
    """The copy ``found`` (the last of ``chain``), to be restored into ``sandbox``.

    ``sandboxes`` is where further ones are opened for the cross-chain check, when ``require_room`` lets them be.
    """
    service = found.manifest.service
    request = LiveRequest(checks=checks_of(opened.system, service), find=find_installation(opened.system, service))
    if left_seconds() is not None:
        request = replace(request, allowed_seconds=lambda: left_seconds() or 0.0)
    with PostgresLive(sandbox, chain, request) as live:
        yield CrossedLive(opened, found, live, sandboxes, left_seconds, require_room)


class CrossedLive:
    """``PostgresLive``, held against the base backup before it and the WAL between. Implements ``LiveCopy``."""

    def __init__(
        self,
        opened: Readable,
        found: Found,
        live: PostgresLive,
        sandboxes: Path,
        left_seconds: Callable[[], float | None],
        require_room: RequireRoom,
    ) -> None:
        self._opened, self._found, self._live = opened, found, live
        self._sandboxes, self._left_seconds, self._require_room = sandboxes, left_seconds, require_room
        self._whole = False

    def boots(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        findings = self._live.boots()
        self._whole = self._found.manifest.kind != "dump" or overall(findings) is Verdict.OK
        return findings

    def sound(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        self._require_whole()
        return self._live.sound()

    def same(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        self._require_whole()
        recorded = self._live.same()
        crossed = cross_chain(
            self._opened,
            self._found,
            sandboxes=self._sandboxes,
            left_seconds=self._left_seconds(),
            require_room=self._require_room,
        )
        findings = settle(recorded, crossed.findings)
        if crossed.why_not and findings:
            gap = f"the same state derived from another base backup and the WAL between: {crossed.why_not}"
            last = findings[-1]
            findings[-1] = replace(last, not_checked="; ".join(filter(None, (last.not_checked, gap))))
        return findings

    def works(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        self._require_whole()
        return self._live.works()

    def _require_whole(self) -> None:
        """What this machine lacks to restore a dump must not be taken for a loss."""
        if not self._whole:
            raise UncheckedError("the dump could not be restored whole here: see what is unknown at the grade boots")


def checks_of(system: System | None, service: str) -> list[PlanCheck]:
    """What the plan wants to be true of a PostgreSQL service."""
    described = None if system is None else system.plan.services.get(service)
    if system is None or not isinstance(described, PostgresService):
        return []
    names = [system.resolver.text(one) for one in described.databases]
    default = names[0] if names else None if described.database is None else system.resolver.text(described.database)
    return [
        PlanCheck(
            sql=one.sql,
            name=one.name,
            database=one.database or default,
            at_least=one.at_least,
            at_most=one.at_most,
            equals=one.equals,
        )
        for one in described.checks
    ]
