"""The files of tables and indexes: are they all there, whole, each of one relation, and which pages are all zeros?

A page of zeros is valid to PostgreSQL, and normal where a table was about to grow. It is damage where something else
still knows of rows in it: the visibility map (src/backend/access/heap/visibilitymap.c: two bits for each page, never
set for a new one) or an index, which ``soundness_indexes`` asks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from recoup.engines.postgres.control import CONTROL_FILE, parse_control
from recoup.engines.postgres.soundness_ask import DAMAGED_HINT, Examiner
from recoup.engines.postgres.soundness_tally import Tally, some
from recoup.engines.postgres.zero_pages import zero_runs
from recoup.kernel.errors import UncheckedError
from recoup.kernel.finding import Finding

_READ_BYTES: Final = 1 << 20
_PAGE_HEADER_BYTES: Final = 24
_RELATIONS: Final = """
SELECT c.oid, c.oid::regclass::text, c.relkind, pg_relation_filepath(c.oid), c.relisshared,
       c.relkind IN ('r', 'm') AND a.amname = 'heap' AND c.relpersistence <> 't'
  FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam
 WHERE c.relkind IN ('r', 'm', 't', 'i', 'S') AND c.relpersistence <> 't'
   AND (c.reltablespace = 0 OR c.reltablespace = ANY (SELECT oid FROM pg_tablespace)) ORDER BY c.oid"""


@dataclass(slots=True, kw_only=True)
class ZeroedTable:
    """A table with pages of zeros."""

    name: str
    pages: int = 0
    inner: int = 0  #: those with other pages behind them
    marked: list[int] = field(default_factory=list)  #: the visibility map says that these hold rows; the first few


def check_files(examiner: Examiner, *, shared: bool) -> tuple[list[Finding], list[ZeroedTable]]:
    """Look at the files of one database; also return the tables that have pages of zeros, for who can judge them.

    Raise ``UncheckedError`` when the data folder cannot be read. ``shared``: also those that all databases share.
    """
    tally = Tally("the file of every table and index is there", examiner.named("files"), unit="relations")
    pages = Tally(
        "no page of a table was replaced by zeros", examiner.named("tables"), unit="tables",
        not_checked="pages of zeros at the end of a table without an index: tables grow like that",
    )  # fmt: skip
    folder = examiner.server.folder
    examiner.run("CHECKPOINT")
    control = parse_control(_bytes_of(folder / CONTROL_FILE))
    block, segment = control.block_bytes, control.relation_segment_blocks * control.block_bytes
    owners: dict[str, str] = {}
    zeroed: list[ZeroedTable] = []
    for _, name, _, path, is_shared, heap in examiner.facts(_RELATIONS):
        if is_shared == "t" and not shared:
            continue
        tally.examined += 1
        what = examiner.named(name)
        if path is None:
            tally.failed(what, "the catalogues name no file for it", hint=DAMAGED_HINT)
            continue
        if path in owners:
            tally.failed(what, f"its file {path} is that of {owners[path]} as well", hint=DAMAGED_HINT)
        owners[path] = str(name)
        for fault in _segments_faults(folder, path, block, segment):
            tally.failed(what, fault, hint=DAMAGED_HINT)
        if heap == "t":
            pages.examined += 1
            found = _zeroed(folder / path, str(name), block)
            if found is not None and found.marked:
                pages.failed(
                    what,
                    f"all zeros: page {some(map(str, found.marked))}; the visibility map says that there are rows",
                    hint=DAMAGED_HINT,
                )
            elif found is not None:
                zeroed.append(found)
    return [*tally.findings(), *([] if pages.clean and zeroed else pages.findings())], zeroed


def _segments_faults(folder: Path, path: str, block: int, segment: int) -> Iterator[str]:
    """What is wrong with the files of one relation: ``path``, ``path.1`` and so on (src/backend/storage/smgr/md.c)."""
    short = False
    for number in itertools.count():
        name = path if number == 0 else f"{path}.{number}"
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError:
            if number == 0:
                yield f"its file {path} is missing"
            elif not short and (folder / f"{path}.{number + 1}").exists():
                yield f"its file {name} is missing, and the one after it is there"
            return
        except OSError as failure:
            raise UncheckedError(f"cannot look at {folder / name}: {failure.strerror}") from failure
        if size % block:
            yield f"its file {name} has {size} bytes, which is no whole number of pages"
        if short and size:
            yield f"its file {name} holds data, and the one before it is not full"
        short = short or size < segment


def _zeroed(path: Path, name: str, block: int) -> ZeroedTable | None:
    found = ZeroedTable(name=name)
    end = 0
    visible = _visible_pages(Path(f"{path}_vm"), block)
    for first, count, last in zero_runs(_pieces(path), block):
        found.pages += count
        found.inner += 0 if last else count
        end = first + count
        if len(found.marked) < 100:
            found.marked += [page for page in range(first, end) if visible(page)]
    return found if end else None


def _pieces(path: Path) -> Iterator[bytes]:
    """The content of all segments of a relation, in order."""
    for number in itertools.count():
        try:
            with open(path if number == 0 else f"{path}.{number}", "rb") as file:
                while piece := file.read(_READ_BYTES):
                    yield piece
        except FileNotFoundError:
            return
        except OSError as failure:
            raise UncheckedError(f"cannot read {path}: {failure.strerror}") from failure


def _visible_pages(path: Path, block: int) -> Callable[[int], bool]:
    """Whether the visibility map has a bit for a page of the table."""
    try:
        bits = path.read_bytes()
    except FileNotFoundError:
        bits = b""
    except OSError as failure:
        raise UncheckedError(f"cannot read {path}: {failure.strerror}") from failure
    body = block - _PAGE_HEADER_BYTES

    def marked(page: int) -> bool:
        map_page, within = divmod(page, body * 4)
        offset = map_page * block + _PAGE_HEADER_BYTES + within // 4
        return offset < len(bits) and bool(bits[offset] >> (within % 4 * 2) & 3)

    return marked


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise UncheckedError(f"cannot read {path}: {failure.strerror}") from failure
