"""The Compose engine when the stack, its files or the machine break. Each test has a fresh stack."""

from __future__ import annotations

import pytest

from recoup.engines.compose.client import ComposeProject
from recoup.engines.compose.docker import ComposeSource, ContainerEngineError
from recoup.engines.compose.one_off import OneOff, run_one_off, shell
from recoup.engines.compose.project import read_project
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, run
from tests.testhost.fixtures import Stack
from tests.testhost.machine import eventually

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost")]


def source_of(stack: Stack) -> ComposeSource:
    return ComposeSource(
        files=(stack.file,), env_files=(stack.env_file,), docker_environment=stack.machine.docker_environment
    )


@pytest.fixture
def project(stack: Stack) -> ComposeProject:
    return ComposeProject(read_project(source_of(stack)))


def test_a_volume_without_a_name_is_written_where_the_service_reads_it(stack: Stack) -> None:
    text = (
        stack.file.read_text().replace("      - redis-data:/data\n", "      - /data\n").replace("  redis-data:\n", "")
    )
    stack.compose("down", "--volumes", "-t", "2")
    stack.file.write_text(text)
    project = ComposeProject(read_project(source_of(stack)))
    project.create(["redis"])
    (mount,) = project.of_service("redis")[0].mounts
    assert len(mount.name) == 64  # the engine's own name for it
    run_one_off(project, OneOff(service="redis", argv=tuple(shell("cat > /data/kept")), run_id="r"), stdin=b"precious")
    project.start(["redis"], seconds=240)
    assert run(project.runner("redis").wrap(Command(argv=("cat", "/data/kept")))).stdout == b"precious"


def test_a_container_that_does_not_come_up_is_reported_with_its_last_words_and_without_secrets(
    project: ComposeProject, stack: Stack
) -> None:
    project.stop(["api", "redis"], grace_seconds=5)
    stack.env_file.write_text(stack.env_file.read_text().replace("redis-example-4711", "wrong-password-8"))
    stack.compose("rm", "-f", "api")
    stack.file.write_text(
        stack.file.read_text()
        .replace(
            "image: api:1", 'image: api:1\n    command: ["sh", "-c", "echo broken with $$REDIS_PASSWORD; exit 9"]', 1
        )
        .replace("restart: unless-stopped\n    env_file", "env_file")
    )
    changed = ComposeProject(read_project(source_of(stack)))
    with pytest.raises(EngineError) as failure:
        changed.start(["api"], seconds=90)
    assert "api is exited with status 9; it said last: broken with ***" in failure.value.message
    assert "docker compose -p marketplace logs api" in (failure.value.hint or "")


def test_after_a_power_cut_the_same_calls_work_on_the_machine_that_came_back(
    project: ComposeProject, stack: Stack
) -> None:
    stack.machine.power_cut()
    with pytest.raises(ContainerEngineError):
        project.containers()
    stack.machine.start()
    project.start(["postgres", "redis", "api"], seconds=240)
    assert stack.sql("select count(*) from orders") == "2000\n"
    eventually(stack.answers, what="the application")
