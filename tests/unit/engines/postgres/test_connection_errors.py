from __future__ import annotations

import psycopg
import pytest

from recoup.engines.postgres.connection_errors import (
    ReplicationNotAllowedError,
    UnreachableError,
    clean,
    describe_address,
    hba_line,
    parse_connection,
    translate_connect,
)
from recoup.kernel.errors import UsageError
from recoup.kernel.secret import Secret

KEYWORDS = {"host": "db", "port": "5432", "user": "recoup", "dbname": "shop", "password": "hunter2"}


def translated(text: str) -> tuple[type[Exception], str, str]:
    error = translate_connect(psycopg.OperationalError(text), KEYWORDS)
    return type(error), error.message, str(error.hint)


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("172.18.0.5", "host  replication  recoup  172.18.0.5/32  scram-sha-256"),
        ("fd00::5", "host  replication  recoup  fd00::5/128  scram-sha-256"),
        ("[local]", "local  replication  recoup  scram-sha-256"),
    ],
)
def test_a_missing_pg_hba_entry_names_the_exact_line(host: str, line: str) -> None:
    kind, _, hint = translated(
        f'FATAL:  no pg_hba.conf entry for replication connection from host "{host}", user "recoup", no encryption'
    )
    assert kind is ReplicationNotAllowedError
    assert line in hint
    assert line == hba_line(host, "recoup")


@pytest.mark.parametrize(
    ("text", "kind", "hint"),
    [
        ("FATAL:  must be superuser or replication role to start walsender", ReplicationNotAllowedError, "ALTER ROLE"),
        ("FATAL:  permission denied to start WAL sender", ReplicationNotAllowedError, "ALTER ROLE"),
        ('FATAL:  number of requested standby connections exceeds "max_wal_senders" (currently 3)',
         ReplicationNotAllowedError, "All 3 WAL senders"),
        ("FATAL:  the database system is starting up", UnreachableError, "try again"),
        ("connection to server failed: Connection refused", UnreachableError, "Start the server"),
        ('could not translate host name "db" to address: Name or service not known', UnreachableError, "Compose"),
        ("connection timeout expired", UnreachableError, "firewall"),
    ],
)  # fmt: skip
def test_each_refusal_comes_with_its_remedy(text: str, kind: type[Exception], hint: str) -> None:
    found, _, said = translated(text)
    assert found is kind
    assert hint in said


def test_a_password_never_shows() -> None:
    _, message, _ = translated('FATAL:  password authentication failed for "hunter2"\nsecond line')
    assert "hunter2" not in message
    assert "hunter2" not in describe_address(KEYWORDS)
    assert clean("a hunter2\n b.", KEYWORDS) == "a ***; b"


def test_an_address_that_cannot_be_understood_is_not_repeated() -> None:
    with pytest.raises(UsageError) as failure:
        parse_connection(Secret("postgresql://u:hunter2@[bad"))
    assert "hunter2" not in str(failure.value) + str(failure.value.__cause__)
