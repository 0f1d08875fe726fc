"""The workplace of the tests that call ``recoup`` as a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.workplace import Workplace, new_workplace


@pytest.fixture
def work() -> Iterator[Workplace]:
    """A folder to call ``recoup`` in: a key, one repository, no services yet."""
    with new_workplace() as place:
        yield place
