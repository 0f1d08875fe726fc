"""The Compose engine on a pretend machine: a real Docker engine, a stack whose database is not published."""

from __future__ import annotations

import hashlib
import os
import signal

import pytest

from recoup.engines.compose.answers import Answer, wait_until_answers
from recoup.engines.compose.client import ComposeProject
from recoup.engines.compose.docker import ComposeSource
from recoup.engines.compose.one_off import OneOff, finish, open_one_off, remove_leftovers, run_one_off, shell
from recoup.engines.compose.project import read_project
from recoup.kernel.errors import EngineError
from tests.testhost.fixtures import Stack
from tests.testhost.machine import eventually

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost")]


def source_of(stack: Stack) -> ComposeSource:
    return ComposeSource(
        files=(stack.file,), env_files=(stack.env_file,), docker_environment=stack.machine.docker_environment
    )


@pytest.fixture
def stack(standing_stack: Stack) -> Stack:
    """The stack of this module, made whole again after what the test before has stopped."""
    standing_stack.compose("up", "--detach", "--wait", "--wait-timeout", "240")
    return standing_stack


@pytest.fixture
def project(stack: Stack) -> ComposeProject:
    return ComposeProject(read_project(source_of(stack)))


def test_the_services_and_their_health_are_seen_also_after_they_stop(project: ComposeProject) -> None:
    assert project.status() == {
        "api": "running (healthy)",
        "mailhog": "not created",
        "postgres": "running (healthy)",
        "redis": "running (healthy)",
    }
    project.stop(["api", "redis"], grace_seconds=5)
    assert project.status()["api"] == "exited"
    assert project.status()["postgres"] == "running (healthy)"
    project.stop(["api"])  # again: nothing to do, no error
    project.start(["redis", "api"], seconds=240)
    assert project.status()["api"] == "running (healthy)"


def test_a_stream_goes_into_the_volume_of_a_stopped_service_and_every_byte_arrives(
    project: ComposeProject, stack: Stack
) -> None:
    project.stop(["api", "postgres"], grace_seconds=10)
    piece, digest = os.urandom(1 << 20), hashlib.sha256()
    script = shell("cat > /var/lib/postgresql/data/streamed; sha256sum < /var/lib/postgresql/data/streamed")
    with open_one_off(project, OneOff(service="postgres", argv=tuple(script), run_id="run-1")) as child:
        for number in range(64):
            data = number.to_bytes(4, "big") + piece
            digest.update(data)
            child.stdin.write(data)
        child.stdin.close()
        said = child.stdout.read().decode().split()[0]
        finish(child, timeout_seconds=240)
    assert said == digest.hexdigest()
    # The service's own volume has it, and the one-off container is gone.
    project.start(["postgres", "api"], seconds=240)
    assert stack.compose("exec", "-T", "postgres", "stat", "-c", "%s", "/var/lib/postgresql/data/streamed").strip() == (
        str(64 * ((1 << 20) + 4))
    )
    assert stack.machine.docker("ps", "-aq", "--filter", "label=recoup.one-off.project").strip() == ""
    assert stack.answers()


def test_a_one_off_that_fails_says_why_and_leaves_no_container(project: ComposeProject, stack: Stack) -> None:
    project.stop(["api", "redis"], grace_seconds=5)
    failing = OneOff(service="redis", argv=tuple(shell('echo "no space: $1" >&2; exit 3', "left")), run_id="r")
    with pytest.raises(EngineError, match="no space: left"):
        run_one_off(project, failing)
    with pytest.raises(EngineError, match="no space: left"), open_one_off(project, failing, stdin=False) as child:
        finish(child, timeout_seconds=240)
    assert stack.machine.docker("ps", "-aq", "--filter", "label=recoup.one-off.project").strip() == ""


def test_a_one_off_left_by_a_killed_run_is_removed_and_nothing_else(project: ComposeProject, stack: Stack) -> None:
    project.stop(["api", "redis"], grace_seconds=5)
    stack.machine.docker("run", "-d", "--name", "neighbour", "redis:7", "sleep", "600")
    stack.machine.docker(
        "run", "-d", "--name", "other", "--label", "recoup.one-off.project=other", "redis:7", "sleep", "600"
    )
    with open_one_off(project, OneOff(service="redis", argv=("sleep", "600"), run_id="dead")) as child:
        eventually(lambda: "recoup-marketplace-redis" in stack.machine.docker("ps", "--format", "{{.Names}}"))
        os.kill(child.pid, signal.SIGKILL)
        child.wait(120)
        assert "recoup-marketplace-redis" in stack.machine.docker("ps", "--format", "{{.Names}}")
        assert remove_leftovers(project, except_run="dead") == ()
        removed = remove_leftovers(project, except_run="alive")
    assert len(removed) == 1
    names = stack.machine.docker("ps", "--format", "{{.Names}}").split()
    assert {"neighbour", "other"} <= set(names)
    assert not any(name.startswith("recoup-marketplace-redis") for name in names)
    stack.machine.docker("rm", "-f", "neighbour", "other")


def test_waiting_for_an_application_ends_when_it_is_well_and_at_the_limit(stack: Stack) -> None:
    def asked() -> Answer:
        return Answer(well=stack.answers(), said="asked on the machine")

    assert wait_until_answers(asked, seconds=240) < 240
    stack.compose("stop", "-t", "2", "redis")
    with pytest.raises(EngineError, match="the api is not well after 1 s: asked on the machine"):
        wait_until_answers(asked, seconds=1, what="the api")
