"""Reaching real Redis servers: what goes wrong, and what the user is told."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from recoup.demo.host import wait_until
from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.engines.redis.check_server import check_server
from recoup.engines.redis.connection import connect
from recoup.engines.redis.fingerprint import compare
from recoup.engines.redis.snapshot import take_rdb
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.secret import Secret
from tests.integration.redis_copies import MemoryCopy, fill, fingerprint_now, ignore, take
from tests.real import require, require_found

pytestmark = pytest.mark.redis

_PASSWORD = "s3cret:/@ pass"


def _failure(url: str) -> EngineError:
    with pytest.raises(EngineError) as caught:
        take_rdb(Secret(url), MemoryCopy(), on_progress=ignore)
    shown = f"{caught.value} {caught.value.hint} {caught.value!r}"
    assert _PASSWORD not in shown
    assert quote(_PASSWORD, safe="") not in shown
    return caught.value


def test_a_wrong_password_is_refused_with_a_hint(any_redis: RedisServer) -> None:
    failure = _failure(f"redis://:{quote(_PASSWORD, safe='')}@127.0.0.1:{any_redis.port}/")
    assert failure.hint is not None
    assert "user and password" in failure.hint


def test_a_missing_password_says_where_it_belongs(any_redis: RedisServer) -> None:
    failure = _failure(f"redis://127.0.0.1:{any_redis.port}/")
    assert failure.hint is not None
    assert "Put the password into the Redis URL" in failure.hint


def test_a_password_that_no_one_asked_for_is_refused() -> None:
    with RedisServer(require_found(lambda: find_redis(7)), password="") as server:
        failure = _failure(f"redis://:{quote(_PASSWORD, safe='')}@127.0.0.1:{server.port}/")
    assert "no password" in (failure.hint or "")


def test_a_port_where_nothing_listens_is_said(free_port: int) -> None:
    failure = _failure(f"redis://:{quote(_PASSWORD, safe='')}@127.0.0.1:{free_port}/")
    assert f"cannot reach redis://127.0.0.1:{free_port}" in failure.message


def test_a_name_that_does_not_exist_is_said() -> None:
    assert "cannot reach redis://redis.invalid:6379" in _failure("redis://redis.invalid/").message


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"x" * 100_000, b"$99999999999\r\n"])
def test_what_is_not_redis_is_recognised(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as peer, contextlib.suppress(OSError):
                peer.recv(1000)
                peer.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        failure = _failure(f"redis://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join(120)
    assert "Redis protocol" in failure.message or "closed the connection" in failure.message
    assert failure.hint is not None or "endless" in failure.message


def test_a_user_without_the_right_to_copy_is_told_which_to_give(any_redis: RedisServer) -> None:
    with contextlib.closing(any_redis.client()) as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", f">{_PASSWORD}", "+ping", "+info", "+time", "~*")
        url = f"redis://limited:{quote(_PASSWORD, safe='')}@127.0.0.1:{any_redis.port}/"
        failure = _failure(url)
        assert "+psync" in (failure.hint or "")
        assert overall(check_server(url)) is not Verdict.OK
        client.execute_command("ACL", "SETUSER", "limited", "+psync", "+replconf", "+config|get")
        client.set("key", "value")
        client.config_set("repl-diskless-sync-delay", 0)
        copy = MemoryCopy()
        copy.taken = take_rdb(url, copy, on_progress=ignore)
        assert copy.facts["keys"] == {"0": 1}
        client.execute_command("ACL", "DELUSER", "limited")


def test_a_healthy_server_passes_every_check(any_redis: RedisServer) -> None:
    findings = check_server(any_redis.url())
    assert overall(findings) is Verdict.OK, findings
    assert {finding.check for finding in findings} >= {
        "the server answers",
        "the version is one that is tested",
        "the user may copy the data (PSYNC, REPLCONF)",
        "the server can save its data",
    }


def test_a_cluster_is_unknown_to_the_check_and_refused_by_the_backup() -> None:
    with RedisServer(require_found(lambda: find_redis(7)), settings={"cluster-enabled": "yes"}) as server:
        (role,) = [f for f in check_server(server.url()) if f.check == "the data set is whole on this server"]
        assert role.verdict is Verdict.UNKNOWN
        with pytest.raises(RefusedError, match="Redis Cluster"):
            take(server)


def test_a_server_without_checksums_gives_unknown_and_never_ok() -> None:
    from recoup.engines.redis.check_copy import check_rdb_copy

    with RedisServer(require_found(lambda: find_redis(7)), settings={"rdbchecksum": "no"}) as server:
        assert overall(check_server(server.url())) is Verdict.UNKNOWN
        copy = take(server)
    assert copy.facts["checksum"] is False
    assert overall(check_rdb_copy(copy)) is Verdict.UNKNOWN


def test_a_server_killed_in_the_middle_of_the_transfer_fails_the_copy() -> None:
    with RedisServer(require_found(lambda: find_redis(7))) as server:
        with contextlib.closing(server.client()) as client:
            client.config_set("repl-diskless-sync-delay", 0)
            for i in range(64):
                client.set(f"big:{i}", os.urandom(1 << 20))
        copy, killed = MemoryCopy(), threading.Event()

        def kill(progress: object) -> None:
            if not killed.is_set():
                killed.set()
                os.killpg(server.pid or 0, signal.SIGKILL)

        with pytest.raises(EngineError, match="transfer of the RDB was cut"):
            take_rdb(server.url(), copy, on_progress=kill)
        assert copy.discarded
        assert copy.data == b""


def test_a_server_that_falls_silent_is_given_up_after_the_idle_limit() -> None:
    with RedisServer(require_found(lambda: find_redis(7))) as server:
        with contextlib.closing(server.client()) as client:
            client.config_set("repl-diskless-sync-delay", 0)
            for i in range(64):
                client.set(f"big:{i}", os.urandom(1 << 20))
        family, stopped = server.pid or 0, threading.Event()

        def freeze(progress: object) -> None:
            if not stopped.is_set():
                stopped.set()
                os.killpg(family, signal.SIGSTOP)  # with the fork that sends

        try:
            with pytest.raises(EngineError, match="sent nothing for 1 s"):
                take_rdb(server.url(), MemoryCopy(), on_progress=freeze, idle_seconds=1)
        finally:
            os.killpg(family, signal.SIGCONT)  # not before it was given up


def test_a_server_that_never_begins_to_send_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recoup.engines.redis.transfer.BEGIN_SECONDS", 2.0)
    with RedisServer(require_found(lambda: find_redis(7))) as server:
        with contextlib.closing(server.client()) as client:
            client.config_set("repl-diskless-sync-delay", 3600)  # an empty line every second meanwhile
        with pytest.raises(EngineError, match="has not begun to send within 2 s"):
            take_rdb(server.url(), MemoryCopy(), on_progress=ignore)


def _stopped_bgsave(server: RedisServer) -> int:
    """Begin a BGSAVE, and stop it in the middle; its process. Until it goes on, it is under way."""
    client = server.client()
    for _ in range(20):  # one that had ended before it could be stopped proves nothing
        before = _children(server)
        client.bgsave()
        for process in _children(server) - before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
                if client.info("persistence")["rdb_bgsave_in_progress"] == 1:
                    client.close()
                    return process
        assert wait_until(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0, limit_seconds=120)
    raise AssertionError("no BGSAVE could be stopped")


def _children(server: RedisServer) -> set[int]:
    return {int(one) for one in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()}


def test_a_running_bgsave_is_awaited_and_not_disturbed(redis7: RedisServer) -> None:
    with contextlib.closing(redis7.client()) as client, ThreadPoolExecutor(1) as pool:
        client.mset({f"key:{i}": "x" * 100 for i in range(2000)})
        client.config_set("rdb-key-save-delay", 500)  # microseconds a key: the BGSAVE takes a second
        saving = _stopped_bgsave(redis7)
        client.config_set("rdb-key-save-delay", 0)
        saves = client.info("persistence")["rdb_last_save_time"]
        try:
            taking = pool.submit(take, redis7)

            def waits() -> bool:
                return client.info("replication").get("slave0", {}).get("state") == "wait_bgsave"

            assert wait_until(lambda: waits() or taking.done(), limit_seconds=120)
            assert not taking.done(), "it did not wait"
        finally:
            os.kill(saving, signal.SIGCONT)
        copy = taking.result(120)
        persistence = client.info("persistence")
        assert persistence["rdb_last_bgsave_status"] == "ok"
        assert persistence["rdb_last_save_time"] >= saves
    assert copy.facts["keys"] == {"0": 2000}


def test_a_unix_socket_works(server_folder: Path) -> None:
    path = server_folder / "redis.sock"
    with RedisServer(require_found(lambda: find_redis(7)), settings={"unixsocket": str(path)}) as server:
        with connect(f"unix://:{quote(server.password, safe='')}@{path}?db=2") as connection:
            assert connection.command("SET", "key", "value") == "OK"
        assert take(server).facts["keys"] == {"2": 1}


@pytest.fixture
def certificates(server_folder: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that signs itself."""
    openssl = require("openssl")
    subprocess.run(
        f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -addext "
        "subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem".split(),
        cwd=server_folder,
        check=True,
        capture_output=True,
    )
    for name in ("key.pem", "certificate.pem"):
        shutil.chown(server_folder / name, server_folder.stat().st_uid, server_folder.stat().st_gid)
    return server_folder


