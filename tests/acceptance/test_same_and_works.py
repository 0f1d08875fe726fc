"""``recoup verify`` up to *works* for a PostgreSQL dump: what the data are, and what the plan wants of them."""

from __future__ import annotations

from typing import Any

import pytest

from recoup.demo.servers import PostgresServer
from tests.acceptance.workplace import Workplace

_CHECKS = (
    ", checks: [{name: orders are there, sql: 'SELECT count(*) FROM orders', at_least: 100},"
    " {name: in the other one, sql: 'SELECT count(*) FROM kept', equals: 1, database: OTHER}]"
)


@pytest.fixture
def shop(work: Workplace, postgres17: PostgresServer) -> tuple[str, str]:
    """Two databases of the plan, with data in them."""
    name, other = postgres17.new_database("shop"), postgres17.new_database("other")
    with postgres17.connect(name) as connection:
        connection.execute("CREATE TABLE orders (id serial PRIMARY KEY, note text)")
        connection.execute("CREATE TABLE invoices (LIKE orders)")
        connection.execute("INSERT INTO orders (note) SELECT 'order ' || g FROM generate_series(1, 100) g")
        connection.execute("INSERT INTO invoices SELECT * FROM orders")
    with postgres17.connect(other) as connection:
        connection.execute("CREATE TABLE kept (a int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    work.add_postgres(postgres17, name, other, more=_CHECKS.replace("OTHER", other))
    work.write_plan()
    return name, other


def verified(work: Workplace, copy: str, *arguments: str, expect: int = 0) -> tuple[str, list[dict[str, Any]]]:
    """The grade that was reached, and what was found that is not ok."""
    (artefact,) = work.json("verify", copy, "--grade", "works", *arguments, expect=expect)["artefacts"]
    return artefact["reached"], [one for one in artefact["findings"] if one["verdict"] != "ok"]


def test_a_good_dump_works_and_the_next_one_after_a_table_was_emptied_is_unknown(
    work: Workplace, postgres17: PostgresServer, shop: tuple[str, str]
) -> None:
    first = work.backup("postgres", "--kind", "dump")
    assert verified(work, first) == ("works", [])
    postgres17.execute("TRUNCATE invoices", shop[0])
    with postgres17.connect(shop[0]) as connection:
        connection.execute("DELETE FROM orders WHERE id > 40")
    second = work.backup("postgres", "--kind", "dump")
    reached, found = verified(work, second, expect=3)
    assert reached == "sound"
    assert [(one["verdict"], one["subject"]) for one in found] == [
        ("unknown", f'{shop[0]} "public"."invoices"'),
        ("unknown", f'{shop[0]} "public"."orders"'),
        ("failed", "orders are there"),
    ]
    assert f"100 rows were in {first}, none are there" in found[0]["detail"]
    assert "the answer is 40, and at least 100 was asked" in found[2]["detail"]
    work.add_postgres(postgres17, *shop)
    work.write_plan()
    assert "the plan has no checks for it" in work.recoup("check").out
