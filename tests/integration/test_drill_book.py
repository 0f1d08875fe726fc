"""``recoup drill --list``, ``--show``, ``--issues``, ``--close`` and the reports, through the command line, on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from recoup.assembly.drill.book import expiry_of, state_now
from recoup.assembly.drill.plan import plan_identity
from recoup.assembly.protect import agenda
from recoup.assembly.system import System
from recoup.cli.main import main
from recoup.drill.book import proof_file, read_book, write_drill
from recoup.drill.issues import find_issues
from recoup.drill.model import DrillRecord
from recoup.drill.state import State
from recoup.kernel import clock, ids
from recoup.kernel.errors import Exit
from recoup.repository import layout
from tests.drills import MINUTE, a_drill

PLAN = """\
recoup: 1
system: marketplace
timezone: Europe/Berlin
key: {file: recoup.key}
services:
  notes: {engine: files, paths: [notes], every: 1h}
repositories:
  local: {path: local}
  offsite: {path: offsite}
drill: {schedule: first monday 09:00, expires: 40d}
"""


class Work:
    """A plan with two repositories in folders."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        (folder / "recoup.key").write_text("00c0ffee" * 8 + "\n")
        (folder / "recoup.yaml").write_text(PLAN)
        self.system.open(writing=True)

    @property
    def system(self) -> System:
        return System.from_file(self.folder / "recoup.yaml")

    def drill(self, days_ago: float, **changes: Any) -> DrillRecord:
        """Write a drill of this plan."""
        declared = clock.now() - timedelta(days=days_ago)
        record = a_drill(
            name=ids.new_id(declared), declared=declared, **{"plan": plan_identity(self.system, {}), **changes}
        )
        opened = self.system.open().repositories
        book = read_book(opened)
        found = find_issues(record, book.records, book.issues, owner="operations", due=timedelta(days=14))
        record = replace(record, issues=found)
        assert set(write_drill(opened, record).values()) == {None}
        return record

    def run(self, *words: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = main(["drill", "-f", str(self.folder / "recoup.yaml"), *words])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *words: str, code: int = 0) -> Any:
        ended, out, err = self.run(*words, "--json")
        assert ended == code, (out, err)
        return json.loads(out)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Work:
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "state"))
    (tmp_path / "stack").mkdir()
    return Work(tmp_path / "stack", capsys)


def test_before_the_first_drill_the_list_is_empty_and_the_plan_is_not_proven(work: Work) -> None:
    code, out, _ = work.run("--list")
    assert code == Exit.OK
    assert "no drill was held yet" in out
    assert "the plan is unverified: it was never rehearsed" in out
    assert work.run("--show", "latest")[0] == Exit.USAGE
    assert "no issue is open" in work.run("--issues")[1]


def test_the_list_has_every_drill_with_its_numbers_what_is_worse_and_how_the_plan_stands(work: Work) -> None:
    work.drill(70, takes=20 * MINUTE)
    slow = work.drill(35, takes=90 * MINUTE)
    good = work.drill(1, takes=19 * MINUTE)
    code, out, _ = work.run("--list")
    lines = out.splitlines()
    assert code == Exit.OK
    assert [line.split()[-1] for line in lines[1:3]] == [good.id, slow.id]
    assert "FAILED" in lines[2]
    assert "RTO, machine time" in lines[2]
    assert "1 h 30 min" in lines[2]
    assert lines[-1] == "the plan is verified"
    said = work.json("--list")
    assert [one["verdict"] for one in said["drills"]] == ["ok", "failed", "ok"]
    assert said["drills"][0]["repositories"] == ["local", "offsite"]
    assert (said["plan"]["state"], said["problems"]) == ("verified", [])


def test_one_line_changed_in_the_plan_takes_its_proof_away_and_says_what_changed(work: Work) -> None:
    work.drill(1)
    book = read_book(work.system.open().repositories)
    assert state_now(work.system, book, clock.now()).state is State.VERIFIED
    assert expiry_of(work.system) == timedelta(days=40)
    assert state_now(work.system, book, clock.now() + timedelta(days=40)).reasons == ("the proof expired",)
    plan = work.folder / "recoup.yaml"
    plan.write_text(plan.read_text().replace("every: 1h", "every: 2h"))
    assert work.run("--list")[1].splitlines()[-1] == "the plan is stale: plan file changed"
    plan.write_text(PLAN + "compose: {file: compose.yaml}\n")
    stale = state_now(work.system, book, clock.now())
    assert stale.reasons == ("compose.yaml could not be looked at now", "plan file changed")


