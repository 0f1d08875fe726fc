"""Digests in sha256sum's form, for every name a file can have."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.files.sums import read_sums, sum_line
from recoup.kernel.errors import DamageError

NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name).map(os.fsdecode)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(st.lists(st.tuples(NAMES, DIGESTS)), st.integers(1, 50))
def test_every_name_comes_back_however_the_bytes_are_cut(rows: list[tuple[str, str]], cut: int) -> None:
    data = b"".join(sum_line(name, digest) for name, digest in rows)
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    assert list(read_sums(pieces, "x")) == rows


@given(st.binary(max_size=300))
def test_any_bytes_are_read_exactly_or_refused_as_damage(data: bytes) -> None:
    try:
        rows = list(read_sums([data], "x"))
    except DamageError:
        return
    # What was read names the same files again, whichever of two spellings stood there.
    assert list(read_sums([b"".join(sum_line(name, digest) for name, digest in rows)], "x")) == rows


@pytest.mark.parametrize("name", ["plain", "two words", "line\nfeed", "back\\slash", "return\r", "\\", "ü", "a\\nb"])
def test_sha256sum_writes_the_same_lines(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(name)
    said = subprocess.run(["sha256sum", "--", name], cwd=tmp_path, capture_output=True, check=True).stdout
    ((path, digest),) = read_sums([said], "x")
    assert path == name
    assert sum_line(path, digest) == said
