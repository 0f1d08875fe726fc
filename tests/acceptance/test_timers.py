"""``recoup daemon --print-timers``: systemd reads the units, and each calls a command that does the task."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.workplace import Workplace
from tests.real import require


@pytest.fixture
def timed(work: Workplace) -> Workplace:
    """A plan with a schedule of every kind, in a zone that changes its clocks."""
    (work.folder / "uploads").mkdir()
    work.services = {
        "postgres": "{engine: postgres, url: 'postgresql://u@127.0.0.1/x', base: first sunday 02:30, "
        "dump: daily 22:00}",
        "redis": "{engine: redis, url: 'redis://127.0.0.1:6379/0', rdb: every 6h, stream: continuous}",
        "uploads": '{engine: files, paths: [uploads], daily: "03:00"}',
    }
    work.extra = "timezone: Europe/Berlin\nverify: {weekly: intact, monthly: boots}\n"
    work.write_plan()
    return work


def test_systemd_reads_every_unit_and_each_timer_has_its_service(timed: Workplace, tmp_path: Path) -> None:
    for user in ([], ["--user", "recoup"]):
        said = timed.recoup("daemon", "--print-timers", "--into", str(tmp_path), *user).out
        units = sorted(tmp_path.iterdir())
        names = {path.name for path in units}
        assert names >= {
            f"recoup-shop-{what}.{kind}"
            for what in ("postgres-base", "postgres-dump", "redis-rdb", "uploads-files", "prune", "verify-weekly")
            for kind in ("service", "timer")
        } | {"recoup-shop-workers.service"}
        assert all(name in said for name in names if name.endswith(".timer"))
        done = subprocess.run(
            [require("systemd-analyze"), "verify", *map(str, units)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "recoup-shop" not in done.stderr, done.stderr


def test_a_copy_that_the_change_of_clocks_would_skip_is_called_for_again(timed: Workplace) -> None:
    text = timed.recoup("daemon", "--print-timers").out
    units = dict(re.findall(r"^# (recoup-\S+)\n(.*?)(?=^# recoup-|\Z)", text, re.MULTILINE | re.DOTALL))
    night = re.findall(r"OnCalendar=(.*)", units["recoup-shop-postgres-base.timer"])
    assert night == ["Sun *-*-01..07 02:30:00 Europe/Berlin", "*-*-* 04:10:00 Europe/Berlin"]
    assert re.findall(r"OnCalendar=(.*)", units["recoup-shop-postgres-dump.timer"]) == ["*-*-* 22:00:00 Europe/Berlin"]
    for name in ("recoup-shop-postgres-base.timer", "recoup-shop-prune.timer"):
        assert "\nPersistent=true\nRandomizedDelaySec=120s\n" in units[name]
    assert "OnUnitActiveSec=21600s" in units["recoup-shop-redis-rdb.timer"]
    assert "Persistent" not in units["recoup-shop-redis-rdb.timer"]


def test_the_command_of_a_unit_takes_the_copy(timed: Workplace) -> None:
    text = timed.recoup("daemon", "--print-timers").out
    calls = [shlex.split(line) for line in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)]
    (call,) = [one for one in calls if one[1:3] == ["backup", "uploads"]]
    assert timed.recoup(*call[1:]).out.startswith("uploads files  ")
    assert "nothing is due" in timed.recoup(*call[1:]).out
    verify = next(one for one in calls if one[1] == "verify" and "weekly" in one)
    timed.recoup(*verify[1:])


def test_only_what_opens_a_sandbox_may_make_namespaces(timed: Workplace) -> None:
    text = timed.recoup("daemon", "--print-timers", "--user", "recoup").out
    units = dict(re.findall(r"^# (recoup-\S+)\n(.*?)(?=^# recoup-|\Z)", text, re.MULTILINE | re.DOTALL))
    open_ones = {name for name, unit in units.items() if "RestrictNamespaces=no\n" in unit}
    assert open_ones == {"recoup-shop-verify-monthly.service"}
    assert "RestrictNamespaces=yes\n" in units["recoup-shop-verify-weekly.service"]


def test_what_no_timer_can_say_is_refused(timed: Workplace) -> None:
    timed.services["uploads"] = "{engine: files, paths: [uploads]}"
    timed.services["postgres"] = "{engine: postgres, url: 'postgresql://u@127.0.0.1/x', base: '0 4 */2 * mon#1'}"
    timed.write_plan()
    assert "cannot be a systemd timer" in timed.recoup("daemon", "--print-timers", expect=2).err
