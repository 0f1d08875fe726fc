"""What a run found, as Markdown for people and as JSON for comparisons."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.measure import Series

_MIB = 1 << 20
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A bar that was set before measuring, and how this run stands to it."""

    bar: str
    met: bool
    found: str

    def line(self) -> str:
        """For the report."""
        return f"- {'**met**' if self.met else '**missed**'} – bar: {self.bar}. Found: {self.found}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the bench: its table, its bars, its numbers."""

    name: str
    about: str
    table: Sequence[str]
    bars: Sequence[Judged]
    data: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=tuple)


def at_least(bar: str, wanted: float, ratios: tuple[float, float, float]) -> Judged:
    """Judge a ratio by its median, and say so when single rounds stand otherwise."""
    low, middle, high = ratios
    met = middle >= wanted
    found = f"{middle:.2f} ({low:.2f} to {high:.2f})"
    if not met:
        found += f", {100 * (1 - middle / wanted):.0f} % short of {wanted:g}"
    if met and low < wanted:
        found += f"; not in every round: {low:.2f} is below {wanted:g}"
    if not met and high >= wanted:
        found += f"; but {high:.2f} in the best round"
    return Judged(bar=bar, met=met, found=found)


def speed_table(series: Sequence[Series]) -> list[str]:
    """A row for each contender; ratios are to the first."""
    ours = series[0]
    lines = [
        "| contender | median s | min–max s | CPU s | server's CPU s | peak MiB | left MiB | time by Recoup's |",
        "| --- | --: | --: | --: | --: | --: | --: | --- |",
    ]
    for one in series:
        times = [sample.seconds for sample in one.samples]
        low, middle, high = ours.ratio_to(one)
        cpu = statistics.median(sample.cpu_seconds for sample in one.samples)
        server = statistics.median(sample.server_cpu_seconds for sample in one.samples)
        peak = max(sample.peak_mib for sample in one.samples)
        left = one.samples[-1].size_bytes / _MIB
        ratio = "–" if one is ours else f"{low:.2f} / **{middle:.2f}** / {high:.2f}"
        lines.append(
            f"| {one.name} | {one.median_seconds:.2f} | {min(times):.2f}–{max(times):.2f} | {cpu:.2f} | {server:.2f} "
            f"| {peak:.0f} | {left:.0f} | {ratio} |"
        )
    return lines


def speed_data(series: Sequence[Series]) -> dict[str, Any]:
    """Every sample of every contender."""
    return {one.name: [asdict(sample) for sample in one.samples] for one in series}


def surroundings() -> dict[str, str]:
    """The machine and the programs. ``load before`` tells whether others were using it."""
    found = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
    }
    for name, argv in {
        "pgbackrest": ["pgbackrest", "version"],
        "zstd": ["zstd", "--version"],
        "openssl": ["openssl", "version"],
    }.items():
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        words = [word.strip("v,") for word in said.split() if any(letter.isdigit() for letter in word)]
        found[name] = next((word for word in words if "." in word), said.strip())
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write(parts: Sequence[Part], machine: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """Write ``results/<time>.md`` and ``.json``, and return the text."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    text = [f"# Bench {stamp}", "", ", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    text += ["Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()), ""]
    cores = os.cpu_count() or 1
    if float(machine["load before"]) > 0.25 * cores:
        text += ["**The machine was not idle when this began: do not compare these numbers with others.**", ""]
    for part in parts:
        text += [f"## {part.name}", "", part.about, "", *part.table, ""]
        text += [*(judged.line() for judged in part.bars), *(f"- {note}" for note in part.notes), ""]
    text += ["How to read this, and what each contender does and does not do: `docs/benchmarks.md`.", ""]
    document = {
        "schema": "recoup-bench/2",
        "taken": stamp,
        "machine": dict(machine),
        "settings": dict(settings),
        "parts": {part.name: {"bars": [asdict(judged) for judged in part.bars], "data": part.data} for part in parts},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{stamp}.md").write_text("\n".join(text))
    (RESULTS / f"{stamp}.json").write_text(json.dumps(document, indent=1) + "\n")
    return "\n".join(text)
