import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.demo.janitor import start_time
from recoup.demo.programs import Programs, find_postgres, find_redis, find_weed
from recoup.demo.servers import PostgresServer, RedisServer, S3Server
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, open_child, run
from tests.real import require_found, require_root


def test_every_postgres_runs_with_checksums_and_lets_replication_in(any_postgres: PostgresServer) -> None:
    assert any_postgres.execute("SHOW data_checksums") == [("on",)]
    assert any_postgres.execute("SHOW wal_level") == [("replica",)]
    with any_postgres.connect(replication="database") as connection:
        row = connection.execute("IDENTIFY_SYSTEM").fetchone()
    assert row is not None
    assert int(row[0]) > 0
    assert any_postgres.execute("SHOW server_version_num")[0][0].startswith(str(any_postgres.major))


def test_a_stopped_postgres_comes_back_with_its_data_at_the_same_address(postgres17: PostgresServer) -> None:
    name, url = postgres17.new_database(), postgres17.url()
    postgres17.kill()
    assert postgres17.pid is None
    postgres17.start()
    assert postgres17.url() == url
    assert postgres17.execute("SELECT current_database()", name) == [(name,)]


def test_every_redis_keeps_to_its_password_and_starts_empty(any_redis: RedisServer) -> None:
    client = any_redis.client()
    try:
        assert client.dbsize() == 0
        assert client.set("key", "value")
    finally:
        client.close()


def test_the_s3_server_locks_objects_and_knows_its_buckets_after_a_restart(s3: S3Server) -> None:
    bucket, client = s3.new_bucket(lock=True), s3.client()
    try:
        client.put_object(Bucket=bucket, Key="a", Body=b"1")
        s3.stop()
        s3.start()
        assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"1"
        assert client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"] == {
            "ObjectLockEnabled": "Enabled"
        }
    finally:
        client.close()


def test_servers_run_from_a_folder_that_is_closed_to_their_user() -> None:
    require_root("only then do servers run as another user")
    found = require_found(lambda: find_postgres(18))
    assert found.package is not None
    weed = require_found(find_weed)
    private = Path(tempfile.mkdtemp(prefix="recoup-private-"))  # 0700 and root's, as /root is
    try:
        for part in (found.package, found.package.with_name(found.package.name + ".libs")):
            shutil.copytree(part, private / part.name, symlinks=True)
        shutil.copy2(weed.path, private / "weed")
        package = private / found.package.name
        inside = Programs(path=package / found.path.relative_to(found.package), package=package)
        with PostgresServer(inside) as postgres, S3Server(Programs(path=private / "weed")) as s3:
            assert private not in postgres.bin.parents
            assert postgres.execute("SELECT 1") == [(1,)]
            assert s3.new_bucket()
            dump = run(Command(argv=[postgres.program("pg_dump"), postgres.url()], user=postgres.owner))
            assert b"PostgreSQL database dump" in dump.stdout
    finally:
        shutil.rmtree(private)


_STARTS_ALL = """
import sys, threading
from recoup.demo.programs import find_postgres, find_redis, find_weed
from recoup.demo.servers import PostgresServer, RedisServer, S3Server
with PostgresServer(find_postgres(17)) as a, RedisServer(find_redis(8)) as b, S3Server(find_weed()) as c:
    print(a.pid, a.root, b.pid, b.root, c.pid, c.root, *c.ports, flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_nothing_stays_behind_when_the_process_that_started_servers_is(number: signal.Signals) -> None:
    require_found(lambda: (find_postgres(17), find_redis(8), find_weed()))
    with open_child(Command(argv=[sys.executable, "-c", _STARTS_ALL])) as child:
        words = child.stdout.readline().decode().split()
        assert words, "the servers did not start"
        processes, folders = [int(word) for word in words[0:6:2]], [Path(word) for word in words[1:6:2]]
        sockets = [f"seaweedfs-*-{int(port) + more}.sock" for port in words[6:] for more in (0, 10_000)]
        assert all(start_time(process) for process in processes)
        assert all(folder.is_dir() for folder in folders)
        os.kill(child.pid, number)
        child.wait(120)

    def clean() -> bool:
        return (
            not any(start_time(process) for process in processes)
            and not any(folder.exists() for folder in folders)
            and not any(list(Path("/tmp").glob(name)) for name in sockets)
        )

    assert wait_until(clean, limit_seconds=120)


def test_a_process_that_is_over_leaves_no_file_open() -> None:
    script = "from recoup.demo.host import temporary_folder\nwith temporary_folder(): pass"
    done = run(Command(argv=[sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", script]))
    assert done.stderr == ""


def test_a_server_that_cannot_start_says_why(postgres17: PostgresServer) -> None:
    broken = PostgresServer(Programs(path=postgres17.bin), settings={"max_connections": "many"})
    with pytest.raises(EngineError, match=r"its log ends.*max_connections"), broken:
        pass
    with pytest.raises(EngineError, match="is not open"):
        _ = broken.root


def test_a_copied_data_folder_is_started_as_it_is(postgres16: PostgresServer, server_folder: Path) -> None:
    postgres16.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    postgres16.stop()
    try:
        shutil.copytree(postgres16.data_folder, server_folder / "copy")
    finally:
        postgres16.start()
    with PostgresServer(Programs(path=postgres16.bin), data_folder=server_folder / "copy") as copy:
        assert copy.major == 16
        assert copy.execute("TABLE kept") == [(42,)]
    assert (server_folder / "copy" / "PG_VERSION").is_file()
