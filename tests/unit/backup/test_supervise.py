"""Workers are started, watched and started again, and nobody runs twice at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from recoup.backup import supervise
from recoup.backup.run_records import WorkerRecord, read_workers
from recoup.backup.supervise import Supervisor, silence_excepthook
from recoup.demo.host import wait_until
from recoup.kernel.errors import EngineError
from recoup.kernel.log import Level


class _Fake:
    """A worker that does what it is told; it notes when it begins and ends."""

    def __init__(self, name: str, problem: BaseException | None = None, *, patient: bool = True) -> None:
        self.name = name
        self.problem = problem
        self.patient = patient
        self.begun = 0
        self.now = 0
        self.most = 0
        self.let_go = threading.Event()

    def run(self, stop: threading.Event) -> None:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.problem is not None:
                raise self.problem
            stop.wait(120)
            if not self.patient:
                self.let_go.wait(120)
        finally:
            self.now -= 1


class _Events:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, _level: Level, event: str, /) -> None:
        self.lines.append(event)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> _Events:
    monkeypatch.setattr(supervise, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    events = _Events()
    silence_excepthook(events)
    return events


def _until(supervisor: Supervisor, question: object) -> None:
    def ask() -> bool:
        supervisor.tick()
        assert callable(question)
        return bool(question())

    assert wait_until(ask, limit_seconds=120, every=0.005)


def _record(folder: Path, name: str) -> WorkerRecord:
    return next(one for one in read_workers(folder) if one.name == name)


def test_a_worker_that_keeps_failing_is_started_again_and_recorded_while_another_goes_on(
    tmp_path: Path, log: _Events
) -> None:
    supervisor = Supervisor(tmp_path, log)
    failing, well = _Fake("wal a", EngineError("the server is gone")), _Fake("wal b")
    supervisor.employ([failing, well])
    _until(supervisor, lambda: failing.begun >= 4)
    assert (well.begun, failing.most) == (1, 1)
    _until(supervisor, lambda: _record(tmp_path, "wal a").state == "waiting")
    record = _record(tmp_path, "wal a")
    assert record.error == "the server is gone"
    assert record.restarts >= 3
    assert record.next_attempt is not None
    assert _record(tmp_path, "wal b").state == "running"
    pauses = [float(line.rpartition(" in ")[2].removesuffix(" s")) for line in log.lines if "started again" in line]
    assert pauses[:3] == [0.02, 0.04, 0.08]
    supervisor.retire()
    _until(supervisor, lambda: not supervisor.busy)
    assert _record(tmp_path, "wal b").state == "stopped"


def test_pauses_grow_to_a_minute_and_no_further() -> None:
    assert [supervise.pause_after(number) for number in (1, 2, 3, 7, 100)] == [1.0, 2.0, 4.0, 60.0, 60.0]


def test_a_bug_in_a_worker_is_named_without_its_text_and_ends_nothing_else(tmp_path: Path, log: _Events) -> None:
    supervisor = Supervisor(tmp_path, log)
    buggy = _Fake("wal a", KeyError("a password"))
    supervisor.employ([buggy])
    _until(supervisor, lambda: buggy.begun >= 2)
    assert any("this is a bug in Recoup: KeyError" in line for line in log.lines)
    assert "a password" not in "".join(log.lines)
    supervisor.retire()


def test_at_a_reload_the_old_worker_drains_before_the_new_one_begins(tmp_path: Path, log: _Events) -> None:
    supervisor = Supervisor(tmp_path, log)
    old, gone, new = _Fake("wal a", patient=False), _Fake("wal b"), _Fake("wal a")
    supervisor.employ([old, gone])
    _until(supervisor, lambda: old.begun and gone.begun)
    supervisor.employ([new])
    _until(supervisor, lambda: gone.now == 0)
    assert new.begun == 0
    old.let_go.set()
    _until(supervisor, lambda: new.begun == 1)
    assert old.now == 0
    supervisor.tick()
    assert supervisor.busy == ("wal a",)
    supervisor.retire()
    _until(supervisor, lambda: not supervisor.busy)


def test_a_worker_that_does_not_drain_holds_up_nobody(tmp_path: Path, log: _Events) -> None:
    supervisor = Supervisor(tmp_path, log)
    stubborn = _Fake("wal a", patient=False)
    supervisor.employ([stubborn])
    _until(supervisor, lambda: stubborn.begun)
    supervisor.retire()
    supervisor.tick()
    assert supervisor.busy == ("wal a",)
    stubborn.let_go.set()
    _until(supervisor, lambda: not supervisor.busy)
