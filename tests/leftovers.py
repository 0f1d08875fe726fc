"""Databases that tests made on the servers they share are dropped when nobody needs them any more.

A base backup copies the whole cluster. With the databases of a hundred tests in it, every backup of a later test took
seconds.

What a test or a fixture of its own made goes after the test, a few at a time; everything else after the last test of
the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg

from recoup.demo.postgres_server import PostgresServer

_MANY = 8  # dropping a database waits for a checkpoint, so that several at once are quicker

_scopes: list[str] = []  # of the fixtures that are being made, the innermost last
_of_tests: list[tuple[PostgresServer, str]] = []
_used: set[PostgresServer] = set()


def noting(make: Callable[..., str]) -> Callable[..., str]:
    """In place of ``new_database``: do the same, and note for whom."""

    def new_database(server: PostgresServer, prefix: str = "db") -> str:
        name = make(server, prefix)
        _used.add(server)
        if not _scopes or _scopes[-1] == "function":
            _of_tests.append((server, name))
        return name

    return new_database


@contextlib.contextmanager
def making(scope: str) -> Iterator[None]:
    """A fixture is being made, for a test (``function``) or for several."""
    _scopes.append(scope)
    try:
        yield
    finally:
        _scopes.pop()


def after_test(*, last_of_file: bool) -> None:
    """Drop what is not needed any more, if it is worth it."""
    if last_of_file:
        for server in _used:
            _drop(server, None)
        _used.clear()
    elif len(_of_tests) >= _MANY:
        for server in {server for server, _ in _of_tests}:
            _drop(server, [name for its, name in _of_tests if its is server])
    else:
        return
    _of_tests.clear()


def _drop(server: PostgresServer, names: list[str] | None) -> None:
    if server.pid is None:  # it was the test's own
        return
    with contextlib.suppress(psycopg.Error), server.connect() as connection:
        there = connection.execute("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")
        for (name,) in there.fetchall():
            if names is None or name in names:
                # One that a slot or a subscription holds stays.
                with contextlib.suppress(psycopg.Error):
                    connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
