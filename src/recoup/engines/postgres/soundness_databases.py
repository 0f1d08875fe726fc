"""Every database of a restored cluster is to be looked at, also one that allows no connections."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from recoup.engines.postgres.session import identifier
from recoup.engines.postgres.soundness_ask import Budget, CheckedServer, Examiner, Refusal
from recoup.engines.postgres.soundness_tally import Tally
from recoup.kernel.finding import Finding

#: From 15 on (and in the last minors of older ones) a limit of -2 marks what a DROP DATABASE left when it was
#: interrupted: the server lets nobody in, and part of its files is gone.
_CLOSED: Final = """
SELECT datname, datconnlimit = -2 FROM pg_database
 WHERE datname <> 'template0' AND (NOT datallowconn OR datconnlimit = -2) ORDER BY datname"""


@contextlib.contextmanager
def every_database_open(server: CheckedServer, budget: Budget) -> Iterator[list[Finding]]:
    """While this lasts, databases that allow no connections do. Yields what that says about the databases."""
    tally = Tally(
        "every database can be looked at", "databases", unit="databases",
        not_checked="template0, which the server made and nobody writes to",
    )  # fmt: skip
    opened: list[str] = []
    first = server.databases()[0]
    with Examiner(server, first, budget) as examiner:
        closed = examiner.ask(_CLOSED)
        if isinstance(closed, Refusal):
            tally.refused("databases that allow no connections", closed)
            closed = []
        for name, dropped in closed:
            if dropped == "t":
                tally.unknown(
                    f"database {name}",
                    "it is half dropped: a DROP DATABASE was interrupted, and the server lets nobody in",
                    hint=f"On production: DROP DATABASE {identifier(str(name))}.",
                )
            elif refused := examiner.run(f"ALTER DATABASE {identifier(str(name))} ALLOW_CONNECTIONS true"):
                tally.refused(f"database {name}", refused)
            else:
                opened.append(str(name))
        tally.examined = len(server.databases())
    try:
        yield tally.findings()
    finally:
        with Examiner(server, first, budget) as examiner:
            for name in opened:
                examiner.run(f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS false")
