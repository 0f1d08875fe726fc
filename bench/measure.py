"""Runs a command as a whole process family and says how long it took and how much memory its largest process had."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to do the work. ``argv`` is a list, or a text for ``bash -o pipefail -c``; ``prepare`` is not timed."""

    name: str
    argv: Sequence[str] | str
    prepare: Callable[[], None] = lambda: None
    size: Callable[[], int] | None = None  #: bytes it left; a run that leaves none has not done the work
    environment: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One timed run."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    size_bytes: int


def run_once(contender: Contender, log: Path) -> Sample:
    """Prepare, then run and time. Raise ``RuntimeError`` with the end of the output when it fails."""
    contender.prepare()
    argv = ["bash", "-o", "pipefail", "-c", contender.argv] if isinstance(contender.argv, str) else contender.argv
    identity = {} if contender.user is None else {"user": contender.user, "group": contender.user, "extra_groups": []}
    with open(log, "wb") as output:
        begun = time.perf_counter()
        pid = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **contender.environment},
            **identity,
        )
        _, status, usage = os.wait4(pid.pid, 0)
        seconds = time.perf_counter() - begun
        pid.returncode = os.waitstatus_to_exitcode(status)
    if pid.returncode != 0:
        raise RuntimeError(f"{contender.name} failed ({pid.returncode}): {log.read_text(errors='replace')[-2000:]}")
    left = contender.size() if contender.size is not None else 0
    if contender.size is not None and left == 0:
        raise RuntimeError(f"{contender.name} ended well and left nothing: {log.read_text(errors='replace')[-2000:]}")
    # For a pipeline, wait4 of the shell gives the sum of its reaped children's time and the largest one's memory.
    return Sample(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss / 1024,
        size_bytes=left,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """All runs of one contender."""

    name: str
    samples: tuple[Sample, ...]

    @property
    def median_seconds(self) -> float:
        """The median of the wall-clock times."""
        return statistics.median(sample.seconds for sample in self.samples)

    def ratio_to(self, other: Series) -> tuple[float, float, float]:
        """This one's speed over ``other``'s, run by run: (lowest, median, highest). Above 1 is faster."""
        ratios = [theirs.seconds / ours.seconds for ours, theirs in zip(self.samples, other.samples, strict=True)]
        return min(ratios), statistics.median(ratios), max(ratios)


def interleave(contenders: Sequence[Contender], rounds: int, folder: Path, say: Callable[[str], None]) -> list[Series]:
    """Run the contenders in turn, ``rounds`` times, after one round that is not counted."""
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            sample = run_once(contender, folder / "output")
            say(f"  {'warm-up' if number == 0 else f'round {number}'}  {contender.name}: {sample.seconds:.2f} s")
            if number > 0:
                samples[contender.name].append(sample)
    return [Series(name=name, samples=tuple(found)) for name, found in samples.items()]


def largest_child_mib() -> float:
    """The peak memory of the largest child reaped so far, for a check of the figures above."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
