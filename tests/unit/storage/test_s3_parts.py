"""How S3 uploads are cut: within the limits of the protocol, for any size and any wrong estimate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.storage.s3_upload import (
    MAXIMUM_PART_BYTES,
    MAXIMUM_PARTS,
    MEBIBYTE,
    MINIMUM_PART_BYTES,
    part_bytes,
    size_of_part,
)

LARGEST_OBJECT = 5 << 40
TEBIBYTE = 1 << 40


@given(st.integers(min_value=0, max_value=LARGEST_OBJECT))
def test_the_expected_bytes_fit_twice_into_equal_parts(expected: int) -> None:
    size = part_bytes(expected)
    assert MINIMUM_PART_BYTES <= size <= MAXIMUM_PART_BYTES
    assert size % MEBIBYTE == 0
    equal = sum(1 for number in range(1, MAXIMUM_PARTS + 1) if size_of_part(number, size) == size)
    assert equal * size >= 2 * expected


@pytest.mark.parametrize("expected", [None, 0, 1, 100 << 30])
def test_ten_thousand_parts_hold_many_times_a_wrong_estimate(expected: int | None) -> None:
    steady = part_bytes(expected)
    sizes = [size_of_part(number, steady) for number in range(1, MAXIMUM_PARTS + 1)]
    assert sizes == sorted(sizes)
    assert max(sizes) <= MAXIMUM_PART_BYTES
    assert sum(sizes) >= max(TEBIBYTE, 30 * (expected or 0))


@pytest.mark.parametrize("expected", [None, 0, 1 << 30, 32 << 30])
def test_parts_of_ordinary_objects_are_small(expected: int | None) -> None:
    assert part_bytes(expected) <= 16 * MEBIBYTE