def test_a_drill_is_shown_as_text_as_json_as_a_page_and_on_paper(work: Work) -> None:
    drill = work.drill(1, takes=90 * MINUTE)
    code, out, _ = work.run("--show", "latest")
    assert code == Exit.OK
    for text in (
        f"drill {drill.id} of marketplace, server-loss: FAILED",
        "1 h 30 min, 1 h promised",
        "restore postgres",
        "table fingerprints match",
        "GET /orders",
        "not tested: e-mail",
        f"issue {drill.id}.1 (open, operations",
    ):
        assert text in out, text
    assert work.json("--show", drill.id[:12])["id"] == drill.id
    html, pdf = work.folder / "drill.html", work.folder / "drill.pdf"
    code, _, err = work.run("--show", "latest", "--html", str(html), "--pdf", str(pdf))
    assert (code, f"wrote {html}" in err) == (Exit.OK, True)
    assert "The drill failed" in html.read_text()
    assert pdf.read_bytes().startswith(b"%PDF-")
    code, _, err = work.run("--show", "latest", "--html", str(work.folder / "none" / "x.html"))
    assert code == Exit.FAILED
    assert "cannot write the report" in err


def test_an_issue_is_listed_until_it_is_closed_with_a_proof(work: Work) -> None:
    drill = work.drill(20, takes=90 * MINUTE)
    first = f"{drill.id}.1"
    code, out, _ = work.run("--issues")
    assert code == Exit.OK
    assert "OVERDUE" in out
    assert "recovery took 1 h 30 min, 1 h is promised" in out
    code, _, err = work.run("--close", first, "--because", "another disk")
    assert code == Exit.REFUSED
    assert "nothing proves yet" in err
    assert work.run("--close", first, "--because", "x", "--proof", drill.id)[0] == Exit.REFUSED
    assert work.run("--close", first)[0] == Exit.USAGE
    assert work.run("--close", "nothing.1", "--because", "x")[0] == Exit.USAGE
    assert work.run("--close", first, "--because", "x", "--proof", str(work.folder / "none"))[0] == Exit.USAGE
    passed = work.drill(1)
    closed = work.json("--close", first, "--because", "another disk")
    assert closed["closing"]["proof"]["name"] == passed.id
    assert closed["repositories"] == ["local", "offsite"]
    assert "no issue is open" in work.run("--issues")[1]
    code, _, err = work.run("--close", first, "--because", "again")
    assert code == Exit.REFUSED
    assert "was closed by" in err
    shown = work.json("--show", drill.id)["issues"]
    assert [(one["id"], one["state"], one["closing"]["because"]) for one in shown] == [
        (first, "closed", "another disk")
    ]


def test_a_file_that_proves_a_closing_is_kept_encrypted_with_it(work: Work) -> None:
    drill = work.drill(20, takes=90 * MINUTE)
    (work.folder / "disk.txt").write_text("the invoice of the new disk")
    work.json("--close", f"{drill.id}.1", "--because", "another disk", "--proof", str(work.folder / "disk.txt"))
    opened = work.system.open().repositories
    (issue,) = read_book(opened).issues
    assert issue.closing is not None
    assert proof_file(opened, issue.closing) == b"the invoice of the new disk"
    stored = b"".join(path.read_bytes() for path in work.folder.glob("*/drills/**/*") if path.is_file())
    assert b"invoice" not in stored


def test_a_forged_record_is_named_and_the_exit_code_tells(work: Work) -> None:
    drill = work.drill(1, takes=90 * MINUTE)
    path = work.folder / "local" / layout.drill_record_key("records", drill.id)
    path.write_bytes(path.read_bytes().replace(b'"failed"', b'"ok"'))
    code, out, err = work.run("--list")
    assert code == Exit.BAD
    assert "FAILED" in out, "the other repository has it right"
    assert f"local: {layout.drill_record_key('records', drill.id)} cannot be believed" in err
    assert work.json("--list", code=3)["problems"][0]["repository"] == "local"


def test_one_repository_alone_is_enough_without_a_plan(work: Work, tmp_path: Path) -> None:
    drill = work.drill(1)
    code = main(
        ["drill", "--list", "--from", str(work.folder / "offsite"), "--key-file", str(work.folder / "recoup.key")]
    )
    assert code == Exit.OK
    assert drill.id in work._capsys.readouterr().out


def test_a_repository_that_is_away_is_unknown_and_what_others_hold_is_shown(work: Work) -> None:
    drill = work.drill(1)
    (work.folder / "offsite").rename(work.folder / "away")
    code, out, err = work.run("--list")
    assert code == Exit.UNKNOWN
    assert drill.id in out
    assert "offsite could not be asked" in err


