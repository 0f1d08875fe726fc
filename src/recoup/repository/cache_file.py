"""Small SQLite files in the state folder: caches, each of one schema. Deleting one costs work, never anything else."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path


def open_cache(path: Path | None, *, version: int, tables: Sequence[str], schema: Sequence[str]) -> sqlite3.Connection:
    """Open a cache, made anew when it is missing or of another version; without a path, one in memory.

    ``tables`` are the names that ``schema`` (one statement each) makes. Raise ``sqlite3.DatabaseError`` when the file
    is damaged or cannot be written, ``OSError`` when its folder cannot be made.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = sqlite3.connect(path or ":memory:", timeout=30)
    try:
        (known,) = database.execute("pragma user_version").fetchone()
        if known != version:
            for table in tables:
                database.execute(f"drop table if exists {table}")
            for statement in schema:
                database.execute(statement)
            database.execute(f"pragma user_version = {version}")
            database.commit()
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def write_cache(
    path: Path, opened: Callable[[], sqlite3.Connection], write: Callable[[sqlite3.Connection], object]
) -> None:
    """Write into a cache in one transaction. One that is damaged is made anew; where none can be written, none is."""
    for _ in range(2):
        try:
            with contextlib.closing(opened()) as database:
                write(database)
                database.commit()
            return
        except OSError:
            return
        except sqlite3.DatabaseError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
