"""A plan that is written loads again, says what was guessed, and holds no secret."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.kernel.errors import Exit, PlanError, UsageError
from recoup.plan.document import parse
from recoup.plan.guess import GuessedService, Inventory, UnprotectedVolume
from recoup.plan.load import parse_plan
from recoup.plan.services import FilesService, PostgresService, RedisService
from recoup.plan.urls import inventory_of_urls
from recoup.plan.write import Choices, plan_text, scalar

SHOP = Inventory(
    system="shop",
    services=(
        GuessedService(
            name="api",
            engine="compose",
            compose="api",
            health="http://127.0.0.1:3000/health",
            after=("postgres", "redis"),
            reasons=("it has a health check",),
        ),
        GuessedService(
            name="postgres",
            engine="postgres",
            compose="postgres",
            image="postgres:15-alpine",
            databases=("shop",),
            reasons=("the image is PostgreSQL's",),
        ),
        GuessedService(
            name="redis", engine="redis", compose="redis", image="redis:7", password_template="${REDIS_PASSWORD}"
        ),
        GuessedService(name="configuration", engine="files", paths=("compose.yaml", ".env"), git="."),
    ),
    compose_files=("compose.yaml",),
    env_files=(".env",),
    profiles=("production",),
    unprotected=(UnprotectedVolume(volume="uploads", used_by=("api",), reason="a named volume"),),
    notes=("Nothing published is bound to loopback only.",),
)


def test_a_written_plan_loads_with_what_was_found_in_the_order_of_recovery() -> None:
    plan = parse_plan(plan_text(SHOP, Choices()))
    assert list(plan.services) == ["postgres", "redis", "configuration", "api"]
    postgres, redis, configuration, api = plan.services.values()
    assert isinstance(postgres, PostgresService)
    assert [one.text for one in postgres.databases] == ["shop"]
    assert isinstance(redis, RedisService)
    assert redis.password is not None
    assert redis.password.variables == ("REDIS_PASSWORD",)
    assert isinstance(configuration, FilesService)
    assert api.after == ("postgres", "redis")
    assert plan.compose is not None
    assert plan.compose.profiles == ("production",)
    assert plan.key.file is not None


def test_each_guess_has_its_reason_and_each_gap_its_warning_in_a_comment() -> None:
    text = plan_text(SHOP, Choices())
    assert "# image postgres:15-alpine; the image is PostgreSQL's" in text
    assert "# it has a health check" in text
    assert "# NOT PROTECTED: uploads (used by api): a named volume" in text
    assert "# Nothing published is bound to loopback only." in text
    assert "# yaml-language-server: $schema=recoup.schema.json" in text
    assert max(map(len, text.splitlines())) <= 120


def test_repositories_are_named_and_the_first_given_is_primary() -> None:
    text = plan_text(SHOP, Choices(repositories=("s3://bucket/shop", "/mnt/a b", "/mnt/$x")))
    plan = parse_plan(text)
    assert list(plan.repositories) == ["offsite", "local", "local-2"]
    assert plan.repositories["local-2"].path is not None
    assert plan.repositories["local-2"].path.expand(lambda _name: None) == "/mnt/$x"


def test_a_plan_that_would_not_load_is_not_written() -> None:
    with pytest.raises(PlanError, match="not an address of a repository"):
        plan_text(SHOP, Choices(repositories=("s3://UPPER CASE",)))


LITERAL = st.text(max_size=20)
NAME = st.text(min_size=1, max_size=20)


@settings(deadline=None, max_examples=150)
@given(
    st.builds(
        Inventory,
        system=LITERAL,
        services=st.lists(
            st.builds(
                GuessedService,
                name=NAME,
                engine=st.just("postgres"),
                compose=st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=9),
                image=st.none() | LITERAL,
                databases=st.lists(NAME, max_size=2).map(tuple),
                after=st.lists(NAME, max_size=2).map(tuple),
                reasons=st.lists(LITERAL, max_size=2).map(tuple),
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda service: service.name,
        ).map(tuple),
        compose_files=st.lists(NAME, min_size=1, max_size=2).map(tuple),
        env_files=st.lists(NAME, max_size=2).map(tuple),
        notes=st.lists(LITERAL, max_size=2).map(tuple),
    )
)
def test_whatever_was_found_the_written_plan_loads_with_exactly_that(inventory: Inventory) -> None:
    plan = parse_plan(plan_text(inventory, Choices()))
    written = sorted(
        tuple(one.expand(lambda _n: None) for one in s.databases)
        for s in plan.services.values()
        if isinstance(s, PostgresService)
    )
    assert written == sorted(service.databases for service in inventory.services)
    assert plan.compose is not None
    assert [one.expand(lambda _name: None) for one in plan.compose.all_files()] == list(inventory.compose_files)


@given(st.text())
def test_any_text_is_written_as_a_value_that_reads_back_as_itself(text: str) -> None:
    assert parse(f"a: {scalar(text)}\n").value == {"a": text}
    assert parse(f"[{scalar(text)}, {scalar(text)}]").value == [text, text]


def test_a_password_in_an_address_becomes_a_reference_and_is_named() -> None:
    inventory, variables = inventory_of_urls(
        "shop", ("postgresql://u:s3cret@h:5432/shop", "postgresql://v@h2/b"), ("redis://:t0psecret@h/0",)
    )
    text = plan_text(inventory, Choices())
    assert "s3cret" not in text
    assert "t0psecret" not in text
    assert [one.name for one in variables] == ["POSTGRES_PASSWORD", "REDIS_PASSWORD"]
    plan = parse_plan(text)
    assert [str(s.url) for s in plan.databases().values()] == [
        "postgresql://u:${POSTGRES_PASSWORD}@h:5432/shop",
        "postgresql://v@h2/b",
        "redis://:${REDIS_PASSWORD}@h/0",
    ]
    assert list(plan.services) == ["postgres", "postgres-2", "redis"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3/cret@h/x",
        "postgresql://u:1/s3cret@h/x",
        "postgresql://u:s3#cret@h/x",
        "postgresql://u:12?s3cret@h/x",
        "mysql://u:s3cret@h/x",
        "host=h password=s3cret",
        "postgresql://u:s3cret @h",
    ],
)
def test_an_address_whose_password_could_hide_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError, match="what --postgres was given is not an address") as caught:
        inventory_of_urls("shop", (url,), ())
    assert caught.value.exit_code == Exit.USAGE
    assert "cret" not in caught.value.message + str(caught.value.hint)
