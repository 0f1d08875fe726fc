"""What every engine works with: the sink its copies go to, and the reader they come back from.

An engine knows one kind of product and nothing about repositories, keys or encryption. It writes named streams into
a ``Sink`` and reads them back from a ``CopyReader`` whose bytes have been authenticated before it sees them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol


class Content(enum.StrEnum):
    """What the plain bytes of a stream are."""

    TAR = "tar"  #: a tar stream, whose members are indexed
    OPAQUE = "opaque"  #: anything else


class StreamSink(Protocol):
    """One stream being written."""

    def write(self, data: bytes | memoryview) -> None:
        """Append plain bytes. The caller may reuse the buffer afterwards. Blocks when the repositories are slow."""
        ...


class Sink(Protocol):
    """Where an engine puts one copy. Streams are written one after the other or from several threads."""

    def stream(
        self, name: str, *, content: Content = Content.OPAQUE, expected_bytes: int | None = None
    ) -> AbstractContextManager[StreamSink]:
        """Begin the stream ``name`` (``base.tar``, ``hummii.dump``). Leaving with an error discards the copy.

        The repository adds suffixes for compression and encryption; the engine never does.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFacts:
    """What an engine knows of a copy when it is complete. All values go to JSON and back.

    ``facts`` are the engine's own (system identifier, LSNs, versions ...). ``fingerprint`` is the fingerprint of the
    data at the moment of the copy, or None. ``left_out`` lists what is not in the copy, and why. ``depends_on`` are
    the artefacts without which the copy cannot be restored, the oldest first, as whoever asked for it named them.
    """

    facts: Mapping[str, Any]
    fingerprint: Mapping[str, Any] | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry of a tar stream. ``offset`` is where its data begin in the plain stream."""

    path: str
    kind: str  #: ``file``, ``directory``, ``symlink``, ``hardlink`` or ``other``
    size_bytes: int
    mode: int
    uid: int
    gid: int
    mtime: float
    offset: int
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """One stream of a copy. ``plain_bytes`` is its length before compression."""

    name: str
    content: Content
    plain_bytes: int


class CopyReader(Protocol):
    """A copy read back. Every byte it yields was authenticated first; damage raises ``DamageError``."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """The ``CopyFacts.facts`` that the engine gave."""
        ...

    @property
    def fingerprint(self) -> Mapping[str, Any] | None:
        """The ``CopyFacts.fingerprint`` that the engine gave."""
        ...

    def streams(self) -> tuple[StreamInfo, ...]:
        """The streams of the copy, in the order in which they were written."""
        ...

    def read(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Plain bytes ``[start, start + length)`` of a stream, decompressed ahead in parallel."""
        ...

    def members(self, name: str) -> Iterator[Member]:
        """The members of a tar stream, from the index."""
        ...

    def each_frame(self, name: str, act: Callable[[int, bytes], None], workers: int = 0) -> None:
        """Call ``act(plain offset, plain bytes)`` once for every frame of a stream, in *any* order.

        The calls come from ``workers`` threads, several at once: ``act`` does its part of the work there, so that a
        frame is written by the thread that decompressed it. Use ``members`` to know where each byte belongs.
        ``workers`` 0 means as many as there are processors. Memory is bounded. The first error of ``act`` or of the
        reading ends it and is raised here, after the last call has returned.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a long act has come. ``total_bytes`` is an estimate or None."""

    what: str
    done_bytes: int
    total_bytes: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


class ProgressListener(Protocol):
    """Receives progress; must return at once and never raise."""

    def __call__(self, progress: Progress, /) -> None: ...
