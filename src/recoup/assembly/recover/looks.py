"""Looking at a recovery point in a sandbox: the copy restored, its log replayed to there, the server on it asked.

Nothing of production is touched. Where this machine has no server of the right version, the service's own image has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from recoup.assembly.access import Found, Readable
from recoup.assembly.drill.members import copies_of
from recoup.assembly.drill.native import NativeDatabases
from recoup.assembly.protect.incremental import chain_of
from recoup.assembly.prove.live import refuse_without_room, sandboxes
from recoup.assembly.prove.postgres_image import find_installation
from recoup.assembly.restore.stack_moment import TimedMember
from recoup.assembly.system import System
from recoup.assembly.voice import Voice
from recoup.engines.postgres.recover_folder import TargetTooEarlyError
from recoup.engines.postgres.sandbox_faults import lacks_means
from recoup.engines.postgres.sandbox_restore import major_of, wanted_extensions
from recoup.engines.sandbox import Sandbox, open_sandbox
from recoup.kernel import clock
from recoup.kernel.errors import (
    DamageError,
    EngineError,
    InterruptedRunError,
    MissingObjectError,
    RecoupError,
    WrongKeyError,
)
from recoup.kernel.finding import Finding, Verdict
from recoup.plan.services import PostgresService
from recoup.recovery.clean_point import Seen, Spot
from recoup.repository.copy_reader import ArtefactReader

_EMPTY: Final = "it holds no key"
_FULL: Final = "No space left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One look: what it showed, in the words of the choice and of its checks, and how long it took.

    ``open`` names what could not be looked at in it. ``why`` says why there was no look, or what broke it.
    """

    seen: Seen
    seconds: float
    open: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looker:
    """Looks at points of one service. ``most_keys``: of a Redis, how many keys its copies hold at most."""

    opened: Readable
    system: System
    service: str
    voice: Voice
    most_keys: int | None = None

    def look(self, spot: Spot, member: Found | TimedMember, allowed_seconds: float) -> Looked:
        """Bring ``member``, which is at ``spot``, to life and look for damage in it. Never raises for what is found;
        ``WrongKeyError`` and ``InterruptedRunError`` pass.

        ``allowed_seconds`` is for the looking itself; what was not come to is named in ``open``.
        """
        began = clock.monotonic()

        def looked(
            faults: Iterable[str] | None, *, usable: bool = True, marker: str | None = None, why: str = "",
            unseen: Sequence[str] = (),
        ) -> Looked:  # fmt: skip
            told = None if faults is None else frozenset(faults)
            seen = Seen(spot=spot, faults=told, marker=marker, usable=usable)
            return Looked(seen=seen, seconds=clock.monotonic() - began, open=tuple(unseen), why=why)

        with contextlib.ExitStack() as scope:
            try:
                sandbox = scope.enter_context(open_sandbox(
                    sandboxes(self.opened.state_folder), f"proving what {self.service} goes back to"
                ))  # fmt: skip
                self._require_means(sandbox, member)
            except (InterruptedRunError, WrongKeyError):
                raise
            except (DamageError, MissingObjectError) as damage:
                return looked([damage.message], usable=False, why=damage.message)
            except RecoupError as lack:
                return looked(None, why=f"{lack.message}. {lack.hint or ''}".strip())
            try:
                findings, marker = self._alive(sandbox, member, scope, allowed_seconds)
            except (InterruptedRunError, WrongKeyError):
                raise
            except (DamageError, MissingObjectError, TargetTooEarlyError) as damage:
                return looked([damage.message], usable=False, why=damage.message)
            except EngineError as failure:
                # What this machine lacks says nothing of the point: to go back further for it would lose data.
                here = _FULL in failure.message or lacks_means(failure.message)
                if here or not isinstance(self._described, PostgresService):
                    return looked(None, why=failure.message)
                return looked([failure.message], usable=False, why=failure.message)  # it cannot be recovered to
            except RecoupError as failure:
                return looked(None, why=failure.message)
        bad = [one for one in findings if one.verdict is Verdict.FAILED]
        unseen = [f"{one.check}: {one.subject}: {one.detail}" for one in findings if one.verdict is Verdict.UNKNOWN]
        why = "; ".join(f"{one.check}: {one.subject}: {one.detail}" for one in bad[:3])
        return looked((f"{one.check}: {one.subject}" for one in bad), marker=marker, why=why, unseen=unseen)

    @property
    def _described(self) -> object:
        return self.system.plan.services[self.service]

    def _require_means(self, sandbox: Sandbox, member: Found | TimedMember) -> None:
        """Raise what says that nothing can be looked at here, before anything is fetched."""
        found = copies_of(member)[0]
        if not isinstance(self._described, PostgresService):
            refuse_without_room(
                sandbox.folder, found.manifest.kind, [ArtefactReader(found.manifest, found.holders)], None
            )
            return
        chain = chain_of(self.opened, found)
        refuse_without_room(sandbox.folder, found.manifest.kind, chain, None)
        find = find_installation(self.system, self.service)
        find(sandbox, major_of(chain[-1].facts), wanted_extensions(chain[-1]))

    def _alive(
        self, sandbox: Sandbox, member: Found | TimedMember, scope: contextlib.ExitStack, allowed_seconds: float
    ) -> tuple[list[Finding], str | None]:
        """What the copy showed when it was brought to life, and its last change."""
        native = NativeDatabases(
            opened=self.opened, system=self.system, sandbox=sandbox, say=self.voice.say,
            on_progress=self.voice.on_progress, scope=scope,
        )  # fmt: skip
        findings = [*native.restore(self.service, member).findings, *native.start(self.service).findings]
        findings += native.damage(self.service, allowed_seconds)
        if self.most_keys and native.keys(self.service) == 0:
            findings.append(
                Finding(
                    check=_EMPTY,
                    subject=self.service,
                    verdict=Verdict.FAILED,
                    detail=f"and a copy of it holds {self.most_keys}",
                )
            )
        return findings, _last_change(native, self.service)


def _last_change(native: NativeDatabases, service: str) -> str | None:
    """What was replayed last: two points of one log with the same hold the same data."""
    if service in native.applied:
        return f"command {native.applied[service]} after the copy"
    outcome = native.outcomes.get(service)
    commit = None if outcome is None else outcome[1].last_commit
    return None if commit is None else clock.to_text(commit)
