"""Runs commands in turn and says how long each took, and how much processor time and memory."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_RUNNER = Path(__file__).with_name("runner.py")
_TICKS = os.sysconf("SC_CLK_TCK")
_SETTLE_SECONDS = 2.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to do the work. ``argv`` is a list, or a text for ``bash -o pipefail -c``; ``prepare`` is not timed."""

    name: str
    argv: Sequence[str] | str
    prepare: Callable[[], None] = lambda: None
    size: Callable[[], int] | None = None  #: bytes it left; a run that leaves none has not done the work
    check: Callable[[], None] | None = None  #: raises unless the result is right; called after the first run
    environment: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    seconds: Callable[[], float] | None = None  #: what the command says the work took, when it ends later than that
    warm_up: bool = True  #: whether it runs in the round that does not count
    settle: bool = True  #: whether the disk comes to rest before it is timed

    def command(self) -> list[str]:
        """The arguments to start it with; the first is the program's path."""
        argv = ["bash", "-o", "pipefail", "-c", self.argv] if isinstance(self.argv, str) else list(self.argv)
        return [shutil.which(argv[0]) or argv[0], *argv[1:]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One timed run. ``server_cpu_seconds`` is what the database server used for it."""

    seconds: float
    cpu_seconds: float
    server_cpu_seconds: float
    peak_mib: float
    size_bytes: int


def run_once(contender: Contender, log: Path, server_pid: int | None = None) -> Sample:
    """Prepare, let the disk come to rest, then run and time. Raise ``RuntimeError`` when it fails."""
    contender.prepare()
    # What others have written and not yet synced would else be paid by the first one that syncs.
    if contender.settle:
        os.sync()
    children, before = _server(server_pid)
    user = "-1" if contender.user is None else str(contender.user)
    read_end, write_end = os.pipe()
    try:
        with open(log, "wb") as output:
            subprocess.run(
                [sys.executable, "-I", "-S", str(_RUNNER), str(write_end), user, *contender.command()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(contender),
                pass_fds=[write_end],
                check=True,
            )
        os.close(write_end)
        write_end = -1
        said = json.loads(os.read(read_end, 4096))
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
    if said["code"] != 0:
        raise RuntimeError(f"{contender.name} failed ({said['code']}): {log.read_text(errors='replace')[-2000:]}")
    left = contender.size() if contender.size is not None else 0
    if contender.size is not None and left == 0:
        raise RuntimeError(f"{contender.name} ended well and left nothing: {log.read_text(errors='replace')[-2000:]}")
    return Sample(
        seconds=said["seconds"] if contender.seconds is None else contender.seconds(),
        cpu_seconds=said["cpu_seconds"],
        server_cpu_seconds=_server_settled(server_pid, children) - before,
        peak_mib=said["peak_mib"],
        size_bytes=left,
    )


def _environment(contender: Contender) -> dict[str, str]:
    """As an installed program has it: Python may keep what it compiled, instead of compiling all of it in every run."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, **contender.environment}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """All counted runs of one contender."""

    name: str
    samples: tuple[Sample, ...]

    @property
    def median_seconds(self) -> float:
        """The median of the wall-clock times."""
        return statistics.median(sample.seconds for sample in self.samples)

    def ratio_to(self, other: Series) -> tuple[float, float, float]:
        """This one's speed over ``other``'s, round by round: (lowest, median, highest). Above 1 is faster."""
        return spread([theirs.seconds / ours.seconds for ours, theirs in zip(self.samples, other.samples, strict=True)])


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Lowest, median, highest."""
    return min(values), statistics.median(values), max(values)


def interleave(
    contenders: Sequence[Contender], rounds: int, folder: Path, say: Say, server_pid: int | None = None
) -> list[Series]:
    """Run the contenders in turn, ``rounds`` times, after one round that is not counted.

    Each round begins with another one, so that nobody always comes after the same neighbour.
    """
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    checked = set()
    for number in range(rounds + 1):
        turn = number % len(contenders)
        for contender in (*contenders[turn:], *contenders[:turn]):
            if number == 0 and not contender.warm_up:
                continue
            sample = run_once(contender, folder / "output", server_pid)
            say(f"  {'warm-up' if number == 0 else f'round {number}'}  {contender.name}: {sample.seconds:.2f} s")
            if contender.check is not None and contender.name not in checked:
                contender.check()
                checked.add(contender.name)
            if number > 0:
                samples[contender.name].append(sample)
    return [Series(name=name, samples=tuple(found)) for name, found in samples.items()]


def _server(pid: int | None) -> tuple[int, float]:
    """How many children a server has, and the processor time of it, of them, and of all that have ended."""
    if pid is None:
        return 0, 0.0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for one in (str(pid), *children):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        # proc(5): utime, stime, and those of the children waited for are fields 14 to 17; the name ended field 2.
        ticks += sum(int(value) for value in fields[11:15])
    return len(children), ticks / _TICKS


def _server_settled(pid: int | None, children: int) -> float:
    """The server's processor time once it has reaped the processes that served the command."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        now, seconds = _server(pid)
        if now <= children or time.monotonic() > deadline:
            return seconds
        time.sleep(0.01)
