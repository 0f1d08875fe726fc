"""A short look for damage in a server that is in use: which tables and indexes can be named as hurt, within seconds.

It only reads, and takes no lock that writers wait for. It is not the grade *sound*: a large database is not read whole
in the time there is, and what was not reached is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recoup.engines.postgres.access import ServerAccess, connectable, open_maintenance
from recoup.engines.postgres.session import Session
from recoup.engines.postgres.soundness_amcheck import check_by_amcheck
from recoup.engines.postgres.soundness_ask import Budget, CannotAskError, Examiner
from recoup.engines.postgres.soundness_rows import check_rows
from recoup.engines.postgres.soundness_tally import given_up
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.process import Command

_CHECK = "tables and indexes can be read"


def look_for_damage(access: ServerAccess, *, seconds: float) -> list[Finding]:
    """What is hurt, as far as it is found within ``seconds``. Raise ``EngineError`` when the server does not answer."""
    with open_maintenance(access) as session:
        major = int(str(session.query("SELECT current_setting('server_version_num')")[0][0])) // 10000
    server, budget = _Running(access, major), Budget(seconds)
    findings: list[Finding] = []
    for number, name in enumerate(server.databases()):
        with Examiner(server, name, budget, in_use=True) as examiner:
            try:
                # Pages and indexes first: what amcheck says names more than a failing read does.
                findings += check_by_amcheck(examiner, shared=number == 0, gently=True)[0]
                findings += check_rows(examiner, shared=number == 0)
            except CannotAskError as failure:
                findings.append(given_up(_CHECK, name, failure))
            except EngineError as failure:
                findings.append(Finding(check=_CHECK, subject=name, verdict=Verdict.UNKNOWN, detail=failure.message))
    return findings


@dataclass(frozen=True, slots=True)
class _Running:
    """A server that is in use, as the checks see it (``CheckedServer``). Its files and programs are out of reach."""

    access: ServerAccess
    major: int

    @property
    def folder(self) -> Path:
        """See ``CheckedServer``."""
        raise EngineError("the files of a running server are not looked at")

    @property
    def programs(self) -> Path:
        """See ``CheckedServer``."""
        raise EngineError("the programs of a running server are not used")

    def session(self, database: str = "postgres") -> Session:
        """See ``CheckedServer``."""
        return self.access.session(database)

    def databases(self) -> list[str]:
        """See ``CheckedServer``."""
        return connectable(self.access)

    def command(self, argv: Sequence[str], *, timeout_seconds: float | None = None) -> Command:  # noqa: ARG002
        """See ``CheckedServer``."""
        raise EngineError("the programs of a running server are not used")

    def stop(self) -> None:
        """See ``CheckedServer``."""
        raise EngineError("a running server is not stopped to be looked at")

    def start(self, seconds: float) -> None:  # noqa: ARG002
        """See ``CheckedServer``."""
        raise EngineError("a running server is not started to be looked at")
