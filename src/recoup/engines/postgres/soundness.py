"""The grade *sound* of a PostgreSQL copy: is there damage inside?

Asked of a server that was started from the copy and is thrown away afterwards. The checks are in the files beside this
one, each with what it cannot see; docs/reference/damage.md shows which damage is seen by which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from recoup.engines.postgres.soundness_amcheck import check_by_amcheck
from recoup.engines.postgres.soundness_ask import Budget, CannotAskError, CheckedServer, Examiner
from recoup.engines.postgres.soundness_catalog import (
    check_collations,
    check_libraries,
    check_references,
    check_valid_indexes,
)
from recoup.engines.postgres.soundness_checksums import check_checksums
from recoup.engines.postgres.soundness_constraints import check_row_rules
from recoup.engines.postgres.soundness_databases import every_database_open
from recoup.engines.postgres.soundness_files import ZeroedTable, check_files
from recoup.engines.postgres.soundness_indexes import check_by_counting
from recoup.engines.postgres.soundness_keys import check_exclusions, check_foreign_keys, check_unique_keys
from recoup.engines.postgres.soundness_rows import check_rows
from recoup.engines.postgres.soundness_sequences import check_sequences
from recoup.engines.postgres.soundness_tally import given_up
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.finding import Finding, Verdict


def check_soundness(server: CheckedServer, *, allowed_seconds: float, rules: bool = True) -> list[Finding]:
    """Look for damage in all databases of a restored server that is thrown away afterwards.

    Without ``rules`` only pages, rows and indexes are looked at, and nothing that an application can break as well
    (constraints, keys, sequences): for who asks where damage of the storage began. What was not reached within
    ``allowed_seconds`` is named and unknown. No error is raised for what is wrong with the data; ``EngineError`` when
    the server does not answer at all. Nothing in the databases is different afterwards that a fingerprint sees.
    """
    budget = Budget(allowed_seconds)
    findings = _guarded("page checksums", "data folder", lambda: check_checksums(server, budget))
    with every_database_open(server, budget) as found:
        findings += found
        for number, database in enumerate(server.databases()):
            with Examiner(server, database, budget) as examiner:
                findings += _check_database(examiner, shared=number == 0, rules=rules)
    return findings


def _check_database(examiner: Examiner, *, shared: bool, rules: bool) -> list[Finding]:
    """All checks of one database, the cheap ones first. ``shared``: also what all databases have in common."""
    findings: list[Finding] = []
    zeroed: list[ZeroedTable] = []
    amcheck = False

    def files() -> list[Finding]:
        nonlocal zeroed
        found, zeroed = check_files(examiner, shared=shared)
        return found

    def by_amcheck() -> list[Finding]:
        nonlocal amcheck
        found, amcheck = check_by_amcheck(examiner, shared=shared)
        return found

    checks: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
        ("the library of every extension is here", lambda: check_libraries(examiner)),
        ("every reference in the catalogues leads to something", lambda: check_references(examiner)),
        ("the file of every table and index is there", files),
        ("text is ordered here as it was there", lambda: check_collations(examiner)),
        ("every index is valid", lambda: check_valid_indexes(examiner)),
        ("every row can be read", lambda: check_rows(examiner, shared=shared)),
        ("no sequence is behind its column", lambda: check_sequences(examiner)),
        ("every row keeps the rules of its table", lambda: check_row_rules(examiner)),
        ("every foreign key leads to a row", lambda: check_foreign_keys(examiner)),
        ("no unique key is there twice", lambda: check_unique_keys(examiner, shared=shared)),
        ("no two rows exclude each other", lambda: check_exclusions(examiner)),
        ("every row is in its indexes (amcheck)", by_amcheck),
        (_COUNTING, lambda: check_by_counting(examiner, zeroed, amcheck=amcheck)),
    )
    for name, check in checks:
        if rules or name not in _RULES:
            findings += _guarded(name, examiner.database, check)
    return findings


_COUNTING: Final = "an index finds as many rows as its table holds"
#: What is wrong in a database whose storage is well, too: applications, upgrades and people break it.
_RULES: Final = (
    "the library of every extension is here",
    "text is ordered here as it was there",
    "every index is valid",
    "no sequence is behind its column",
    "every row keeps the rules of its table",
    "every foreign key leads to a row",
    "no two rows exclude each other",
)


def _guarded(name: str, subject: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """What a check found. One that cannot be made is a finding, and does not keep the others from being made."""
    try:
        return check()
    except CannotAskError as failure:
        return [given_up(name, subject, failure)]
    except (UncheckedError, EngineError) as failure:
        return [
            Finding(check=name, subject=subject, verdict=Verdict.UNKNOWN, detail=failure.message, hint=failure.hint)
        ]
