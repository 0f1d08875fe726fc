"""Whom to be in the databases of a stack, as its Compose file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recoup.engines.compose.accounts import postgres_account, redis_password
from recoup.engines.compose.docker import ComposeSource
from recoup.engines.compose.project import ComposeService, parse_project
from recoup.kernel.errors import EngineError
from recoup.kernel.process import LocalRunner
from recoup.kernel.secret import Secret


def service(tmp_path: Path, body: dict[str, Any], secrets: dict[str, Any] | None = None) -> ComposeService:
    """A service from the document that ``docker compose config --format json`` writes."""
    resolved = {"name": "x", "services": {"one": body}, "secrets": secrets or {}}
    return parse_project(resolved, {}, ComposeSource(files=(tmp_path / "compose.yaml",))).services["one"]


@pytest.mark.parametrize(
    ("body", "password"),
    [
        ({"command": ["redis-server", "--requirepass", "pa$$s word"]}, "pa$s word"),
        ({"command": ["redis-server", "--requirepass=p"]}, "p"),
        (
            {
                "command": ["sh", "-c", 'redis-server --requirepass "$$PASS" --appendonly yes'],
                "environment": {"PASS": "e"},
            },
            "e",
        ),
        ({"command": ["sh", "-c", "redis-server --requirepass ${PASS}"], "environment": {"PASS": "e"}}, "e"),
        ({"environment": {"REDIS_ARGS": "--requirepass r --save 60 1"}}, "r"),
        ({"environment": {"REDIS_PASSWORD": "b"}}, "b"),
        ({"command": ["redis-server"]}, None),
        ({"command": ["redis-server", "--requirepass", ""]}, None),
    ],
)
def test_the_password_of_a_redis_is_found(tmp_path: Path, body: dict[str, Any], password: str | None) -> None:
    assert redis_password(service(tmp_path, body)) == (None if password is None else Secret(password))


def test_the_account_of_a_postgres_is_that_of_its_environment_or_the_images_default(tmp_path: Path) -> None:
    named = postgres_account(
        service(tmp_path, {"environment": {"POSTGRES_USER": "u", "POSTGRES_DB": "d", "POSTGRES_PASSWORD": "p"}})
    )
    assert (named.user, named.database, named.password) == ("u", "d", Secret("p"))
    plain = postgres_account(service(tmp_path, {}))
    assert (plain.user, plain.database, plain.password) == ("postgres", "postgres", None)


def test_a_password_file_is_read_on_the_host_and_named_when_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("from the file\n")
    body = {"environment": {"POSTGRES_PASSWORD_FILE": "/run/secrets/db"}, "secrets": [{"source": "db"}]}
    account = postgres_account(service(tmp_path, body, {"db": {"file": str(tmp_path / "pw")}}))
    assert account.password == Secret("from the file")
    with pytest.raises(EngineError, match="cannot read the password of one in"):
        postgres_account(service(tmp_path, body, {"db": {"file": str(tmp_path / "none")}}))
    with pytest.raises(EngineError, match="only its container has"):
        postgres_account(service(tmp_path, {"environment": {"POSTGRES_PASSWORD_FILE": "/in/the/image"}}))


def test_a_password_file_that_only_the_container_has_is_read_in_there(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("pa ss\n")
    body = {"environment": {"POSTGRES_PASSWORD_FILE": str(tmp_path / "pw")}}
    assert postgres_account(service(tmp_path, body), LocalRunner()).password == Secret("pa ss")
    listed = {"environment": {"REDIS_PASSWORD_FILE": str(tmp_path / "pw")}, "secrets": [{"source": "db"}]}
    unreadable = service(tmp_path, {**listed}, {"db": {"file": "/root/none"}})
    assert redis_password(unreadable, LocalRunner()) == Secret("pa ss")
    missing = {"environment": {"POSTGRES_PASSWORD_FILE": str(tmp_path / "none")}}
    with pytest.raises(EngineError, match="inside its container"):
        postgres_account(service(tmp_path, missing), LocalRunner())
