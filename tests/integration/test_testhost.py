"""The pretend machines themselves: a test that relies on them must be able to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testhost.machine import Hall, Machine, connect, eventually, remove_stale

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost")]
ROOT = Path(__file__).parents[2]


def test_machines_have_networks_of_their_own_and_a_cable_between_them(testhost: Machine, second_host: Machine) -> None:
    here, there = connect(testhost, second_host)
    names = [machine.run(["hostname"]).stdout for machine in (testhost, second_host)]
    assert names[0] != names[1]
    server = subprocess.Popen(
        ["nsenter", "-t", str(second_host.pid), "-n", sys.executable, "-m", "http.server", "8099", "--bind", there],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ask = ["curl", "-s", "-f", "--noproxy", "*", "-o", "/dev/null", "--max-time", "2", f"http://{there}:8099/"]
        eventually(lambda: testhost.run(ask, check=False).returncode == 0, what="an answer over the cable")
        outside = subprocess.run(["ip", "-4", "addr"], capture_output=True, text=True, check=True).stdout
        assert here not in outside
        assert there not in outside
        testhost.run(["ip", "addr", "flush", "to", f"{here}/32"])
        assert testhost.run(ask, check=False).returncode != 0
    finally:
        server.kill()
        server.wait()
    assert second_host.docker("images", "-q") == testhost.docker("images", "-q")


def test_a_power_cut_loses_what_ran_and_keeps_the_disk(second_host: Machine) -> None:
    second_host.docker("volume", "create", "kept")
    second_host.docker("run", "-v", "kept:/v", "--user", "0", "redis:7", "sh", "-c", "echo data > /v/file; sync")
    identity = second_host.docker("run", "-d", "redis:7").strip()
    second_host.power_cut()
    second_host.start()
    assert second_host.docker("inspect", "-f", "{{.State.Status}}", identity).strip() == "exited"
    assert second_host.docker("run", "--rm", "-v", "kept:/v", "redis:7", "cat", "/v/file") == "data\n"


def test_a_test_run_that_is_killed_leaves_no_machine_and_the_next_one_clears_its_disk(hall: Hall) -> None:
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from tests.testhost.machine import Hall, Machine\n"
        "hall = Hall(); machine = Machine('gone', hall.folder / 'gone', hall.folder / 'config'); machine.start()\n"
        "print(machine.pid, hall.folder, flush=True); time.sleep(300)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", script, str(ROOT)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    with run.stdout:
        pid, folder = run.stdout.readline().split()
    assert Path(f"/proc/{pid}").exists()
    assert Path(folder).is_dir()
    run.send_signal(signal.SIGKILL)
    run.wait()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the end of the machine")
    name = Path(folder).name.removeprefix("recoup-hosts-").replace("_", "x")
    eventually(
        lambda: not any(name in place for place, _, _ in os.walk("/sys/fs/cgroup")), what="the end of its groups"
    )
    remove_stale()
    assert not Path(folder).exists()
    assert hall.folder.is_dir()  # the living one's stays