@pytest.mark.parametrize(
    "words",
    [
        ("--list", "--issues"),
        ("--because", "x"),
        ("--proof", "x"),
        ("--issues", "--html", "x"),
        ("--show", "latest", "--close", "x.1"),
    ],
)
def test_options_that_make_no_sense_together_are_refused_before_anything_is_done(
    work: Work, words: tuple[str, ...]
) -> None:
    assert work.run(*words)[0] == Exit.USAGE


def status_of(work: Work, *, code: int) -> Any:
    work._capsys.readouterr()
    assert main(["status", "-f", str(work.folder / "recoup.yaml"), "--json"]) == code
    return json.loads(work._capsys.readouterr().out)


def test_status_says_how_the_plan_stands_and_a_missed_drill_is_an_alarm(work: Work) -> None:
    said = status_of(work, code=3)  # nothing is copied here, so there is an alarm already
    assert said["plan"]["state"] == "unverified"
    assert not any(one["key"].startswith("drill") for one in said["alarms"])
    old = work.drill(70)
    said = status_of(work, code=3)
    (alarm,) = [one for one in said["alarms"] if one["key"].startswith("drill")]
    assert alarm["key"] == "drill:missed"
    assert f"the last one was on {old.declared:%Y-%m-%d}" in alarm["what"]
    assert said["plan"]["reasons"] == ["the proof expired"]
    drill = work.drill(0)
    said = status_of(work, code=3)
    assert not any(one["key"].startswith("drill") for one in said["alarms"])
    assert (said["plan"]["state"], said["plan"]["drill"]) == ("verified", drill.id)
    work._capsys.readouterr()
    main(["status", "-f", str(work.folder / "recoup.yaml"), "--html", str(work.folder / "status.html")])
    assert "plan: verified, last drill" in work._capsys.readouterr().out
    assert "Plan: verified, last drill" in (work.folder / "status.html").read_text()


def test_a_drill_of_the_future_hides_no_missed_one_and_the_next_is_held_in_time(work: Work) -> None:
    old, ahead = work.drill(70), work.drill(-400)
    said = status_of(work, code=3)
    (alarm,) = [one for one in said["alarms"] if one["key"].startswith("drill")]
    assert alarm["key"] == "drill:missed"
    assert f"the last one was on {old.declared:%Y-%m-%d}" in alarm["what"]
    assert (said["plan"]["state"], said["plan"]["drill"]) == ("stale", ahead.id)
    assert said["plan"]["reasons"] == ["the last drill is of the future: a clock is wrong"]
    runs = agenda.decide(work.system, agenda.look(work.system, upkeep=True), clock.now(), jitter=timedelta(0))
    assert next(run for run in runs if run.kind == "drill").at < clock.now() + timedelta(days=40)


def test_a_drill_in_which_nothing_would_prove_the_data_is_refused_before_anything_is_begun(work: Work) -> None:
    code, _, err = work.run()
    assert code == Exit.REFUSED
    assert "nothing in this drill would prove that the data came back" in err
    assert "at_least: 1" in err
    assert read_book(work.system.open().repositories).records == ()


def test_sync_brings_the_records_of_drills_to_a_repository_that_was_away(work: Work) -> None:
    (work.folder / "offsite").rename(work.folder / "away")
    drill = work.drill(1, takes=90 * MINUTE)
    assert read_book(work.system.open().repositories).places[drill.id] == ("local",)
    (work.folder / "away").rename(work.folder / "offsite")
    work.system.open(writing=True)
    assert main(["sync", "-f", str(work.folder / "recoup.yaml")]) == Exit.OK
    assert read_book(work.system.open().repositories).places[drill.id] == ("local", "offsite")


def test_the_metrics_have_the_numbers_of_the_last_drill_of_each_situation(work: Work) -> None:
    work.drill(40, takes=20 * MINUTE)
    work.drill(20, takes=90 * MINUTE)
    work.drill(10, situation="data-loss", takes=10 * MINUTE)
    path = work.folder / "recoup.prom"
    main(["status", "-f", str(work.folder / "recoup.yaml"), "--metrics", str(path)])
    said = path.read_text()
    assert 'recoup_drill_recovery_seconds{situation="server-loss",system="marketplace"} 5400.0' in said
    assert 'recoup_drill_recovery_seconds{situation="data-loss",system="marketplace"} 600.0' in said
    assert 'recoup_drill_ok{situation="server-loss",system="marketplace"} 0.0' in said
    assert 'recoup_drill_lost_seconds{situation="data-loss",system="marketplace"} 40.0' in said
    assert "recoup_drill_proof_until_timestamp_seconds" in said
