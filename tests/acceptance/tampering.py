"""Copies that are taken as always, but for what was changed on the way into the repository."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from recoup.assembly.protect.copies import Options, Task, protect
from recoup.assembly.system import System
from recoup.backup.take import Source
from recoup.engines.engine import Content, CopyFacts, ProgressListener, Sink, StreamSink
from tests.acceptance.workplace import Workplace

Change = Callable[[bytes], bytes]


class Tampered:
    """A source of which every stream is changed, and then what is said of the copy."""

    def __init__(self, source: Source, change: Change, say: Callable[[CopyFacts], CopyFacts]) -> None:
        self._source, self._change, self._say = source, change, say

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def take(self, sink: Sink, begun_stamp: str, on_progress: ProgressListener) -> CopyFacts:
        return self._say(self._source.take(_Changing(sink, self._change), begun_stamp, on_progress))


class _Changing:
    def __init__(self, sink: Sink, change: Change) -> None:
        self._sink, self._change = sink, change

    @contextlib.contextmanager
    def stream(
        self, name: str, *, content: Content = Content.OPAQUE, expected_bytes: int | None = None
    ) -> Iterator[StreamSink]:
        held = bytearray()

        class Holding:
            def write(self, data: bytes | memoryview) -> None:
                held.extend(data)

        yield Holding()
        with self._sink.stream(name, content=content, expected_bytes=expected_bytes) as target:
            target.write(self._change(bytes(held)))


def backup_tampered(
    work: Workplace,
    service: str,
    kind: str,
    change: Change = bytes,
    *,
    say: Callable[[CopyFacts], CopyFacts] = lambda facts: facts,
    **options: Any,
) -> str:
    """Take one copy as ``recoup backup`` does, changed on the way; its id."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**work.environment, "RECOUP_STATE": str(work.state)}.items():
            patch.setenv(name, value)
        system = System.from_file(work.folder / "recoup.yaml")
        wrapped = Options(wrap=lambda source: Tampered(source, change, say), **options)  # type: ignore[arg-type,return-value]
        done = protect(system, Task(service=service, kind=kind), wrapped, lambda _: None)
    assert done.taken is not None, done.error
    return str(done.taken.outcome.manifest.id)


def replaced(old: bytes, new: bytes) -> Change:
    """Change what is there once, in one of the streams, into something as long."""
    assert len(old) == len(new)

    def change(data: bytes) -> bytes:
        assert data.count(old) <= 1, data.count(old)
        return data.replace(old, new)

    return change
