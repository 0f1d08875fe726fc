"""Making a repository: in an empty place, or where another run or a killed one has just begun to make it."""

from __future__ import annotations

import pytest

from recoup.kernel.errors import RefusedError
from recoup.repository import layout, stock_tools
from recoup.repository.repository import create_repository, open_repository
from recoup.repository.seal import Key
from recoup.storage.memory import MemoryStore

KEY = Key.from_text("4" * 64)


def test_what_was_begun_and_not_finished_is_made_whole_by_the_next_run() -> None:
    tools = stock_tools.files(KEY)
    for number in range(1, len(tools) + 1):
        store = MemoryStore()
        for name, text in list(tools.items())[:number]:
            store.put(name, text)
        made = create_repository("local", store, KEY)
        assert open_repository("local", store, KEY).identity == made.identity


@pytest.mark.parametrize("name", [layout.RESTORE_GUIDE, "holiday.jpg"])
def test_a_place_that_holds_something_else_is_refused_and_left_as_it_is(name: str) -> None:
    store = MemoryStore()
    store.put(name, b"mine")
    with pytest.raises(RefusedError, match=name):
        create_repository("local", store, KEY)
    assert [one.key for one in store.list()] == [name]
    assert store.get(name) == b"mine"
