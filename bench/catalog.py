"""``recoup status`` and ``recoup list`` before ten thousand artefacts: four years of a plan that forgets nothing.

One copy is really taken; the others are made from it: a manifest of their own, sealed with the plan's key, and objects
with the same bytes. They are written without syncing, which no command that reads them can tell.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.measure import Contender, Say, Series, interleave, run_once, spread
from bench.report import Judged, Part, speed_data
from recoup.assembly.system import System
from recoup.kernel import ids
from recoup.repository import layout
from recoup.repository.manifest import Manifest, serialise
from recoup.repository.repository import Repository

_BAR_SECONDS = 0.5
_KEY = "0f" * 32
_GAP = timedelta(hours=3, minutes=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What one artefact in some is: the services of the plan take turns."""

    service: str
    engine: str
    kind: str
    facts: Mapping[str, Any]


_KINDS = (
    _Kind(service="postgres", engine="postgres", kind="base", facts={"start_lsn": "3/2A000028", "timeline": 1}),
    _Kind(service="postgres", engine="postgres", kind="dump", facts={"server_version": "15.14"}),
    _Kind(service="uploads", engine="files", kind="files", facts={}),
)


def measure_catalog(artefacts: int, rounds: int, work: Path, say: Say) -> Part:
    """Make the artefacts, then time the commands as a shell starts them, and once without the cache."""
    work.mkdir()
    plan = _plan(work)
    say(f"  making {artefacts} artefacts")
    run_once(_command("first copy", plan, "backup uploads"), work / "output")
    made = _make(plan, artefacts)
    state = work / "state"
    fresh = replace(_command("recoup list, without the cache", plan, "list"), prepare=lambda: _gone(state))
    cold = Series(name=fresh.name, samples=(run_once(fresh, work / "output"),))
    say(f"  {cold.name}: {cold.median_seconds:.2f} s")
    commands = [
        _command("recoup status", plan, "status"),
        _command("recoup list", plan, "list"),
        _command("recoup status --json", plan, "status --json"),
        _command("recoup list -n 0: all of them", plan, "list -n 0"),
        Contender(name="recoup --version", argv=[sys.executable, "-m", "recoup.cli", "--version"]),
    ]
    series = interleave(commands, rounds, work, say)
    _check(work, plan, artefacts)
    return Part(
        name="catalog",
        about=f"{artefacts} artefacts of {made} days in one local repository; {rounds} rounds, interleaved.",
        table=_table([*series, cold]),
        bars=[_within(one) for one in series[:2]],
        notes=(
            "Seconds are those of the whole command, the start of Python included: see `recoup --version`.",
            "Without the cache every manifest is read and authenticated: once on a new machine.",
        ),
        data=speed_data([*series, cold]),
    )


def _plan(work: Path) -> Path:
    """A plan of two services. Nothing listens at the address of the database: neither command asks it."""
    (work / "key").write_text(_KEY + "\n")
    (work / "key").chmod(0o600)
    (work / "uploads").mkdir()
    (work / "uploads" / "one.txt").write_text("a file\n" * 100)
    plan = work / "recoup.yaml"
    plan.write_text(
        f"recoup: 1\nsystem: catalog\nkey: {{file: {work}/key}}\nrepositories:\n  local: {{path: {work}/recoup}}\n"
        "services:\n  postgres: {engine: postgres, url: 'postgresql://postgres@127.0.0.1:1/postgres'}\n"
        f"  uploads: {{engine: files, paths: [{work}/uploads]}}\n"
    )
    return plan


def _command(name: str, plan: Path, arguments: str) -> Contender:
    """A command of Recoup. What it finds wrong (exit codes 3 and 4) is no failure here: nothing of this is proven."""
    words = f"{sys.executable} -m recoup.cli {arguments} -f {plan}"
    return Contender(
        name=name, argv=f"{words}; code=$?; test $code -eq 0 -o $code -eq 3 -o $code -eq 4",
        environment={"RECOUP_STATE": str(plan.parent / "state")},
    )  # fmt: skip


def _make(plan: Path, artefacts: int) -> int:
    """Multiply the one copy there is; how many days they cover."""
    (repository,) = System.from_file(plan).open_some(only="local").repositories
    folder = plan.parent / "recoup"
    (first,) = (layout.artefact_id_of(info.key) for info in repository.store.list(layout.MANIFESTS))
    assert first is not None
    pattern = repository.manifest(first)
    objects = {one.key: (folder / one.key).read_bytes() for one in pattern.objects}
    indexes = {one.index.key: (folder / one.index.key).read_bytes() for one in pattern.objects}
    now = datetime.now(UTC)
    for number in range(1, artefacts):
        begun = now - number * _GAP
        _plant(folder, repository, pattern, objects | indexes, _KINDS[number % len(_KINDS)], begun)
    return (artefacts * _GAP).days


def _plant(
    folder: Path, repository: Repository, pattern: Manifest, content: Mapping[str, bytes], kind: _Kind, begun: datetime
) -> None:
    identifier = ids.new_id(begun)
    place = layout.artefact_folder(kind.service, kind.kind, identifier)

    def own(key: str) -> str:
        return f"{place.rstrip('/')}/{key.rsplit('/', 1)[-1]}"

    (folder / place).mkdir(parents=True)
    for key, data in content.items():
        (folder / own(key)).write_bytes(data)
    objects = tuple(
        replace(one, key=own(one.key), index=replace(one.index, key=own(one.index.key))) for one in pattern.objects
    )
    manifest = replace(
        pattern, id=identifier, service=kind.service, engine=kind.engine, kind=kind.kind, facts=kind.facts,
        begun=begun, ended=begun + timedelta(minutes=4), objects=objects,
    )  # fmt: skip
    (folder / layout.manifest_key(identifier)).write_bytes(serialise(manifest, repository.key))


def _gone(state: Path) -> None:
    shutil.rmtree(state, ignore_errors=True)


def _check(work: Path, plan: Path, artefacts: int) -> None:
    """A command that overlooks artefacts is fast and wrong."""
    run_once(_command("recoup list --json -n 0", plan, "list --json -n 0"), work / "output")
    found = (work / "output").read_text().count('"begun"')
    if found != artefacts:
        raise RuntimeError(f"`recoup list` knows {found} artefacts of {artefacts}")


def _table(series: list[Series]) -> list[str]:
    lines = ["| command | median s | min–max s | CPU s | peak MiB |", "| --- | --: | --: | --: | --: |"]
    for one in series:
        low, middle, high = spread([sample.seconds for sample in one.samples])
        cpu = statistics.median(sample.cpu_seconds for sample in one.samples)
        peak = max(sample.peak_mib for sample in one.samples)
        lines.append(f"| {one.name} | {middle:.2f} | {low:.2f}–{high:.2f} | {cpu:.2f} | {peak:.0f} |")
    return lines


def _within(one: Series) -> Judged:
    low, middle, high = spread([sample.seconds for sample in one.samples])
    found = f"{middle:.2f} s ({low:.2f} to {high:.2f})"
    return Judged(bar=f"{one.name} within {_BAR_SECONDS} s", met=middle <= _BAR_SECONDS, found=found)
