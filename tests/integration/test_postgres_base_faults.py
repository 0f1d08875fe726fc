"""What can go wrong while a base backup is taken, on real servers: each ends in a clear error and no copy."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from recoup.demo.host import ordinary_user, wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.engine import Progress
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.base_check import check_base_copy
from recoup.engines.postgres.connection_errors import ReplicationNotAllowedError, UnreachableError
from recoup.engines.postgres.server_check import check_server
from recoup.engines.postgres.wal_hold import WalHold
from recoup.engines.postgres.wire import connect
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.kernel.secret import Secret
from tests.integration.postgres_copies import MemoryCopy
from tests.real import require_found


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresServer]:
    """A server that asks for passwords, with roles of different rights and few WAL senders."""
    with PostgresServer(
        require_found(lambda: find_postgres(17)), auth="scram-sha-256", settings={"max_wal_senders": "2"}
    ) as server:
        server.execute("CREATE ROLE plain LOGIN PASSWORD 'plain-secret'")
        server.execute("CREATE ROLE copier LOGIN REPLICATION PASSWORD 'copier-secret'")
        yield server


def hba(server: PostgresServer, text: str) -> None:
    (server.data_folder / "pg_hba.conf").write_text(text)
    loaded = "SELECT pg_conf_load_time()"  # a new connection shows the postmaster's
    before = server.execute(loaded)
    server.execute("SELECT pg_reload_conf()")
    assert wait_until(lambda: server.execute(loaded) != before, limit_seconds=120)


@pytest.fixture
def own_hba(guarded: PostgresServer) -> Iterator[PostgresServer]:
    before = (guarded.data_folder / "pg_hba.conf").read_text()
    yield guarded
    hba(guarded, before)


def fails(server: PostgresServer, user: str, password: str) -> EngineError:
    copy = MemoryCopy()
    with pytest.raises(EngineError) as failure:
        take_base_backup(Secret(server.url(user=user, password=password)), copy, label="never")
    assert copy.data == {}
    assert password not in f"{failure.value} {failure.value.hint} {failure.value.__cause__!r}"
    return failure.value


def test_a_wrong_password_is_said_without_repeating_it(guarded: PostgresServer) -> None:
    failure = fails(guarded, "copier", "not-the-one")
    assert "password authentication failed" in failure.message
    assert "password" in str(failure.hint)


def test_a_role_without_the_right_is_told_what_to_grant(guarded: PostgresServer) -> None:
    failure = fails(guarded, "plain", "plain-secret")
    assert isinstance(failure, ReplicationNotAllowedError)
    assert "ALTER ROLE" in str(failure.hint)


def test_a_role_that_may_only_replicate_takes_a_whole_copy(guarded: PostgresServer) -> None:
    copy = MemoryCopy()
    facts = take_base_backup(Secret(guarded.url(user="copier", password="copier-secret")), copy, label="least")
    assert set(copy.data) == {"base.tar", "backup_manifest"}
    assert facts.facts["data_checksums"] is True


def test_all_senders_taken_is_told_as_such(guarded: PostgresServer) -> None:
    url = Secret(guarded.url(user="copier", password="copier-secret"))
    with connect(url), connect(url):
        failure = fails(guarded, "copier", "copier-secret")
    assert isinstance(failure, ReplicationNotAllowedError)
    assert "max_wal_senders" in str(failure.hint)


def test_without_a_replication_line_the_database_line_is_enough(own_hba: PostgresServer) -> None:
    hba(own_hba, "host all all 127.0.0.1/32 scram-sha-256\n")  # as in the official container image
    copy = MemoryCopy()
    take_base_backup(Secret(own_hba.url(user="copier", password="copier-secret")), copy, label="by database")
    assert "base.tar" in copy.data


def test_where_no_line_fits_the_missing_one_is_spelled_out(own_hba: PostgresServer) -> None:
    hba(own_hba, "host all postgres 127.0.0.1/32 scram-sha-256\n")
    failure = fails(own_hba, "copier", "copier-secret")
    assert isinstance(failure, ReplicationNotAllowedError)
    assert "host  replication  copier  127.0.0.1/32  scram-sha-256" in str(failure.hint)


def test_a_server_that_is_not_there_may_be_tried_again() -> None:
    with pytest.raises(UnreachableError) as failure:
        take_base_backup(Secret("postgresql://u:word@127.0.0.1:1/db"), MemoryCopy(), label="x")
    assert failure.value.may_retry
    assert "word" not in str(failure.value)


def test_a_server_that_accepts_and_never_answers_is_given_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(UnreachableError) as failure:
        connect(Secret(f"postgresql://u:word@127.0.0.1:{deaf.getsockname()[1]}/db?connect_timeout=2"))
    assert failure.value.may_retry


def test_another_cluster_behind_the_address_is_refused(postgres17: PostgresServer) -> None:
    copy = MemoryCopy()
    with pytest.raises(RefusedError, match="another cluster"):
        take_base_backup(Secret(postgres17.url()), copy, label="x", expected_system_identifier="123")
    assert copy.data == {}


def verdicts(findings: list[Finding]) -> dict[str, Verdict]:
    return {finding.check: finding.verdict for finding in findings}


def test_the_check_of_a_good_server_is_all_ok(any_postgres: PostgresServer) -> None:
    found = check_server(Secret(any_postgres.url()))
    assert set(verdicts(found).values()) == {Verdict.OK}
    assert any("takes about" in finding.detail for finding in found)


def test_the_check_names_what_is_missing(own_hba: PostgresServer) -> None:
    found = check_server(Secret(own_hba.url(user="plain", password="plain-secret")))
    assert verdicts(found)["the role may replicate"] is Verdict.FAILED
    assert verdicts(found)["a replication connection works"] is Verdict.FAILED
    assert all(finding.hint for finding in found if finding.verdict is not Verdict.OK)
    (unreachable,) = {finding.verdict for finding in check_server(Secret("postgresql://u@127.0.0.1:1/x"))}
    assert unreachable is Verdict.FAILED


@pytest.fixture
def doomed(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of the test's own, with some data, to be damaged or killed."""
    with PostgresServer(require_found(lambda: find_postgres(getattr(request, "param", 17)))) as server:
        server.execute("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 30) AS t FROM generate_series(1, 60000) i")
        server.execute("CHECKPOINT")
        yield server


