"""Commands inside the services of a running stack whose database is not published. Nothing here changes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from recoup.engines.compose.client import ComposeProject
from recoup.engines.compose.docker import ComposeSource, ContainerEngineError
from recoup.engines.compose.one_off import OneOff, run_one_off
from recoup.engines.compose.project import read_project
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.process import Command, run
from recoup.kernel.secret import Secret
from tests.testhost.fixtures import Stack

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost")]


def source_of(stack: Stack) -> ComposeSource:
    return ComposeSource(
        files=(stack.file,), env_files=(stack.env_file,), docker_environment=stack.machine.docker_environment
    )


@pytest.fixture(scope="module")
def project(standing_stack: Stack) -> ComposeProject:
    return ComposeProject(read_project(source_of(standing_stack)))


def test_a_command_runs_in_the_database_container_although_no_port_is_published(
    project: ComposeProject, standing_stack: Stack
) -> None:
    assert not project.project.service("postgres").ports
    runner = project.runner("postgres", user="postgres")
    command = Command(argv=("psql", "-XAtq", "-U", "market", "-c", "select count(*) from orders"))
    assert run(runner.wrap(command)).stdout == b"2000\n"
    assert run(runner.wrap(Command(argv=("id", "-u")))).stdout == b"999\n"
    assert run(runner.wrap(Command(argv=("id", "-u"), user=(65534, 65534)))).stdout == b"65534\n"
    assert run(runner.wrap(Command(argv=("sh", "-c", "pwd"), folder=Path("/tmp")))).stdout == b"/tmp\n"


def test_a_secret_reaches_the_container_and_is_in_no_argument(project: ComposeProject) -> None:
    command = Command(
        argv=("sh", "-c", 'printf %s "$REDISCLI_AUTH|$PLAIN"'),
        environment={"REDISCLI_AUTH": Secret("s3cret $HOME ü\nline"), "PLAIN": "two words"},
    )
    wrapped = project.runner("redis").wrap(command)
    assert not any("s3cret" in word for word in wrapped.argv)
    assert run(wrapped).stdout.decode() == "s3cret $HOME ü\nline|two words"
    with pytest.raises(ValueError, match="DOCKER_HOST"):
        project.runner("redis").wrap(Command(argv=("true",), environment={"DOCKER_HOST": Secret("x")}))


def test_the_exit_status_and_the_last_words_of_a_command_in_a_container_come_back(project: ComposeProject) -> None:
    ended = run(project.runner("redis").wrap(Command(argv=("sh", "-c", "echo why >&2; exit 7"))), expect=None)
    assert (ended.exit_status, ended.stderr.strip()) == (7, "why")


def test_data_are_not_written_beside_a_running_service(project: ComposeProject) -> None:
    with pytest.raises(RefusedError, match="postgres is running"):
        run_one_off(project, OneOff(service="postgres", argv=("true",), run_id="r"))
    look = OneOff(service="postgres", argv=("cat", "/var/lib/postgresql/data/PG_VERSION"), run_id="r", writable=False)
    assert run_one_off(project, look).stdout == b"15\n"
    with pytest.raises(EngineError, match="Read-only"):
        run_one_off(project, dataclasses.replace(look, argv=("touch", "/var/lib/postgresql/data/x")))


def test_images_are_named_by_digest(project: ComposeProject) -> None:
    images = {image.service: image for image in project.images(["postgres", "redis"])}
    assert set(images) == {"postgres", "redis"}
    assert images["postgres"].image == "postgres:15"
    assert images["postgres"].image_id.startswith("sha256:")


def test_an_engine_that_is_switched_off_is_named_as_the_cause(standing_stack: Stack, tmp_path: Path) -> None:
    source = dataclasses.replace(
        source_of(standing_stack),
        docker_environment={
            **standing_stack.machine.docker_environment,
            "DOCKER_HOST": f"unix://{tmp_path}/nothing.sock",
        },
    )
    project = ComposeProject(read_project(source))  # reading needs no engine
    with pytest.raises(ContainerEngineError, match="the Docker engine does not answer"):
        project.containers()
    with pytest.raises(ContainerEngineError, match="the Docker engine does not answer"):
        project.stop(["api"])
