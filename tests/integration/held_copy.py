"""A copy held in memory: the sink an engine writes to and the reader it reads back, without a repository."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from recoup.engines.engine import Content, CopyFacts, Member, StreamInfo, StreamSink

_PIECE_BYTES = 70_001  # odd on purpose: cuts fall anywhere


class _Held:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self.data += data


class HeldCopy:
    """First a ``Sink``, then (after ``complete``) a ``CopyReader``. Facts go through JSON, as in a manifest."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.facts: Mapping[str, Any] = {}
        self.fingerprint: Mapping[str, Any] | None = None
        self.left_out: tuple[tuple[str, str], ...] = ()

    @contextlib.contextmanager
    def stream(
        self, name: str, *, content: Content = Content.OPAQUE, expected_bytes: int | None = None
    ) -> Iterator[StreamSink]:
        held = _Held()
        yield held
        self.data[name] = bytes(held.data)

    def complete(self, facts: CopyFacts) -> HeldCopy:
        self.facts = json.loads(json.dumps(facts.facts))
        self.fingerprint = json.loads(json.dumps(facts.fingerprint))
        self.left_out = facts.left_out
        return self

    def streams(self) -> tuple[StreamInfo, ...]:
        return tuple(
            StreamInfo(name=name, content=Content.OPAQUE, plain_bytes=len(data)) for name, data in self.data.items()
        )

    def read(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        data = self.data[name]
        end = len(data) if length is None else start + length
        for begin in range(start, end, _PIECE_BYTES):
            yield data[begin : min(end, begin + _PIECE_BYTES)]

    def members(self, name: str) -> Iterator[Member]:
        raise AssertionError("a dump has no members")

    def each_frame(self, name: str, act: Callable[[int, bytes], None], workers: int = 0) -> None:
        raise AssertionError("a dump is read in order")