@pytest.mark.parametrize("doomed", [15, 18], indirect=True)
def test_a_damaged_page_fails_the_copy_after_the_last_byte(doomed: PostgresServer) -> None:
    ((relative,),) = doomed.execute("SELECT pg_relation_filepath('t')")
    doomed.stop()
    with open(doomed.data_folder / relative, "r+b") as table:
        table.seek(5 * 8192 + 4000)
        table.write(b"damage")
    doomed.start()
    copy = MemoryCopy()
    with pytest.raises(EngineError, match="checksum verification failure") as failure:
        take_base_backup(Secret(doomed.url()), copy, label="x")
    assert copy.discarded
    assert "damaged" in str(failure.value.hint)
    assert relative in failure.value.message


def when_bytes_flow(act: object) -> object:
    """A progress listener that acts once, on its first report."""
    done = threading.Event()

    def listen(progress: Progress) -> None:
        if progress.done_bytes and not done.is_set():
            done.set()
            act()  # type: ignore[operator]

    return listen


def test_a_server_killed_while_sending_leaves_no_copy(doomed: PostgresServer) -> None:
    copy = MemoryCopy()
    with pytest.raises(EngineError) as failure:
        take_base_backup(
            Secret(doomed.url()), copy, label="x", max_rate=8 << 20,
            on_progress=when_bytes_flow(doomed.kill),  # type: ignore[arg-type]
        )  # fmt: skip
    assert copy.discarded
    assert failure.value.may_retry


def test_a_server_that_falls_silent_is_given_up_on(doomed: PostgresServer) -> None:
    copy = MemoryCopy()
    stopped: list[int] = []

    def freeze() -> None:
        for (pid,) in doomed.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'"):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)

    try:
        with pytest.raises(UnreachableError, match="said nothing for 3 s"):
            take_base_backup(
                Secret(doomed.url()), copy, label="x", max_rate=8 << 20, idle_seconds=3,
                on_progress=when_bytes_flow(freeze),  # type: ignore[arg-type]
            )  # fmt: skip
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert stopped
    assert copy.discarded


