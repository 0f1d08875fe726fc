"""``recoup daemon`` on real servers: takes what is due, and lives through signals, kills and wrong plans."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.backup import run_records as records
from recoup.demo.servers import PostgresServer, RedisServer
from tests.acceptance.daemon_place import daemon, is_there, kill_pid, outcome_of, state_of, wait_gone
from tests.acceptance.workplace import Workplace, wait_for

KIB = 1 << 10


@pytest.fixture
def files_place(work: Workplace) -> Workplace:
    """A plan of one folder, copied each day."""
    (work.folder / "uploads").mkdir()
    (work.folder / "uploads" / "one.txt").write_text("one")
    work.services = {"uploads": '{engine: files, paths: [uploads], daily: "03:00"}'}
    work.write_plan()
    return work


@pytest.fixture
def slow_place(work: Workplace) -> Iterator[Workplace]:
    """A plan whose copy takes many minutes: a large file of zeros, which occupies nothing."""
    (work.folder / "uploads").mkdir()
    path = work.folder / "uploads" / "large"
    with path.open("wb") as large:
        large.truncate(200 << 30)
    work.services = {"uploads": '{engine: files, paths: [uploads], daily: "03:00"}'}
    work.write_plan()
    yield work
    path.unlink(missing_ok=True)


def _remains(place: Workplace) -> list[Path]:
    """What an interrupted copy left."""
    return [path for path in place.strays() if "artefacts" in path.parts]


def test_the_daemon_takes_what_is_due_of_real_servers_and_then_waits(
    work: Workplace, postgres17: PostgresServer, redis7: RedisServer
) -> None:
    redis7.client().set("cart", "full")
    (work.folder / "uploads").mkdir()
    work.add_postgres(postgres17, "postgres", more=", base: daily 02:00, dump: daily 02:30, fingerprint: false")
    work.add_redis(redis7)
    work.services["redis"] = work.services["redis"][:-1] + ", rdb: daily 02:15}"
    work.services["uploads"] = "{engine: files, paths: [uploads], every: 1h}"
    work.extra = "timezone: Europe/Berlin\nverify: {daily: boots}\n"
    work.write_plan()
    with daemon(work) as running:
        running.wait_for("next: ")
        assert [re.findall(rf"{one}: (begins|ok)", running.log) for one in ("postgres base", "uploads files")] == [
            ["begins", "ok"],
            ["begins", "ok"],
        ]
        record = records.read_daemon(state_of(work))
        assert record is not None
        assert (record.state, record.pid) == ("running", running.process.pid)
        other = work.recoup("daemon", expect=6)
        assert f"process {running.process.pid}" in other.err
        runs = work.json("backup", "--due", "--plan")["runs"]
        assert not [one for one in runs if one["due"]]
        assert sorted(one["kind"] for one in runs) == ["base", "dump", "files", "rdb", "verify daily"]
        running.signal(signal.SIGTERM)
        running.ends(0)
    copies = work.json("list", "-n", "0")["artefacts"]
    assert sorted((one["service"], one["kind"]) for one in copies) == [
        ("postgres", "base"),
        ("postgres", "dump"),
        ("redis", "rdb"),
        ("uploads", "files"),
    ]
    stopped = records.read_daemon(state_of(work))
    assert stopped is not None
    assert stopped.state == "stopped"
    work.assert_no_secret_on_disk()


def test_what_is_in_hand_may_end_within_the_grace(work: Workplace, postgres17: PostgresServer) -> None:
    database = postgres17.new_database("held")
    postgres17.execute("CREATE TABLE orders AS SELECT 1 AS id", database)
    work.add_postgres(postgres17, database, more=", dump: daily 02:30")
    work.write_plan()
    with postgres17.connect(database) as other:
        # The dump waits for this lock: it is in hand for as long as the test wants.
        other.execute("BEGIN")
        other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        with daemon(work, "--grace", "10m") as running:
            wait_for(work.unfinished, "a copy is begun")
            running.signal(signal.SIGTERM)
            running.wait_for("draining")
            other.execute("ROLLBACK")
            running.ends(0)
    assert outcome_of(work, "postgres", "dump") == "ok"
    assert len(work.listed()) == 1


def test_what_does_not_end_within_the_grace_is_given_up_and_leaves_nothing(slow_place: Workplace) -> None:
    with daemon(slow_place, "--grace", "500ms") as running:
        wait_for(slow_place.unfinished, "a copy is begun")
        running.signal(signal.SIGTERM)
        running.ends(130)
        assert "uploads files: given up" in running.log
    assert outcome_of(slow_place, "uploads", "files") == "interrupted"
    assert _remains(slow_place) == []


def test_a_second_signal_ends_it_at_once(slow_place: Workplace) -> None:
    with daemon(slow_place, "--grace", "10m") as running:
        wait_for(slow_place.unfinished, "a copy is begun")
        children = running.children()
        assert children
        running.signal(signal.SIGINT)
        running.wait_for("draining")
        running.signal(signal.SIGINT)
        running.ends(130)
        assert not any(is_there(pid) for pid in children)


def test_after_kill_9_no_child_survives_and_the_next_daemon_cleans_and_goes_on(slow_place: Workplace) -> None:
    with daemon(slow_place) as running:
        wait_for(slow_place.unfinished, "a copy is begun")
        children = running.children()
        running.kill_alone()
        wait_gone(children)
    (slow_place.folder / "uploads" / "large").unlink()
    (slow_place.folder / "uploads" / "one.txt").write_text("one")
    with daemon(slow_place) as running:
        wait_for(lambda: outcome_of(slow_place, "uploads", "files") == "ok", "the copy is made up for")
        running.signal(signal.SIGTERM)
        running.ends(0)
    assert _remains(slow_place) == []
    assert slow_place.unfinished() == []
    assert len(slow_place.listed()) == 1


def test_a_task_that_is_killed_is_a_failure_with_a_pause_and_the_daemon_lives(slow_place: Workplace) -> None:
    with daemon(slow_place) as running:
        wait_for(slow_place.unfinished, "a copy is begun")
        for pid in running.children():
            kill_pid(pid)
        running.wait_for("uploads files: FAILED")
        running.wait_for("(retry)")
        assert "killed by signal 9" in running.log
        record = records.read_task(state_of(slow_place), "uploads", "files")
        assert record is not None
        assert (record.outcome, record.failures) == ("failed", 1)
        running.signal(signal.SIGTERM)
        running.ends(0)


def test_a_failing_service_is_reported_and_does_not_keep_the_others_from_their_copies(files_place: Workplace) -> None:
    files_place.services = {
        "gone": '{engine: files, paths: [nowhere], daily: "02:00"}',
        **files_place.services,
    }
    files_place.write_plan()
    with daemon(files_place) as running:
        running.wait_for("uploads files: ok")
        running.wait_for("gone files: FAILED")
        running.wait_for("next: gone files")
        assert running.log.partition("next: gone files")[0].count("gone files: begins") == 1
        running.signal(signal.SIGTERM)
        running.ends(0)


def test_a_worker_that_keeps_failing_is_started_again_and_shown_while_the_others_go_on(
    files_place: Workplace, redis7: RedisServer
) -> None:
    files_place.add_redis(redis7)
    files_place.services["redis"] = files_place.services["redis"][:-1] + ", stream: continuous}"
    files_place.services["away"] = "{engine: postgres, url: 'postgresql://u@127.0.0.1:1/x', wal: continuous}"
    files_place.write_plan()

    def worker(service: str) -> records.WorkerRecord | None:
        return next((one for one in records.read_workers(state_of(files_place)) if service in one.name), None)

    with daemon(files_place) as running:
        running.wait_for("uploads files: ok")
        running.wait_for("started again in 4 s")
        # It is written down after it is logged, and is tried again soon; but each time it waits longer.
        wait_for(
            lambda: (
                (one := worker("away")) is not None
                and one.state == "waiting"
                and one.restarts >= 2
                and bool(one.error)
                and one.next_attempt is not None
            ),
            "it is shown as waiting, for how long and why",
        )
        wait_for(lambda: (one := worker("redis")) is not None and one.state == "running", "the stream runs")
        running.signal(signal.SIGTERM)
        running.ends(0)
        stopped = worker("redis")
        assert stopped is not None
        assert stopped.state == "stopped"


def test_sighup_takes_the_new_plan_and_a_wrong_one_changes_nothing(files_place: Workplace) -> None:
    with daemon(files_place) as running:
        running.wait_for("next: uploads")
        (files_place.folder / "logs").mkdir()
        plan = files_place.folder / "recoup.yaml"
        plan.write_text(plan.read_text() + "nonsense: 1\n")
        running.signal(signal.SIGHUP)
        running.wait_for("stays in force")
        running.wait_for("nonsense: unknown key")
        wait_for(
            lambda: (one := records.read_daemon(state_of(files_place))) and one.plan_fault, "the fault is recorded"
        )
        # the plan on the disk is still wrong: what runs, runs by the one in force
        records.request_run(state_of(files_place), "uploads", "files", "for the test")
        running.wait_for("uploads files: begins (asked)")
        running.wait_for("uploads files: ok", times=2)
        files_place.services["logs"] = '{engine: files, paths: [logs], daily: "04:00"}'
        files_place.write_plan()
        running.signal(signal.SIGHUP)
        running.wait_for("the new plan is in force")
        running.wait_for("logs files: ok")
        record = records.read_daemon(state_of(files_place))
        assert record is not None
        assert record.plan_fault is None
        running.signal(signal.SIGTERM)
        running.ends(0)
    assert records.read_requests(state_of(files_place)) == {}


def test_systemd_is_told_when_it_is_ready_alive_and_stopping(files_place: Workplace, tmp_path: Path) -> None:
    address = str(files_place.folder / "notify")
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)

        def listen() -> None:  # all along, as systemd does: few messages have room until somebody takes them
            while (said := systemd.recv(4 * KIB).decode()) != "the end":
                told.append(said)

        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        with daemon(files_place, environment={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000"}) as running:
            wait_for(lambda: told.count("WATCHDOG=1") >= 4 and "READY=1" in "".join(told), "it is ready and alive")
            running.signal(signal.SIGTERM)
            running.ends(0)
        wait_for(lambda: "STOPPING=1" in "".join(told), "it said that it stops")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"the end", address)
        listening.join(120)
    os.unlink(address)


@pytest.mark.parametrize(
    "arguments", [("--grace", "soon"), ("--into", "units"), ("--user", "recoup"), ("--print-timers", "--user", "a b")]
)
def test_wrong_options_are_refused(files_place: Workplace, arguments: tuple[str, ...]) -> None:
    files_place.recoup("daemon", *arguments, expect=2)
