"""The checksums of all pages, by ``pg_checksums --check``: it wants the server shut down, so it is, for that long."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from recoup.engines.postgres.control import CONTROL_FILE, parse_control
from recoup.engines.postgres.soundness_ask import DAMAGED_HINT, Budget, CheckedServer, Examiner, Refusal
from recoup.engines.postgres.soundness_tally import Tally, many
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.process import run

_CHECK: Final = "every page has its checksum"
_BAD: Final = re.compile(r'checksum verification failed in file "(?P<path>[^"]+)", block (?P<page>\d+)')
_COUNT: Final = re.compile(r"Bad checksums:\s*(\d+)")
_NUMBERS: Final = re.compile(r"Files scanned:\s*(\d+)\s+Blocks scanned:\s*(\d+)")
_PLACE: Final = re.compile(
    r".*?(?:global|base/(?P<database>\d+)|pg_tblspc/(?P<tablespace>\d+)/[^/]+/(?P<its>\d+))/(?P<node>\d+)[^/]*"
)
_DEFAULT, _GLOBAL = 1663, 1664  #: src/include/catalog/pg_tablespace.dat


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFile:
    """Whose a file of pages is, by its path. ``database`` None: all databases share it."""

    database: int | None
    tablespace: int
    node: int


def page_file(path: str) -> PageFile | None:
    """Given the path of a file in a data folder, return what it says; None when it is no file of a relation."""
    match = _PLACE.fullmatch(path)
    if match is None:
        return None
    database = match["database"] or match["its"]
    tablespace = int(match["tablespace"] or (_DEFAULT if database else _GLOBAL))
    return PageFile(database=int(database) if database else None, tablespace=tablespace, node=int(match["node"]))


def check_checksums(server: CheckedServer, budget: Budget) -> list[Finding]:
    """Every page of every fork of every relation matches its checksum, where the cluster has checksums.

    The server is stopped and started again. Raise ``UncheckedError`` when it cannot be looked at, ``EngineError``
    when the server does not come back.
    """
    subject = "data folder"
    try:
        control = parse_control((server.folder / CONTROL_FILE).read_bytes())
    except OSError as failure:
        raise UncheckedError(f"cannot read {server.folder / CONTROL_FILE}: {failure.strerror}") from failure
    if not control.data_checksums:
        return [
            Finding(
                check="page checksums", subject=subject, verdict=Verdict.OK,
                detail="the cluster has none to look at",
                not_checked="page checksums: data checksums are off on production, so a bit that flipped inside of a "
                "value may only be seen by the grade same (pg_checksums --enable turns them on)",
            )
        ]  # fmt: skip
    tally = Tally(_CHECK, subject, unit="files", not_checked="pages of zeros, which have no checksum")
    command = server.command(
        [str(server.programs / "pg_checksums"), "--check", "-D", str(server.folder)],
        timeout_seconds=max(1.0, budget.left()),
    )
    server.stop()
    try:
        completed = run(command, expect=None)
    except EngineError as failure:
        tally.unknown(subject, failure.message, hint=failure.hint)
        return tally.findings()
    finally:
        server.start(_START_SECONDS)
    _read(tally, server, budget, completed.stdout.decode(errors="replace") + completed.stderr)
    return tally.findings()


_START_SECONDS: Final = 600.0


def _read(tally: Tally, server: CheckedServer, budget: Budget, said: str) -> None:
    pages: dict[str, list[int]] = {}
    for match in _BAD.finditer(said):
        pages.setdefault(match["path"], []).append(int(match["page"]))
    for path, found in pages.items():
        tally.failed(
            _owner(server, budget, path),
            f"wrong checksum of {many(len(found), 'page')}, the first is page {min(found)} of {path}",
            hint=DAMAGED_HINT,
        )  # fmt: skip
    count, numbers = _COUNT.search(said), _NUMBERS.search(said)
    if count is None or numbers is None:
        tally.unknown(tally.subject, f"pg_checksums did not finish: {' '.join(said.split())[-300:]}")
        return
    if unnamed := int(count[1]) - sum(map(len, pages.values())):
        tally.failed(tally.subject, f"{unnamed} more pages have a wrong checksum", hint=DAMAGED_HINT)
    tally.examined = int(numbers[1])
    tally.also.append(f"{numbers[2]} pages")


def _owner(server: CheckedServer, budget: Budget, path: str) -> str:
    """Whose file ``path`` is, as ``database: relation``; the path where nobody says."""
    file = page_file(path)
    if file is None:
        return path
    where = server.databases()[0]
    if file.database is not None:
        with Examiner(server, where, budget) as examiner:
            found = examiner.ask(f"SELECT datname FROM pg_database WHERE oid = {file.database}")
        if isinstance(found, Refusal) or not found:
            return path
        where = str(found[0][0])
    with Examiner(server, where, budget) as examiner:
        name = examiner.ask(f"SELECT pg_filenode_relation({file.tablespace}, {file.node})::regclass")
    return path if isinstance(name, Refusal) or not name[0][0] else f"{where}: {name[0][0]}"
