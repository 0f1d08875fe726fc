"""How everything stands, as users ask it: on the screen, as JSON, as a page, for Prometheus, from another machine."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from recoup.assembly.system import System
from recoup.assembly.watch import survey
from recoup.assembly.watch.status import status
from recoup.demo.servers import RedisServer
from recoup.kernel import clock
from recoup.kernel.finding import Verdict
from tests.acceptance.workplace import KEY, OTHER_KEY, Workplace, new_workplace, wait_for
from tests.receiver import Receiver, receiver

_TOKEN = "5e1f2a3b-4c5d-4e6f-8a9b-0c1d2e3f4a5b"


@pytest.fixture
def work() -> Iterator[Workplace]:
    """A workplace that protects a folder of files twice."""
    with new_workplace() as place:
        (place.folder / "uploads").mkdir()
        (place.folder / "uploads" / "picture").write_bytes(b"a picture")
        place.services["uploads"] = "{engine: files, paths: [uploads], every: 1h, tier: critical}"
        place.repositories["second"] = "{path: second}"
        place.extra = "tiers: {critical: {rto: 4h, rpo: 2h}}\n"
        place.write_plan()
        yield place


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as kept:
        yield kept


def _status(work: Workplace, expect: int, *more: str) -> dict[str, Any]:
    return work.json("status", *more, expect=expect)


def _service(said: dict[str, Any]) -> dict[str, Any]:
    (service,) = said["services"]
    assert isinstance(service, dict)
    return service


def _whats(said: dict[str, Any]) -> list[str]:
    return [one["what"] for one in said["alarms"]]


def test_before_the_first_copy_the_status_is_bad_and_afterwards_it_is_good_and_proven(work: Workplace) -> None:
    before = _status(work, 3)
    assert "there is no copy of uploads to go back to" in _whats(before)
    begun = clock.monotonic()
    artefact = work.backup("uploads")
    said = _status(work, 0)
    assert said["schema"] == "recoup.status/1"
    assert said["alarms"] == []
    service = _service(said)
    assert service["last_good"]["id"] == service["last_proven"]["id"] == artefact
    assert service["last_proven"]["grade"] == "intact"
    assert (service["rpo_seconds"], service["rto_seconds"]) == (7200, 14400)
    assert 0 <= service["rpo_now_seconds"] <= clock.monotonic() - begun
    assert [one["used_bytes"] > 0 for one in said["repositories"]] == [True, True]
    shown = work.recoup("status").out
    assert re.search(r"ok +uploads +4 h +2 h ", shown)
    assert "(intact)" in shown


def test_a_repository_that_is_away_makes_it_unknown_and_everything_else_is_still_shown(work: Workplace) -> None:
    work.repositories["far"] = "{url: 's3://nowhere/shop', endpoint: 'http://127.0.0.1:1', region: x}"
    work.write_plan()
    work.recoup("backup", "-q", expect=1)
    work.environment |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    said = _status(work, 3)  # the run did not reach all repositories, and that is known
    assert {one["key"] for one in said["alarms"]} == {"run:uploads:files", "repository:far"}
    for record in work.state.rglob("task:*.json"):
        record.unlink()
    said = _status(work, 4)
    assert said["verdict"] == "unknown"
    assert [(one["key"], one["verdict"]) for one in said["alarms"]] == [("repository:far", "unknown")]
    assert _service(said)["verdict"] == "ok"
    assert [one["error"] is None for one in said["repositories"]] == [True, True, False]


def test_a_repository_that_never_answers_holds_the_status_up_for_a_bounded_time(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.backup("uploads")
    monkeypatch.setenv("RECOUP_STATE", str(work.state))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setattr(survey, "_LONGEST_SECONDS", 12.0)  # the others must not need it, also on a busy machine
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        work.repositories["far"] = f"{{url: 's3://nowhere/shop', endpoint: '{endpoint}', region: x}}"
        found = status(System.from_file(work.write_plan()), clock.now())
    assert found.verdict is Verdict.UNKNOWN
    assert [one.error for one in found.survey.facts.repositories] == [None, None, "it did not answer within 12 s"]
    assert found.survey.facts.services[0].standing.verdict is Verdict.OK


def test_a_disk_that_was_unmounted_is_known_to_be_gone(work: Workplace) -> None:
    work.backup("uploads")
    work.local.rename(work.folder / "elsewhere")
    said = _status(work, 3)
    assert any(what.startswith("the repository local is not there: ") for what in _whats(said))
    assert _service(said)["last_good"]["repositories"] == ["second"]


def test_an_old_copy_breaks_the_objective_and_one_that_failed_its_verification_is_none(work: Workplace) -> None:
    artefact = work.backup("uploads")
    for repository in (work.local, work.folder / "second"):
        body = work.objects(artefact, repository)[0]
        data = bytearray(body.read_bytes())
        data[len(data) // 2] ^= 1
        body.chmod(0o600)
        body.write_bytes(data)
    work.recoup("verify", expect=3)
    said = _status(work, 3)
    assert _service(said)["last_good"] is None
    assert any("failed its verification" in what for what in _whats(said))
    work.services["uploads"] = "{engine: files, paths: [uploads], every: 1h, rpo: 1s}"
    work.write_plan()
    work.backup("uploads")
    wait_for(lambda: work.json("status", expect=None)["verdict"] == "failed", "the copy is older than a second")
    assert any("the RPO of uploads is broken" in what for what in _whats(_status(work, 3)))


def test_a_missing_key_is_an_alarm_and_no_crash(work: Workplace) -> None:
    work.backup("uploads")
    work.key_file.unlink()
    said = _status(work, 3)
    assert any("cannot read the key file" in what for what in _whats(said))
    assert _service(said)["verdict"] == "unknown"
    work.key_file.write_text(OTHER_KEY + "\n")
    assert "unknown" in {one["verdict"] for one in _status(work, 4)["alarms"]}


def test_a_run_whose_process_was_killed_is_an_alarm(work: Workplace) -> None:
    work.backup("uploads")
    (record,) = work.state.rglob("task:*.json")
    said = json.loads(record.read_text())
    record.write_text(json.dumps({**said, "outcome": "running", "pid": 2**22 + 1, "ended": None}))
    assert any("its process ended without a word" in what for what in _whats(_status(work, 3)))


class _Page(HTMLParser):
    """Sees that every tag is closed, and what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "srcset", "onclick"}]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_is_whole_in_itself_without_scripts_and_escapes_what_it_shows(work: Workplace) -> None:
    path = work.folder / "index.html"
    plan = work.folder / "recoup.yaml"
    plan.write_text(plan.read_text().replace("system: Shop", "system: 'Shop <script>alert(1)</script>'"))
    work.recoup("status", "--html", str(path), expect=3)
    page = _Page()
    page.feed(path.read_text())
    assert page.open == []
    assert page.loads == []
    assert "<script" not in path.read_text()
    assert "Something is not as promised" in page.words
    assert "there is no copy of uploads to go back to" in page.words
    assert path.stat().st_mode & 0o777 == 0o644
    work.recoup("status", "--html", "/nowhere/index.html", expect=1)


