"""Who starts before whom."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.inventory.order import CycleError, dependants, start_order, stop_order

SHOP = {"postgres": (), "redis": (), "api": ("postgres", "redis"), "frontend": ("api",), "admin": ("api",)}


def test_each_service_starts_after_those_it_needs_and_stops_before_them() -> None:
    assert start_order(SHOP) == ("postgres", "redis", "api", "frontend", "admin")
    assert stop_order(SHOP) == ("admin", "frontend", "api", "redis", "postgres")


def test_what_needs_a_database_is_stopped_before_it_is_restored_also_at_second_hand() -> None:
    assert dependants(["postgres"], SHOP) == ("admin", "frontend", "api")
    assert dependants(["api"], SHOP) == ("admin", "frontend")
    assert dependants(["admin"], SHOP) == ()
    assert dependants(["postgres", "api"], SHOP) == ("admin", "frontend")


def test_a_circle_is_named() -> None:
    with pytest.raises(CycleError, match="b → c → d → b"):
        start_order({"a": ("b",), "b": ("c",), "c": ("d",), "d": ("b",)})
    with pytest.raises(CycleError, match="a → a"):
        start_order({"a": ("a",)})


def test_a_name_that_is_no_service_is_passed_over() -> None:
    assert start_order({"api": ("somebody-else",)}) == ("api",)


def test_a_chain_longer_than_the_recursion_limit_is_ordered() -> None:
    chain = {str(number): (str(number + 1),) for number in range(3000)}
    assert start_order(chain)[0] == "2999"


@given(st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=4), max_size=12))
def test_an_order_respects_every_need_and_is_refused_only_when_there_is_a_circle(needs: dict[int, list[int]]) -> None:
    after = {str(name): tuple(map(str, others)) for name, others in needs.items()}
    reach = {name: {other for other in after[name] if other in after} for name in after}
    for middle, first in itertools.product(after, after):
        if middle in reach[first]:
            reach[first] |= reach[middle]
    if any(name in reach[name] for name in after):
        with pytest.raises(CycleError):
            start_order(after)
        return
    order = start_order(after)
    assert sorted(order) == sorted(after)
    assert all(order.index(other) < order.index(name) for name in after for other in after[name] if other in after)