def test_a_sink_that_fails_ends_the_backup_on_the_server(doomed: PostgresServer) -> None:
    class FullSink(MemoryCopy):
        def stream(self, name, **options):  # type: ignore[no-untyped-def, override]
            raise EngineError("no room")

    with pytest.raises(EngineError, match="no room"):
        take_base_backup(Secret(doomed.url()), FullSink(), label="x")
    # The server was told: the next backup can start at once.
    copy = MemoryCopy()
    take_base_backup(Secret(doomed.url()), copy, label="y")
    assert "base.tar" in copy.data


@pytest.fixture
def forgetful() -> Iterator[PostgresServer]:
    """A server that recycles its WAL as soon as it can."""
    settings = {"max_wal_size": "32MB", "min_wal_size": "32MB", "wal_keep_size": "0", "checkpoint_timeout": "30s"}
    with PostgresServer(require_found(lambda: find_postgres(15)), settings=settings) as server:
        server.execute("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 30) AS t FROM generate_series(1, 20000) i")
        yield server


def busy(server: PostgresServer) -> None:
    """Write 100 MB of WAL and let the server forget what it may."""
    server.execute("CREATE TABLE IF NOT EXISTS churn (t text)")
    for _ in range(3):
        server.execute("INSERT INTO churn SELECT repeat('x', 1000) FROM generate_series(1, 30000)")
        server.execute("CHECKPOINT")


def slow_copy(
    server: PostgresServer, act: object, *, into: MemoryCopy | None = None, **options: object
) -> dict[str, object]:
    copy = into or MemoryCopy()
    copy.copy_facts = take_base_backup(
        Secret(server.url()), copy, label="x", max_rate=16 << 20,
        on_progress=when_bytes_flow(act), **options,  # type: ignore[arg-type]
    )  # fmt: skip
    assert overall(check_base_copy(copy)) is Verdict.OK
    return dict(copy.facts)


def test_wal_that_the_copy_needs_is_kept_while_it_is_taken(forgetful: PostgresServer) -> None:
    facts = slow_copy(forgetful, lambda: busy(forgetful))
    assert facts["wal_hold"] == "held"
    assert wait_until(lambda: forgetful.execute("SELECT * FROM pg_replication_slots") == [], limit_seconds=120)


def test_without_a_hold_the_recycled_wal_fails_the_copy_with_the_reason(forgetful: PostgresServer) -> None:
    copy = MemoryCopy()
    with pytest.raises(EngineError) as failure:
        slow_copy(forgetful, lambda: busy(forgetful), into=copy, hold_wal_bytes=0)
    assert "wal_keep_size" in str(failure.value.hint)
    assert copy.discarded
    assert "base.tar" not in copy.data


def test_a_hold_is_let_go_when_too_much_is_written(forgetful: PostgresServer) -> None:
    with WalHold(Secret(forgetful.url()), limit_bytes=64 << 20, look_seconds=0.1) as hold:
        assert hold.state == "held"
        busy(forgetful)
        assert wait_until(lambda: hold.state.startswith("let go"), limit_seconds=120)
        assert wait_until(lambda: forgetful.execute("SELECT * FROM pg_replication_slots") == [], limit_seconds=120)


def test_a_copy_travels_through_tls(server_folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for file, data in (("crt", certificate.public_bytes(encoding)), ("key", private)):
        path = server_folder / f"server.{file}"
        path.write_bytes(data)
        path.chmod(0o600)
        if (user := ordinary_user()) is not None:
            os.chown(path, *user)
    tls = {
        "ssl": "on",
        "ssl_cert_file": str(server_folder / "server.crt"),
        "ssl_key_file": f"{server_folder}/server.key",
    }
    with PostgresServer(require_found(lambda: find_postgres(17)), settings=tls) as server:
        server.execute("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 30) AS t FROM generate_series(1, 40000) i")
        url = Secret(server.url() + "?sslmode=require")
        with connect(url) as wire:
            assert wire.pgconn.ssl_in_use
        copy = MemoryCopy()
        copy.copy_facts = take_base_backup(url, copy, label="x", idle_seconds=120)
        assert overall(check_base_copy(copy)) is Verdict.OK