def test_the_textfile_has_what_is_known_and_nothing_that_is_not(work: Workplace) -> None:
    path = work.folder / "recoup.prom"
    work.recoup("status", "--metrics", str(path), expect=3)
    before = path.read_text()
    assert 'recoup_objective_met{service="uploads",system="Shop"} 0.0' in before
    assert "recoup_rpo_seconds{" not in before
    work.backup("uploads")
    work.recoup("status", "--metrics", str(path))
    after = path.read_text()
    assert 'recoup_objective_met{service="uploads",system="Shop"} 1.0' in after
    assert "recoup_rpo_seconds{" in after


def test_silence_and_broken_promises_are_noticed_with_the_address_and_the_key_alone(work: Workplace) -> None:
    work.backup("uploads")
    with new_workplace() as elsewhere:  # another machine
        elsewhere.key_file.write_text(KEY + "\n")
        there = ("watch", str(work.local), "--key-file", str(elsewhere.key_file))
        assert "there is no heartbeat" in elsewhere.recoup(*there, expect=4).out
        work.recoup("status", "--announce")
        said = elsewhere.json(*there)
        assert said["verdict"] == "ok"
        assert [one["system"] for one in said["heartbeats"]] == ["Shop"]
        late = elsewhere.json(*there, "--max-age", "1ms", expect=3)
        assert any(one["detail"].startswith("silent for ") for one in late["findings"])
        shutil.rmtree(work.local / "manifests")
        gone = elsewhere.json(*there, expect=3)
        assert any(one["detail"] == "there is no copy of it in this repository" for one in gone["findings"])
        (beat,) = (work.local / "heartbeats").iterdir()
        beat.chmod(0o600)
        beat.write_text(beat.read_text().replace('"rpo_seconds": 7200.0', '"rpo_seconds": 9999999.0'))
        forged = elsewhere.json(*there, expect=3)
        assert any("its MAC does not match" in one["detail"] for one in forged["findings"])
        elsewhere.recoup("watch", "/nowhere/at/all", "--key-file", str(elsewhere.key_file), expect=10)


