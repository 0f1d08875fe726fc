"""A container that cannot get its port: the engine says that it is taken, and Recoup by whom."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recoup.engines.compose.client import ComposeProject
from recoup.engines.compose.docker import ComposeSource
from recoup.engines.compose.ports import with_who_has_the_port
from recoup.engines.compose.project import read_project
from recoup.kernel.errors import EngineError
from tests.testhost.fixtures import Stack

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost")]

#: What an engine said after it had lost its power while it started a container.
_KEPT = (
    "cannot start api: Error response from daemon: driver failed programming external connectivity on endpoint "
    "marketplace-api-1 (ce9c2fbef30c): Bind for 127.0.0.1:3999 failed: port is already allocated"
)


@pytest.fixture
def source(standing_stack: Stack) -> ComposeSource:
    return ComposeSource(
        files=(standing_stack.file,),
        env_files=(standing_stack.env_file,),
        docker_environment=standing_stack.machine.docker_environment,
    )


@pytest.fixture
def somebody(standing_stack: Stack) -> Iterator[str]:
    """A container of nobody's project that has the port of the application."""
    docker, name = standing_stack.machine.docker, "somebody"
    standing_stack.compose("stop", "--timeout", "2", "api")
    docker("run", "-d", "--name", name, "-p", "127.0.0.1:3000:3000", "--entrypoint", "sleep", "api:1", "infinity")
    yield name
    docker("rm", "--force", name)
    standing_stack.compose("up", "--detach", "--wait", "--wait-timeout", "240")


def test_the_container_that_has_the_port_is_named(source: ComposeSource, somebody: str) -> None:
    with pytest.raises(EngineError) as failure:
        ComposeProject(read_project(source)).start(["api"], seconds=60)
    assert "port is already allocated" in failure.value.message
    assert failure.value.hint == f"{somebody} has port 3000: docker stop {somebody}."


def test_a_port_that_the_engine_keeps_and_no_container_has_is_freed_by_starting_the_engine_again(
    source: ComposeSource,
) -> None:
    said = with_who_has_the_port(source, EngineError(_KEPT))
    assert said.message == _KEPT
    assert "No container has port 3999" in (said.hint or "")
    assert "systemctl restart docker" in (said.hint or "")


def test_a_failure_for_another_reason_stays_as_it_is(source: ComposeSource) -> None:
    failure = EngineError("cannot start api: no such image")
    assert with_who_has_the_port(source, failure) is failure
