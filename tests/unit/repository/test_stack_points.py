"""Stack points: names, what is written and read back, and that retention keeps a point and its copies together."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel import ids
from recoup.kernel.errors import DamageError, RefusedError, UnknownFormatError, UsageError
from recoup.repository.catalog import read_catalog
from recoup.repository.manifest import Manifest
from recoup.repository.repository import Repository, open_or_create
from recoup.repository.retention import Copy, Proof, Rules, Snapshot, decide, removal_order
from recoup.repository.seal import Key
from recoup.repository.stack_points import (
    StackMember,
    apart,
    check_name,
    header_of,
    read_point,
    refuse_taken,
    write_point,
)
from recoup.storage.memory import MemoryStore

_NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
_MEMBERS = (
    StackMember(
        service="postgres",
        kind="base",
        artefact="20261123-020000-aaaaaa",
        way="copy",
        moment=_NOW,
        earliest=_NOW - timedelta(milliseconds=30),
        position={"lsn": "0/2000120", "timeline": 1},
    ),
    StackMember(
        service="redis",
        kind="rdb",
        artefact="20261123-020001-bbbbbb",
        way="copy",
        moment=_NOW + timedelta(milliseconds=266),
        earliest=_NOW + timedelta(milliseconds=1),
        position={"offset": 4711},
    ),
)


def _repository() -> Repository:
    return open_or_create("local", MemoryStore(), Key.from_text("00c0ffee" * 8))


def _written(repository: Repository, name: str = "before-2.4") -> Manifest:
    images = [{"service": "api", "image": "api:1", "image_id": "sha256:1"}]
    header = header_of(name, "Shop", _NOW)
    outcome = write_point(_MEMBERS, [repository], header, images=images, left_out=[("api", "holds no data")])
    return repository.manifest(outcome.manifest.id)


def test_a_point_is_read_as_it_was_written_and_depends_on_its_copies(tmp_path: Path) -> None:
    repository = _repository()
    manifest = _written(repository)
    point = read_point(manifest)
    assert point.name == "before-2.4"
    assert point.members == _MEMBERS
    assert point.apart == timedelta(milliseconds=296)
    assert manifest.facts["apart_ms"] == 296
    assert manifest.depends_on == tuple(one.artefact for one in _MEMBERS)
    assert point.left_out == (("api", "holds no data"),)
    catalog = read_catalog([repository], tmp_path)
    assert catalog.find("before-2.4", kinds=("stack",)).id == point.id
    assert catalog.find("latest", service="stack").id == point.id
    with pytest.raises(UsageError):
        catalog.find("latest")  # a point is not what `latest` means where copies are asked for
    with pytest.raises(UsageError):
        catalog.find("before-2.4")
    with pytest.raises(RefusedError, match="already"):
        refuse_taken("before-2.4", catalog)
    refuse_taken("before-2.5", catalog)


def test_how_far_apart_two_states_are_is_the_most_that_their_times_allow() -> None:
    postgres, redis = _MEMBERS
    late = replace(postgres, moment=_NOW + timedelta(seconds=9))
    assert apart([redis, late]) == timedelta(seconds=9) - timedelta(milliseconds=1)
    unequal = replace(redis, moment=_NOW + timedelta(microseconds=970_001))
    assert apart([postgres, unequal]) == timedelta(milliseconds=1001), "rounded up"
    files = replace(late, kind="files", earliest=_NOW - timedelta(days=1))
    assert apart([postgres, files]) is None
    assert apart([postgres, files, redis]) == timedelta(milliseconds=296)


def test_a_point_of_before_the_earliest_time_was_noted_is_read() -> None:
    manifest = _written(_repository())
    members = [{name: said for name, said in one.items() if name != "earliest"} for one in manifest.facts["members"]]
    point = read_point(replace(manifest, facts={**manifest.facts, "members": members}))
    assert point.apart == timedelta(milliseconds=266)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"recoup_stack": 2}, UnknownFormatError),
        ({"recoup_stack": None}, UnknownFormatError),
        ({"members": []}, DamageError),
        ({"members": [{"service": "x"}]}, DamageError),
        ({"members": 7}, DamageError),
        ({"images": None}, DamageError),
    ],
)
def test_what_recoup_does_not_write_is_refused(changed: dict[str, Any], error: type[Exception]) -> None:
    manifest = _written(_repository())
    with pytest.raises(error):
        read_point(replace(manifest, facts={**manifest.facts, **changed}))


def test_members_that_are_not_what_the_point_depends_on_are_refused() -> None:
    manifest = _written(_repository())
    with pytest.raises(DamageError, match="depends on"):
        read_point(replace(manifest, depends_on=manifest.depends_on[:1]))


@given(st.text(max_size=80))
def test_a_name_is_plain_and_short_or_refused(name: str) -> None:
    plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}", name) is not None
    if plain and name not in ("latest", "replaced") and not ids.is_id(name):
        assert check_name(name) == name
    else:
        with pytest.raises(UsageError):
            check_name(name)


@pytest.mark.parametrize(
    "name", ["../../etc", "a b", "", "x" * 64, "latest", "replaced", "é", "a\nb", "-x", ".", "20261123-020000-k7f3q2"]
)
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_name(name)
    assert refused.value.hint


def test_what_a_kept_point_names_is_kept_and_an_expired_point_goes_before_its_copies() -> None:
    copies, points = [], []
    for day in range(10):
        begun = _NOW + timedelta(days=day)
        members = []
        for service, kind in (("postgres", "base"), ("redis", "rdb")):
            copy = _copy(f"{kind}-{day}", service, kind, begun)
            copies.append(copy)
            members.append(copy.id)
        if day % 3 == 0:
            points.append(replace(_copy(f"stack-{day}", "stack", "stack", begun), depends_on=tuple(members)))
    rules = {name: Rules(counts={"daily": 2}, minimum=1) for name in ("postgres", "redis", "stack")}
    now = _NOW + timedelta(days=10)
    decisions = decide(Snapshot(copies=[*copies, *points], rules=rules, now=now))
    kept = {one.copy.id for one in decisions if one.keep}
    assert {"stack-9", "stack-6", "base-6", "rdb-6", "base-9", "rdb-9", "base-8", "rdb-8"} == kept
    order = [one.id for one in removal_order(decisions)]
    for point in points:
        if point.id in order:
            assert all(order.index(point.id) < order.index(member) for member in point.depends_on)


def _copy(identifier: str, service: str, kind: str, begun: datetime) -> Copy:
    ended = begun + timedelta(minutes=1)
    return Copy(id=identifier, service=service, kind=kind, begun=begun, ended=ended, proof=Proof.GOOD)