def test_an_alarm_reaches_a_channel_once_with_what_to_do_and_its_end_is_told(work: Workplace, there: Receiver) -> None:
    hook = work.secret("HOOK", _TOKEN)
    work.extra += f"channels: {{team: ['json://{there.address}/{hook}']}}\nalarms: {{to: [team]}}\n"
    work.write_plan()
    work.recoup("status", "--announce", expect=3)
    work.recoup("status", "--announce", expect=3)
    (told,) = there.received
    message = json.loads(told.body)
    assert told.path.rstrip("/") == f"/{_TOKEN}"
    assert message["title"] == "Recoup: Shop: critical: there is no copy of uploads to go back to"
    assert "Take one: `recoup backup uploads`." in message["message"]
    work.backup("uploads")
    work.recoup("status", "--announce")
    (note,) = work.state.rglob("alarms.json")
    known = json.loads(note.read_text())
    past = clock.to_text(datetime.now(UTC) - timedelta(minutes=11))
    for episode in known["episodes"].values():
        episode["gone_since"] = past  # eleven minutes went by
    note.write_text(json.dumps({**known, "last_message": past}))
    work.recoup("status", "--announce")
    work.recoup("status", "--announce")
    assert [json.loads(one.body)["title"] for one in there.received][1:] == ["Recoup: Shop: over"]
    assert "over: there is no copy of uploads" in json.loads(there.received[1].body)["message"]


def test_a_channel_that_takes_nothing_is_said_and_is_an_alarm_without_its_secret(
    work: Workplace, there: Receiver
) -> None:
    there.answer = lambda _request: (403, "no")
    hook = work.secret("HOOK", _TOKEN)
    work.extra += f"channels: {{team: ['json://{there.address}/{hook}']}}\nalarms: {{to: [team]}}\n"
    work.write_plan()
    ended = work.recoup("status", "--announce", expect=3)
    assert "the alarms were not taken: team: 127.0.0.1 did not take it" in ended.err
    work.backup("uploads")
    assert any("channel team did not take what was sent" in what for what in _whats(_status(work, 3)))
    work.assert_no_secret_on_disk()


def test_pings_say_start_and_success_after_the_read_back_and_failure_when_it_fails(
    work: Workplace, there: Receiver
) -> None:
    hook = work.secret("PING", _TOKEN)
    push = f"http://{there.address}/api/push/abc"
    work.extra += f"pings: {{backup: 'http://{there.address}/{hook}', uploads: '{push}'}}\n"
    work.write_plan()
    work.backup("uploads")
    assert [path.split("?")[0] for path in there.paths] == [f"/{_TOKEN}/start", f"/{_TOKEN}", "/api/push/abc"]
    there.received.clear()
    shutil.rmtree(work.folder / "second")
    work.recoup("backup", "-q", expect=1)  # in one repository of two: that is no success
    assert [path.split("&")[0].split("?rid")[0] for path in there.paths] == [
        f"/{_TOKEN}/start",
        f"/{_TOKEN}/fail",
        "/api/push/abc?status=down",
    ]
    assert "not in second" in there.received[1].body


