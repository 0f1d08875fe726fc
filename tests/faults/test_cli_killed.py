"""``kill -9`` of ``recoup backup`` and ``recoup restore``, as processes, on real servers, at every stage and between.

A stage is recognised by what can be seen from outside: a file, a connection, a database. What must hold after every
kill: ``recoup list`` shows only whole copies, production is unharmed, the servers are rid of the dead run within
seconds, and the same command then succeeds and leaves nothing of its predecessors. With ``RECOUP_SOAK=1`` there are
more kills between the stages.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from recoup.demo.host import wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer, RedisServer, S3Server
from recoup.engines.postgres.base_fingerprint import compare_with_base
from recoup.engines.postgres.identity import MARKER
from recoup.engines.redis import fingerprint as redis_fingerprint
from recoup.kernel import clock
from recoup.kernel.finding import Verdict, overall
from tests.acceptance.workplace import Workplace, kill
from tests.integration import redis_copies
from tests.integration.logical import databases_of, direct
from tests.real import require_found

_SOAK = bool(os.environ.get("RECOUP_SOAK"))
_RANDOM_KILLS = 12 if _SOAK else 3
_ROWS = 40_000
#: How often it is tried to hit something in its middle: where we are slow, it may be over before we strike.
_AGAIN = 8


def _kill_when(process: subprocess.Popen[str], question: Callable[[], bool]) -> bool:
    """Kill only ``recoup`` itself (its children must notice) once it is so; False when it ended before."""
    wait_until(lambda: question() or process.poll() is not None, limit_seconds=120, every=0.002)
    ended = process.poll() is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait(120)
    kill(process)
    return not ended


def _after(seconds: float) -> Callable[[], bool]:
    until = clock.monotonic() + seconds
    return lambda: clock.monotonic() >= until


def _moments(seed: int, seconds: float) -> list[float]:
    chance = random.Random(seed)
    return [chance.uniform(0.05, 1.0) * seconds for _ in range(_RANDOM_KILLS)]


def _how_long(act: Callable[[], object]) -> float:
    begun = clock.monotonic()
    act()
    return clock.monotonic() - begun


def _any(work: Workplace, pattern: str) -> Callable[[], bool]:
    """Whether a file that was not there when this was asked first now is."""
    before = set(work.folder.parent.glob(pattern))
    return lambda: bool(set(work.folder.parent.glob(pattern)) - before)


def _stages_of_a_backup(work: Workplace) -> dict[str, Callable[[], bool]]:
    return {
        "the copy was noted": _any(work, "state/*/unfinished/*.json"),
        "bytes arrive": _any(work, "stack/backups/.incoming/*"),
        "an object is complete": _any(work, "stack/backups/artefacts/*/*/*/*.enc"),
        "an index is complete": _any(work, "stack/backups/artefacts/*/*/*/*.index.enc"),
        "the manifest is there": _any(work, "stack/backups/manifests/*.json"),
    }


def _kill_backups(work: Workplace, *arguments: str, seed: int, clean: Callable[[], bool]) -> None:
    """Kill the same backup at every stage and at random instants; nearly all must come before its end."""
    # The first one may find everything cold, and half of the instants of a slow run are behind the end of a quick one.
    seconds = min(_how_long(lambda: work.recoup("backup", *arguments)) for _ in range(2))
    stages: list[Callable[[Workplace], Callable[[], bool]]] = [
        lambda work, name=name: _stages_of_a_backup(work)[name] for name in _stages_of_a_backup(work)
    ]
    stages += [lambda _, moment=moment: _after(moment) for moment in _moments(seed, seconds)]
    left, most_late = stages, 3
    for _ in range(_AGAIN):
        late = []
        for stage in left:
            question = stage(work)
            if not _kill_when(work.start("backup", *arguments), question):
                late.append(stage)
            assert wait_until(clean, limit_seconds=120), "the server is not rid of the killed backup"
            listed = work.listed()
            assert set(listed) == {path.stem for path in (work.local / "manifests").glob("*.json")}
        left = late
        if len(left) <= most_late:
            break
    assert len(left) <= most_late


def _assert_clean(work: Workplace) -> None:
    assert work.strays() == []
    assert work.unfinished() == []


@pytest.fixture(params=[15, 17], ids=lambda major: f"postgres{major}")
def busy(request: pytest.FixtureRequest, work: Workplace) -> Iterator[tuple[Workplace, PostgresServer, str]]:
    """A database of a few megabytes, and a plan for it."""
    server: PostgresServer = request.getfixturevalue(f"postgres{request.param}")
    database = server.new_database("busy")
    server.execute(
        f"CREATE TABLE orders AS SELECT g AS id, repeat(md5(g::text), 4) AS note FROM generate_series(1, {_ROWS}) g",
        database,
    )
    work.add_postgres(server, database)
    work.write_plan()
    yield work, server, database
    for name in databases_of(server):
        if name.startswith(database):
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _nobody_copies(server: PostgresServer) -> bool:
    return server.execute(
        """SELECT (SELECT count(*) FROM pg_stat_replication) + (SELECT count(*) FROM pg_replication_slots)
                + (SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'pg_dump|recoup')"""
    ) == [(0,)]


@pytest.mark.parametrize("kind", ["base", "dump"])
def test_a_killed_postgres_backup_leaves_nothing_that_the_next_one_does_not_remove(
    busy: tuple[Workplace, PostgresServer, str], kind: str
) -> None:
    work, server, database = busy
    arguments = ["postgres", "--kind", kind]
    _kill_backups(work, *arguments, seed=len(kind), clean=lambda: _nobody_copies(server))
    artefact = work.backup(*arguments)
    assert artefact in work.listed()
    _assert_clean(work)
    assert {one["verdict"] for one in work.json("verify", "--all")["artefacts"]} == {"ok"}
    assert server.execute("SELECT count(*) FROM orders", database) == [(_ROWS,)]


def test_a_killed_redis_backup_leaves_nothing_that_the_next_one_does_not_remove(
    redis8: RedisServer, work: Workplace
) -> None:
    redis_copies.fill(redis8)
    client = redis8.client()
    try:
        work.add_redis(redis8)
        work.write_plan()
        _kill_backups(work, seed=8, clean=lambda: client.info("replication")["connected_slaves"] == 0)
        work.backup()
        _assert_clean(work)
        assert {one["verdict"] for one in work.json("verify", "--all")["artefacts"]} == {"ok"}
    finally:
        client.close()


def test_a_base_backup_killed_while_it_is_put_into_a_folder_never_looks_like_a_database(
    busy: tuple[Workplace, PostgresServer, str],
) -> None:
    work, server, _ = busy
    artefact = work.backup()
    folder = work.folder.parent / "restored"
    arguments = ("restore", artefact, "--destination", str(folder))
    control = folder / "global" / "pg_control"
    seconds = _how_long(lambda: work.recoup("restore", artefact, "--destination", str(folder) + "-first"))
    stages: dict[str, Callable[[], bool]] = {
        "the folder is there": folder.exists,
        "a file is there": lambda: (folder / "PG_VERSION").exists(),
        "the last file has its other name": lambda: control.with_name("pg_control.unfinished").exists(),
    }
    for question in itertools.chain(stages.values(), map(_after, _moments(4, seconds))):
        _kill_when(work.start(*arguments), question)
        if control.exists() and not (folder / MARKER).exists():
            shutil.rmtree(folder)  # it was faster than the kill, and whole: now it would be somebody's database
        elif not control.exists() and folder.exists():
            # It cannot be taken for a database: PostgreSQL itself does not.
            argv = [server.program("pg_controldata"), str(folder)]
            assert subprocess.run(argv, capture_output=True, check=False).returncode != 0
    work.recoup(*arguments)
    fingerprint = work.json("show", artefact)["fingerprint"]
    with PostgresServer(require_found(lambda: find_postgres(server.major)), data_folder=folder) as restored:
        findings = compare_with_base(fingerprint, direct(restored))
    assert overall(findings) is Verdict.OK, findings
    # Now it is somebody's database: nothing is put over it.
    refused = work.recoup(*arguments, expect=5)
    assert str(folder) in refused.err
    assert list(folder.parent.glob("*unfinished*")) == []


def _stages_of_a_swap(server: PostgresServer, database: str) -> dict[str, Callable[[], bool]]:
    def named(pattern: str) -> Callable[[], bool]:
        query = f"SELECT count(*) FROM pg_database WHERE datname ~ '^{database}{pattern}'"
        return lambda: server.execute(query) != [(0,)]

    marked = "SELECT count(*) FROM pg_db_role_setting WHERE setconfig::text ~ 'recoup.restore=.* {}'"
    return {
        "the fresh database is there": named("_recoup_"),
        "it fills": lambda: (
            server.execute(
                f"SELECT count(*) FROM pg_stat_activity WHERE datname ~ '^{database}_recoup_' AND query ~ 'COPY'"
            )
            != [(0,)]
        ),
        "it is verified": lambda: server.execute(marked.format("verified")) != [(0,)],
        "the old one is closed": lambda: (
            server.execute(f"SELECT datallowconn FROM pg_database WHERE datname = '{database}'") == [(False,)]
        ),
        "they are swapped": named("_replaced_"),
    }


@pytest.mark.parametrize("moment", range(17 if _SOAK else 7))
def test_a_dump_killed_while_it_replaces_a_database_harms_nothing(
    busy: tuple[Workplace, PostgresServer, str], moment: int
) -> None:
    work, server, database = busy
    artefact = work.backup("postgres", "--kind", "dump")
    server.execute("INSERT INTO orders VALUES (-1, 'written after the copy')", database)
    stages = list(_stages_of_a_swap(server, database).values())
    question = stages[moment] if moment < len(stages) else _after(random.Random(moment).uniform(0.4, 1.5))
    arguments = ("restore", artefact, "--force")
    _kill_when(work.start(*arguments), question)
    assert wait_until(lambda: _nobody_restores(server), limit_seconds=120), "what the dead run asked for goes on"
    names = databases_of(server)
    assert database in names, "there is no instant without the production database"
    kept = [name for name in names if name.startswith(f"{database}_replaced_")]
    if not kept:  # the old one, closed at most
        server.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
        assert server.execute("SELECT count(*) FROM orders", database) == [(_ROWS + 1,)]
    was_done = bool(kept) and work.unfinished() == []  # then the same command does it all once more
    ended = work.recoup(*arguments)
    assert "restored postgres dump" in ended.out
    assert server.execute("SELECT count(*) FROM orders", database) == [(_ROWS,)]
    kept = [name for name in databases_of(server) if name.startswith(f"{database}_replaced_")]
    assert len(kept) == (2 if was_done else 1)
    assert [server.execute("SELECT count(*) FROM orders WHERE id = -1", name) for name in kept].count([(1,)]) == 1
    assert not [name for name in databases_of(server) if "_recoup_" in name]
    assert work.unfinished() == []


def _nobody_restores(server: PostgresServer) -> bool:
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'pg_restore|recoup'"
    return server.execute(left) == [(0,)]


def _settings(client: redis.Redis) -> dict[str, str]:
    names = ("masteruser", "masterauth", "repl-diskless-load", "appendonly", "replicaof")
    return {name: client.config_get(name).get(name, "") for name in names}


def test_a_restore_into_a_running_redis_killed_at_many_instants_ends_with_the_copy_and_its_own_settings(
    redis7: RedisServer, work: Workplace
) -> None:
    redis_copies.fill(redis7)
    client = redis7.client()
    try:
        client.config_set("appendonly", "yes")
        work.add_redis(redis7)
        work.write_plan()
        artefact = work.backup()
        fingerprint = work.json("show", artefact)["fingerprint"]
        settings = _settings(client)
        arguments = ("restore", artefact, "--force")
        client.set("written", "after the copy")
        seconds = _how_long(lambda: work.recoup(*arguments))

        def replica() -> bool:
            return bool(client.info("replication")["role"] == "slave")

        def synced() -> bool:
            return bool(client.info("replication").get("master_link_status") == "up")

        questions = [replica, synced, *map(_after, _moments(7, seconds))]
        for number, question in enumerate(questions):
            if client.info("replication")["role"] == "master":
                client.set("written", f"after the copy {number}")
            _kill_when(work.start(*arguments), question)
            # The old data or the new, never half of either.
            present = client.exists("written", "binary", "stream:big")
            assert present in (2, 3), present
            assert wait_until(lambda: client.info("replication")["connected_slaves"] == 0, limit_seconds=120)
        work.recoup(*arguments)
        assert client.info("replication")["role"] == "master"
        assert _settings(client) == settings
        now = redis_copies.fingerprint_now(redis7, fingerprint)
        assert overall(redis_fingerprint.compare(fingerprint, now)) is Verdict.OK
        _assert_clean(work)
        assert {one["verdict"] for one in work.json("verify", "--all")["artefacts"]} == {"ok"}
    finally:
        client.config_set("appendonly", "no")
        client.close()


def test_an_interrupted_backup_says_so_and_cleans_up_at_once(busy: tuple[Workplace, PostgresServer, str]) -> None:
    work, server, _ = busy
    work.recoup("backup")
    for _ in range(_AGAIN):
        question = _any(work, "stack/backups/.incoming/*")
        process = work.start("backup")
        wait_until(lambda: question() or process.poll() is not None, limit_seconds=120, every=0.002)  # noqa: B023
        process.send_signal(signal.SIGTERM)
        ended = work.finish(process, expect=None)
        if ended.code != 0:
            break
    assert ended.code == 130, ended
    assert "The same command resumes." in ended.err
    assert wait_until(lambda: _nobody_copies(server), limit_seconds=120)
    assert work.strays() == []
    work.recoup("backup")
    _assert_clean(work)


def test_files_killed_while_they_are_put_into_a_folder_are_finished_by_the_same_command(work: Workplace) -> None:
    source = work.folder / "data"
    source.mkdir()
    chance = random.Random(11)
    for number in range(400):
        (source / f"file {number}").write_bytes(chance.randbytes(chance.randrange(20_000)))
    work.services["files"] = "{engine: files, paths: [data]}"
    work.write_plan()
    artefact = work.backup()
    folder = work.folder.parent / "restored"
    arguments = ("restore", artefact, "--destination", str(folder))
    seconds = _how_long(lambda: work.recoup("restore", artefact, "--destination", f"{folder}-first"))
    for moment in _moments(12, seconds):
        _kill_when(work.start(*arguments), _after(moment))
    work.recoup(*arguments)
    found = {path.name: path.read_bytes() for path in (folder / "data").iterdir()}
    assert found == {path.name: path.read_bytes() for path in source.iterdir()}
    assert [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "data"] == []


def test_a_backup_killed_while_it_uploads_leaves_no_parts_in_the_bucket(work: Workplace, s3: S3Server) -> None:
    source = work.folder / "data"
    source.mkdir()
    (source / "noise").write_bytes(random.Random(3).randbytes(40 << 20))
    work.services["files"] = "{engine: files, paths: [data]}"
    bucket = work.add_bucket(s3)
    work.write_plan()
    with contextlib.closing(s3.client()) as client:

        def uploads() -> int:
            return len(client.list_multipart_uploads(Bucket=bucket).get("Uploads", []))

        assert any(_kill_when(work.start("backup"), lambda: uploads() > 0) for _ in range(_AGAIN))
        whole = set(work.listed())  # those that were over before the kill
        artefact = work.backup()
        assert uploads() == 0
        keys = {one["Key"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]}
    folders = {key.split("/")[4] for key in keys if key.startswith("production/artefacts/")}
    assert folders == {artefact, *whole}
    assert work.listed() == {one: ["local", "offsite"] for one in (artefact, *whole)}
    _assert_clean(work)


def test_the_folder_of_a_killed_backup_is_known(work: Workplace) -> None:
    """Guards the stages above: without these names the kills would come too late or never."""
    (work.folder / "data").mkdir()
    work.services["files"] = "{engine: files, paths: [data]}"
    work.write_plan()
    work.recoup("backup")
    (state,) = work.state.iterdir()
    assert (state / "unfinished").is_dir()
    assert (work.local / ".incoming").is_dir()
    assert Path(work.local / "manifests").is_dir()