def test_tls_works_with_its_authority_and_is_refused_without(certificates: Path, free_port: int) -> None:
    settings = {
        "tls-port": str(free_port),
        "tls-cert-file": str(certificates / "certificate.pem"),
        "tls-key-file": str(certificates / "key.pem"),
        "tls-ca-cert-file": str(certificates / "certificate.pem"),
        "tls-auth-clients": "no",
    }
    with RedisServer(require_found(lambda: find_redis(7)), settings=settings) as server:
        fill(server)
        reference = take(server)
        assert reference.fingerprint is not None
        url = f"rediss://:{quote(server.password, safe='')}@127.0.0.1:{free_port}/0"
        copy = MemoryCopy()
        trusted = f"{url}?ssl_ca_certs={certificates / 'certificate.pem'}"
        copy.taken = take_rdb(trusted, copy, on_progress=ignore)
        assert copy.facts["keys"] == reference.facts["keys"]
        assert overall(compare(reference.fingerprint, fingerprint_now(server, reference.fingerprint))) is Verdict.OK
        assert "no TLS with" in _failure(url).message
        assert "TLS" in (_failure(f"redis://127.0.0.1:{free_port}/").hint or "")
        take_rdb(f"{url}?ssl_cert_reqs=none", MemoryCopy(), on_progress=ignore)
