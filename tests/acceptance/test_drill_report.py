"""A drill that was really held, as those see it who read of it: list, report, status, metrics, and the next change."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import timedelta
from pathlib import Path

from recoup.demo.servers import PostgresServer
from recoup.kernel import clock
from tests.acceptance.workplace import RECOUP, Workplace
from tests.artefacts import keep
from tests.real import require

_GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "check-a-drill-report.md"
_DRILL = """
team: {operations: {name: Ada Lovelace, deputy: lead}, lead: {name: Grace Hopper}}
drill:
  schedule: first monday 09:00
  flows:
    - name: the newest orders are there
      within: 0s
      steps:
        - {sql: "select id from orders order by id desc limit 1", save: {newest: id}, expect: {at_least: 500}}
        - {sql: "select count(*) from payments", expect: {at_least: PAID}}
"""


def test_a_drill_that_was_held_is_told_of_and_a_change_of_the_plan_takes_its_proof_away(
    work: Workplace, postgres17: PostgresServer, tmp_path: Path
) -> None:
    database = postgres17.new_database()
    postgres17.execute("create table orders as select generate_series(1, 500) id", database)
    postgres17.execute("create table payments as select 1 as id", database)
    work.add_postgres(postgres17, database)
    work.extra = _DRILL.replace("PAID", "2")
    work.write_plan()
    work.recoup("backup")

    assert "nothing is due; next: drill 20" in work.recoup("drill", "--due").out
    failed = work.json("drill", "--absent", "lead", expect=3)
    assert failed["verdict"] == "failed"
    assert len(failed["record"]["issues"]) == 1, failed["record"]["issues"]
    (issue,) = failed["record"]["issues"]
    assert (issue["owner"], "sql on" in issue["text"]) == ("operations", True)
    said = work.json("drill", "--list")
    assert said["plan"]["state"] == "failed"
    assert "the value is 1, at least 2 is expected" in work.recoup("drill", "--show", "latest").out
    assert issue["id"] in work.recoup("drill", "--issues").out
    refused = work.recoup("drill", "--close", issue["id"], "--because", "two are paid", expect=5)
    assert "nothing proves yet" in refused.err

    work.extra = _DRILL.replace("PAID", "1").replace("first monday 09:00", "every 1h")
    work.write_plan()
    _known_from_the_repository_alone(work, failed["record"]["declared"])
    page, paper = tmp_path / "drill-held.html", tmp_path / "drill-held.pdf"
    passed = work.json("drill", "--html", str(page), "--pdf", str(paper))
    assert passed["verdict"] == "ok", passed
    assert "The drill passed" in page.read_text()
    assert paper.read_bytes().startswith(b"%PDF-")
    keep(page)
    keep(paper)
    _a_stranger_checks(work, passed["id"], page, paper)
    work.recoup("drill", "--close", issue["id"], "--because", "one is enough")
    assert "no issue is open" in work.recoup("drill", "--issues").out
    report = work.json("drill", "--show", passed["id"])
    assert [one["verdict"] for one in report["trend"]] == ["failed", "ok"]
    assert report["forecast"]["steps"]["restore-postgres"]["times"] == 2
    assert report["proves_data"] == ["flow: the newest orders are there"]

    status = json.loads(work.recoup("status", "--json", "--metrics", str(tmp_path / "recoup.prom")).out)
    assert (status["plan"]["state"], status["plan"]["drill"]) == ("verified", passed["id"])
    assert "recoup_drill_ok{situation=" in (tmp_path / "recoup.prom").read_text()
    work.extra = work.extra.replace("every 1h", "every 2h")
    work.write_plan()
    assert work.json("drill", "--list")["plan"]["reasons"] == ["plan file changed"]


def _known_from_the_repository_alone(work: Workplace, declared: str) -> None:
    """When the next drill is due follows from the records in the repositories: cron may run on another machine."""
    (state,) = work.state.iterdir()
    for path in (state / "runs").iterdir():
        path.unlink()
    (run,) = work.json("drill", "--due")["next"]
    assert run["reason"] == "scheduled"
    assert clock.from_text(run["at"]) - clock.from_text(declared) == timedelta(hours=1)


def _a_stranger_checks(work: Workplace, drill: str, page: Path, paper: Path) -> None:
    """With a public key, in a folder without plan and key: by Recoup, and by what the guide says of stock tools."""
    there = page.parent / "stranger"
    there.mkdir()
    (there / "drills.pem").write_text(work.recoup("key", "show-public").out)
    (there / "drill.json").write_text(work.recoup("drill", "--show", drill, "--json").out)
    for one in (page, paper):
        kind = one.suffix
        (there / f"drill{kind}").write_bytes(one.read_bytes())
        (there / f"drill{kind}.sig").write_bytes(one.with_name(f"{one.name}.sig").read_bytes())
    for tool in ("openssl", "jq"):
        require(tool)
    blocks = re.findall(r"```sh\n(.*?)```", _GUIDE.read_text(), re.DOTALL)
    by_hand = [one for one in blocks if "openssl" in one]
    assert len(by_hand) == 2, "the guide has changed"
    recoup = [f"{RECOUP} drill --verify drill{kind} --public-key drills.pem" for kind in (".json", ".html", ".pdf")]

    def codes() -> list[int]:
        return [
            subprocess.run(
                ["bash", "-eu", "-c", one], cwd=there, env={"PATH": "/usr/bin:/bin"}, capture_output=True, timeout=120,
                check=False,
            ).returncode
            for one in (*by_hand, *recoup)
        ]  # fmt: skip

    assert codes() == [0, 0, 0, 0, 0]
    report = json.loads((there / "drill.json").read_text())
    (there / "drill.json").write_text(json.dumps(report | {"verdict": "failed"}))
    (there / "drill.pdf").write_bytes(paper.read_bytes() + b" ")
    (there / "drill.html").write_text(page.read_text().replace("passed", "failed"))
    changed = codes()
    assert changed[0] != 0, "openssl sees that the paper was changed"
    assert changed[1] == 0, "the record in the report is still the one that was signed"
    assert changed[2:] == [3, 3, 3]
    (there / "drills.pem").unlink()
    alone = subprocess.run(
        [RECOUP, "drill", "--verify", "drill.html"], cwd=there, capture_output=True, timeout=120, check=False
    )
    assert (alone.returncode, b"--public-key" in alone.stdout) == (4, True)
