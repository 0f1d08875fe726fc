"""A copy in memory: the least that satisfies ``Sink`` and ``CopyReader``, for tests of the engine alone."""

from __future__ import annotations

import contextlib
import io
import random
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from recoup.engines.engine import Content, CopyFacts, Member, StreamInfo

_KINDS = {tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "symlink"}
_KINDS |= {tarfile.LNKTYPE: "hardlink"}


class _Stream:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self.data += data


class MemoryCopy:
    """Sink and reader in one. A stream left with an error discards everything, as a repository does."""

    def __init__(self, *, frame_bytes: int = 256 << 10) -> None:
        self.contents: dict[str, Content] = {}
        self.data: dict[str, bytes] = {}
        self.copy_facts: CopyFacts | None = None
        self.discarded = False
        self._frame_bytes = frame_bytes
        self._members: dict[str, list[Member]] = {}

    @contextlib.contextmanager
    def stream(
        self, name: str, *, content: Content = Content.OPAQUE, expected_bytes: int | None = None
    ) -> Iterator[_Stream]:
        assert name not in self.data
        stream = _Stream()
        try:
            yield stream
        except BaseException:
            self.discarded = True
            raise
        self.contents[name] = content
        self.data[name] = bytes(stream.data)

    @property
    def facts(self) -> Mapping[str, Any]:
        assert self.copy_facts is not None
        return self.copy_facts.facts

    @property
    def fingerprint(self) -> Mapping[str, Any] | None:
        return None

    def streams(self) -> tuple[StreamInfo, ...]:
        return tuple(
            StreamInfo(name=name, content=self.contents[name], plain_bytes=len(data))
            for name, data in self.data.items()
        )

    def read(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        data = self.data[name]
        end = len(data) if length is None else start + length
        for at in range(start, end, self._frame_bytes):
            yield data[at : min(at + self._frame_bytes, end)]

    def members(self, name: str) -> Iterator[Member]:
        if name not in self._members:
            with tarfile.open(fileobj=io.BytesIO(self.data[name])) as tar:
                self._members[name] = [
                    Member(
                        path=info.name,
                        kind=_KINDS.get(info.type, "other"),
                        size_bytes=info.size,
                        mode=info.mode,
                        uid=info.uid,
                        gid=info.gid,
                        mtime=float(info.mtime),
                        offset=info.offset_data,
                        link=info.linkname,
                    )
                    for info in tar
                ]
        return iter(self._members[name])

    def each_frame(self, name: str, act: Callable[[int, bytes], None], workers: int = 0) -> None:
        data = self.data[name]
        offsets = list(range(0, len(data), self._frame_bytes))
        random.Random(7).shuffle(offsets)
        with ThreadPoolExecutor(workers or 2) as pool:
            for _ in pool.map(lambda at: act(at, data[at : at + self._frame_bytes]), offsets):
                pass  # raises the first error

    def replace(self, name: str, data: bytes) -> None:
        """Plant damage that the storage layer would not notice."""
        self.data[name] = data
        self._members.pop(name, None)
