"""A PostgreSQL copy brought to life: restored into a sandbox, started there, asked. Implements ``LiveCopy``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from recoup.engines.engine import CopyReader
from recoup.engines.postgres.control import CONTROL_FILE, parse_control
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.place_files import writing_in
from recoup.engines.postgres.plan_checks import PlanCheck, check_plan
from recoup.engines.postgres.sameness import compare_with_recorded
from recoup.engines.postgres.sandbox_faults import consistent_at, lacking
from recoup.engines.postgres.sandbox_programs import FindInstallation, Installation, local_installation
from recoup.engines.postgres.sandbox_restore import (
    fill_cluster,
    is_dump,
    major_of,
    new_cluster,
    require_same_major,
    restore_base,
    wanted_extensions,
)
from recoup.engines.postgres.sandbox_server import SandboxServer, start_sandbox_server
from recoup.engines.postgres.sandbox_settings import preloaded
from recoup.engines.postgres.soundness import check_soundness
from recoup.engines.sandbox import Sandbox, clean_leftovers, open_sandbox
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict

STARTS: Final = "a server of its major version starts on it"
CONSISTENT: Final = "it recovers to a consistent state"
ANSWERS: Final = "the database answers"
_CONTENT: Final = "its own configuration files, which were not used"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRequest:
    """How to prove a copy. ``checks`` are the plan's; ``allowed_seconds`` says how much time there is for *sound*.

    ``programs`` are folders to look for PostgreSQL's own programs in first. ``find`` finds them in another way.
    """

    checks: Sequence[PlanCheck] = ()
    allowed_seconds: Callable[[], float] = lambda: 24 * 3600.0
    programs: Sequence[Path] = ()
    find: FindInstallation | None = None


class PostgresLive:
    """A copy in a sandbox. ``chain`` are a base backup and the incremental ones after it, or a single dump."""

    def __init__(self, sandbox: Sandbox, chain: Sequence[CopyReader], request: LiveRequest) -> None:
        self._sandbox, self._chain, self._request = sandbox, chain, request
        self._copy = chain[-1]
        self._until_closed = contextlib.ExitStack()
        self._server: SandboxServer | None = None
        self._folder: Path | None = None
        self._installation: Installation | None = None

    @property
    def server(self) -> SandboxServer:
        """The server on the copy, when ``boots`` has started it."""
        if self._server is None:
            raise EngineError("the server on the copy was not started")
        return self._server

    def restore(self) -> None:
        """Put the copy, or the cluster that a dump goes into, into the sandbox."""
        facts, request = self._copy.facts, self._request
        find = request.find or partial(local_installation, folders=request.programs)
        # Looked for before anything is fetched: without them nothing could be done with it.
        self._installation = find(self._sandbox, major_of(facts), wanted_extensions(self._copy))
        if is_dump(facts):
            self._folder = new_cluster(self._sandbox, self._installation)
        else:
            self._folder = restore_base(self._sandbox, self._chain, request.programs).folder
            require_same_major(self._folder, facts)

    def boots(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        if self._folder is None:
            self.restore()
        assert self._folder is not None
        facts = self._copy.facts
        server = self._server = self._until_closed.enter_context(
            start_sandbox_server(
                self._sandbox, self._folder, major=major_of(facts), facts=facts, installation=self._installation
            )
        )
        findings = [self._started(server)]
        if is_dump(facts):
            findings += fill_cluster(server, self._copy)
        else:
            findings.append(self._recovered(server))
        return [*findings, *_answering(server)]

    def sound(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        return check_soundness(self.server, allowed_seconds=self._request.allowed_seconds())

    def same(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        return compare_with_recorded(self.server, self._copy.fingerprint, self._copy.facts)

    def works(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        return check_plan(self.server, self._request.checks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until_closed.close()

    def _started(self, server: SandboxServer) -> Finding:
        with server.session(server.database) as session:
            version = session.query("SELECT current_setting('server_version')")[0][0]
        unseen = [_CONTENT]
        if libraries := preloaded(self._copy.facts):
            unseen.append(f"the libraries that production preloads: {', '.join(libraries)}")
        if self._sandbox.open_ways and not server.installation.closed:
            unseen.append(self._sandbox.open_ways)
        return Finding(
            check=STARTS,
            subject="the server",
            verdict=Verdict.OK,
            detail=f"PostgreSQL {version}, {server.installation.where}",
            not_checked="; ".join(unseen),
        )

    def _recovered(self, server: SandboxServer) -> Finding:
        """The server says how far it came: at least to where the backup ended, and it is the cluster of the copy."""
        facts = self._copy.facts
        with writing_in(server.folder):
            control = parse_control((server.folder / CONTROL_FILE).read_bytes())
        reached, end = consistent_at(server.log), facts.get("end_lsn")
        subject, expected = "the server", facts.get("system_identifier")
        if expected is not None and control.system_identifier != expected:
            said = f"it is the cluster {control.system_identifier}, and not {expected}"
            return Finding(check=CONSISTENT, subject=subject, verdict=Verdict.FAILED, detail=said)
        if (server.folder / "backup_label").exists() or reached is None:
            said = "its log does not say that it recovered"
            return Finding(check=CONSISTENT, subject=subject, verdict=Verdict.UNKNOWN, detail=said)
        if end is not None and reached < Lsn.parse(str(end)):
            said = f"recovery ended at {reached}, before the end of the backup at {end}"
            return Finding(check=CONSISTENT, subject=subject, verdict=Verdict.FAILED, detail=said)
        after = "" if end is None else f", and the backup ended at {end}"
        return Finding(
            check=CONSISTENT, subject=subject, verdict=Verdict.OK, detail=f"consistent at {reached}{after}",
            not_checked="recovery with WAL of the archive: a restore to an instant shows that",
        )  # fmt: skip


def _answering(server: SandboxServer) -> list[Finding]:
    """One finding for each database that allows connections: it can be connected to, and its catalogue read."""
    findings = []
    for name in server.databases():
        try:
            with server.session(name) as session:
                tables = session.query("SELECT count(*) FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'm')")
        except EngineError as failure:
            missing = lacking(failure.message)
            verdict = Verdict.FAILED if missing is None else Verdict.UNKNOWN
            error = missing or failure
            findings.append(
                Finding(check=ANSWERS, subject=name, verdict=verdict, detail=error.message, hint=error.hint)
            )
        else:
            detail = f"{tables[0][0]} tables, with those of the system"
            findings.append(
                Finding(
                    check=ANSWERS,
                    subject=name,
                    verdict=Verdict.OK,
                    detail=detail,
                    not_checked="whether they are sound",
                    left_to="sound",
                )
            )
    return findings


@contextlib.contextmanager
def open_postgres_live(chain: Sequence[CopyReader], root: Path, request: LiveRequest) -> Iterator[PostgresLive]:
    """Restore a copy into a new sandbox in ``root``; at the end nothing of it is left.

    ``chain`` is as ``PostgresLive`` says. Leftovers of runs that died are removed first.
    """
    clean_leftovers(root)
    with open_sandbox(root, "verifying a copy of PostgreSQL") as sandbox, PostgresLive(sandbox, chain, request) as live:
        live.restore()
        yield live