def test_a_ping_that_is_not_taken_fails_no_backup_and_is_said(work: Workplace, there: Receiver) -> None:
    there.answer = lambda _request: (200, "OK (not found)")
    hook = work.secret("PING", _TOKEN)
    work.extra += f"pings: {{backup: 'http://{there.address}/{hook}'}}\n"
    work.write_plan()
    ended = work.recoup("backup")
    assert "the ping 'backup' was not taken: 127.0.0.1 answered 'OK (not found)'" in ended.err
    assert any("ping backup did not take what was sent" in what for what in _whats(_status(work, 3)))


def test_the_success_of_one_task_does_not_hide_the_failure_of_another(work: Workplace, there: Receiver) -> None:
    work.services["logs"] = "{engine: files, paths: [logs], every: 1h}"
    work.extra += f"pings: {{backup: 'http://{there.address}/{_TOKEN}'}}\n"
    work.write_plan()
    work.recoup("backup", "logs", expect=None)  # there is no such folder
    work.recoup("backup", "uploads")
    assert there.paths[-1].split("?")[0] == f"/{_TOKEN}/fail"
    assert "logs files" in there.received[-1].body
    (work.folder / "logs").mkdir()
    work.recoup("backup", "logs")
    assert there.paths[-1].split("?")[0] == f"/{_TOKEN}"


def test_the_daemon_beats_tells_and_serves_metrics(work: Workplace, there: Receiver, free_port: int) -> None:
    work.services["more"] = "{engine: files, paths: [nothing-there]}"
    work.extra += (
        f"metrics: 127.0.0.1:{free_port}\nchannels: {{team: ['json://{there.address}/x']}}\nalarms: {{to: [team]}}\n"
    )
    work.write_plan()
    work.backup("uploads")
    daemon = work.start("daemon")
    silence = threading.Timer(500, daemon.kill)
    silence.start()
    try:
        wait_for(lambda: "recoup_objective_met{" in _metrics(free_port), "metrics are served")
        wait_for(lambda: list(work.local.glob("heartbeats/*.json")), "the heartbeat is there")
        alarms = 'recoup_alarms{severity="critical",system="Shop"}'
        wait_for(lambda: alarms in _metrics(free_port), "the alarms are in the metrics")
        assert _get(free_port, "/") == (404, "the metrics are at /metrics\n")
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        work.finish(daemon, expect=None, timeout=120)
        silence.cancel()
    assert work.json("watch", str(work.local), "--key-file", str(work.key_file), expect=3)["heartbeats"]


@pytest.mark.redis
def test_a_stream_shows_how_far_it_is_behind_and_that_it_lost_its_server(redis7: RedisServer) -> None:
    with new_workplace() as work:
        work.add_redis(redis7)
        work.services["redis"] = work.services["redis"][:-1] + ", stream: continuous, rdb: every 6h, rpo: 1m}"
        work.extra = "alarms: {lag: 5s}\n"
        work.write_plan()
        assert "the plan wants streams without end, and no daemon has run here" in _whats(_status(work, 3))
        said: dict[str, Any] = {}

        def runs() -> bool:
            said.update(work.json("status", expect=None))
            return said["verdict"] == "ok"

        daemon = work.start("daemon")
        try:
            wait_for(runs, "the stream runs", every=0.2)
            service = _service(said)  # asked once more, it may be behind for a moment
            assert [one["state"] for one in service["streams"]] == ["running"]
            assert service["rpo_now_seconds"] < service["rpo_seconds"]
            redis7.stop()
            wait_for(
                lambda: any("of redis does not run" in what for what in _whats(work.json("status", expect=None))),
                "the loss of the server is an alarm",
                every=0.2,
            )
        finally:
            redis7.start()
            os.killpg(daemon.pid, signal.SIGTERM)
            work.finish(daemon, expect=None, timeout=120)
        assert "the daemon was stopped" in _whats(_status(work, 3))
        work.assert_no_secret_on_disk()


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _metrics(port: int) -> str:
    try:
        return _get(port, "/metrics")[1]
    except OSError:
        return ""
