"""What commands print: plain aligned text, one JSON document, progress. Results go to stdout, all else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO, cast

from recoup.engines.engine import Progress, ProgressListener
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError
from recoup.kernel.units import show_size

_SECONDS_BETWEEN_LINES = 30.0


class OutputFailedError(RecoupError):
    """The output could not be written: its disk is full, or it is closed."""


class OutputGoneError(RecoupError):
    """The reader of the output is gone, as after ``| head``. Nothing is to be said to anyone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How one command speaks. With ``json``, stdout gets exactly one document and nothing else."""

    json: bool = False
    quiet: bool = False

    def line(self, text: str = "") -> None:
        """A line of the result. Not printed with ``--json``."""
        if not self.json:
            write_out(clean(text, keep_newlines=True) + "\n")

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table of the result. Not printed with ``--json``."""
        if not self.json:
            write_out(format_table(headings, rows))

    def document(self, schema: str, content: Mapping[str, Any]) -> None:
        """The result as JSON, with ``"schema": "recoup.<schema>/1"`` first. Only printed with ``--json``."""
        if self.json:
            write_out(to_json({"schema": f"recoup.{schema}/1", **content}))

    def note(self, text: str) -> None:
        """A remark that is no result, to stderr. Not printed with ``--quiet``."""
        if not self.quiet:
            write_error(clean(text, keep_newlines=True) + "\n")

    @contextlib.contextmanager
    def progress(self) -> Iterator[ProgressListener]:
        """A listener that shows how long work comes along: bars on a terminal, a line now and then elsewhere."""
        if self.quiet:
            yield _silent
        elif sys.stderr.isatty() and not self.json:
            with _bars() as listener:
                yield listener
        else:
            yield progress_lines(write_error)


def progress_lines(write: Callable[[str], None]) -> ProgressListener:
    """A listener that writes a line now and then for each thing. ``write`` takes whole lines, and is in any thread."""
    return _Lines(write)


def to_json(document: Mapping[str, Any]) -> str:
    """One JSON document as text. Only ASCII, so that any terminal, pipe and file can hold it."""
    return json.dumps(document, indent=2, default=str) + "\n"


def clean(text: str, *, keep_newlines: bool = False) -> str:
    """``text`` without control characters: names come from outside, and a terminal obeys what it is sent."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or (keep_newlines and c == "\n") else _visible(c) for c in text)


def _visible(character: str) -> str:
    return character.encode("unicode_escape").decode()


def format_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned with two spaces between them, numbers to the right, never wrapped. Ends with a newline."""
    cells = [[clean("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(headings), *cells]) for at in range(len(headings))]
    right = [bool(rows) and all(isinstance(row[at], int | float) for row in rows) for at in range(len(headings))]
    lines = []
    for row in [list(headings), *cells]:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"


def write_out(text: str) -> None:
    """Write to stdout, with what its encoding cannot hold replaced."""
    sys.stdout.write(_encodable(text, sys.stdout.encoding))


def write_error(text: str) -> None:
    """Write to stderr at once."""
    sys.stderr.write(_encodable(text, sys.stderr.encoding))
    sys.stderr.flush()


class _Guard:
    """Stdout whose failures are told apart from those of every other file and pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _translating():
            return self._stream.write(text)

    def flush(self) -> None:
        with _translating():
            self._stream.flush()


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as gone:
        raise OutputGoneError("the reader of the output is gone") from gone
    except (OSError, ValueError) as failure:
        raise OutputFailedError(
            f"cannot write the output: {getattr(failure, 'strerror', None) or failure}"
        ) from failure


@contextlib.contextmanager
def guarded_stdout() -> Iterator[TextIO]:
    """While inside, ``sys.stdout`` raises ``OutputGoneError`` and ``OutputFailedError`` and no ``OSError``."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (``>&-``): the work is done all the same
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives as long as we do
    original = sys.stdout
    guard = cast(TextIO, _Guard(original))
    sys.stdout = guard
    try:
        yield guard
    finally:
        sys.stdout = original
        try:
            original.flush()
        except (OSError, ValueError):
            # said already; Python would flush once more when it ends, and complain
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), original.fileno())


def _encodable(text: str, encoding: str | None) -> str:
    name = encoding or "utf-8"
    return text.encode(name, "backslashreplace").decode(name)


def _silent(_progress: Progress, /) -> None:
    return None


class _Lines:
    """Progress as plain lines, at most one for each thing every thirty seconds: readable in a log."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}

    def __call__(self, progress: Progress, /) -> None:
        now = clock.monotonic()
        with self._lock:
            if now - self._last.setdefault(progress.what, now) < _SECONDS_BETWEEN_LINES:
                return
            self._last[progress.what] = now
        of = "" if progress.total_bytes is None else f" of about {show_size(progress.total_bytes)}"
        with contextlib.suppress(OSError):  # a listener must never raise; the work goes on without its remarks
            self._write(clean(f"{progress.what}: {show_size(progress.done_bytes)}{of}") + "\n")


#: The bars that are drawn now.
_drawn: list[Any] = []


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """While a person is asked. Bars hold back what does not end its line, and that is what a question is."""
    stopped = tuple(_drawn)
    for bars in stopped:
        bars.stop()
    try:
        yield
    finally:
        for bars in stopped:
            bars.start()


@contextlib.contextmanager
def _bars() -> Iterator[ProgressListener]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True))
    bars = Bars(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    tasks: dict[str, Any] = {}
    lock = threading.Lock()

    def listen(progress: Progress, /) -> None:
        with lock:
            task = tasks.get(progress.what)
            if task is None:
                task = tasks[progress.what] = bars.add_task(clean(progress.what), total=None)
            # an estimate may be too low; a bar that is full while work goes on would lie
            total = progress.total_bytes
            total = None if total is not None and total < progress.done_bytes else total
            bars.update(task, completed=progress.done_bytes, total=total)

    with bars:
        _drawn.append(bars)
        try:
            yield listen
        finally:
            _drawn.remove(bars)
