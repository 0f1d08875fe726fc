"""Reading from S3: ranges fetched ahead in parallel, resumed when a body breaks off, always of one version.

A long range is cut into segments. A few are fetched at a time by threads and handed out in order, so memory is
bounded by their number. Every request after the first names the ETag of the first (``If-Match``): an object that is
replaced while it is read gives an error, never a mixture.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recoup.kernel import clock
from recoup.kernel.errors import StorageError, TransientStorageError
from recoup.storage.object_store import ObjectExistsError, ObjectInfo
from recoup.storage.s3_errors import Place, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PIECE_BYTES = 1 << 20  #: the largest piece that is handed out
SEGMENT_BYTES = 8 << 20  #: what one request asks for
SEGMENTS_AHEAD = 3  #: how many segments are fetched at a time
_RESUMES = 5
_CONTENT_RANGE = re.compile(r"bytes \d+-\d+/(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object that is being read: which version, how large, and its first bytes from ``begins`` on."""

    key: str
    size_bytes: int
    etag: str
    begins: int
    head: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloads:
    """Reading from one bucket."""

    client: S3Client
    place: Place
    full_key: Callable[[str], str]

    def open(self, key: str, start: int, length: int | None) -> Found:
        """Fetch the first segment of a range. Learns size and version with the same request.

        Raise ``MissingObjectError``; a range beyond the end gives an empty head and the true size.
        """
        wanted = SEGMENT_BYTES if length is None else min(length, SEGMENT_BYTES)
        if wanted == 0:
            return self._look(key, start)
        from botocore.exceptions import ClientError

        with translated(self.place, "read", key):
            try:
                answer = self._request(key, start, start + wanted, None)
            except ClientError as refusal:
                if refusal.response.get("Error", {}).get("Code") != "InvalidRange":
                    raise
                return self._look(key, start)
        match = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        if match is None:
            answer["Body"].close()
            raise StorageError(
                f"cannot read {self.place.address}/{key}: {self.place.endpoint} ignores ranges",
                hint="Something between here and the S3 service (a proxy, a gateway) strips the Range header.",
            )
        size, etag = int(match[1]), str(answer["ETag"])
        end = min(size, start + wanted)
        return Found(key=key, size_bytes=size, etag=etag, begins=start, head=self._fetch(key, start, end, etag, answer))

    def pieces(self, found: Found, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes ``[start, end)`` in order; ``start`` is where ``found`` begins."""
        assert start == found.begins, "opened elsewhere"
        position = start
        for piece in found.head:
            wanted = piece[: end - position]
            if wanted:
                position += len(wanted)
                yield wanted
        if position >= end:
            return
        if end - position <= SEGMENT_BYTES:
            yield from self._fetch(found.key, position, end, found.etag)
            return
        starts = iter(range(position, end, SEGMENT_BYTES))
        pool = ThreadPoolExecutor(SEGMENTS_AHEAD, thread_name_prefix="s3-read")
        coming: deque[Future[list[bytes]]] = deque()
        try:
            while True:
                while len(coming) < SEGMENTS_AHEAD and (begin := next(starts, None)) is not None:
                    stop = min(begin + SEGMENT_BYTES, end)
                    coming.append(pool.submit(self._fetch, found.key, begin, stop, found.etag))
                if not coming:
                    return
                yield from coming.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def look(self, key: str) -> ObjectInfo:
        """Size and version of an object, without its bytes. Raise ``MissingObjectError``."""
        from botocore.exceptions import ClientError

        with translated(self.place, "look at", key):
            try:
                answer = self.client.head_object(Bucket=self.place.bucket, Key=self.full_key(key))
            except ClientError:
                # An answer to HEAD has no body that says why. The same question as a GET has one.
                self._request(key, 0, 1, None)["Body"].close()
                raise
        return ObjectInfo(
            key=key,
            size_bytes=answer["ContentLength"],
            version=answer["ETag"].strip('"'),
            modified=answer["LastModified"],
            locked_until=_locked_until(answer),
        )

    def _look(self, key: str, start: int) -> Found:
        info = self.look(key)
        return Found(key=key, size_bytes=info.size_bytes, etag=f'"{info.version}"', begins=start, head=())

    def _request(self, key: str, start: int, end: int, etag: str | None) -> Any:
        condition: Any = {"IfMatch": etag} if etag else {}
        return self.client.get_object(
            Bucket=self.place.bucket, Key=self.full_key(key), Range=f"bytes={start}-{end - 1}", **condition
        )

    def _fetch(self, key: str, start: int, end: int, etag: str, answer: Any = None) -> list[bytes]:
        """The bytes ``[start, end)`` in pieces, however often the body breaks off, up to a limit."""
        pieces: list[bytes] = []
        position = start
        for attempt in range(_RESUMES + 1):
            try:
                with translated(self.place, "read", key):
                    if answer is None:
                        answer = self._request(key, position, end, etag)
                    for piece in _body(answer["Body"], end - position):
                        pieces.append(piece)
                        position += len(piece)
                if position == end:
                    return pieces
            except ObjectExistsError:
                raise StorageError(
                    f"{self.place.address}/{key} was replaced while it was read", hint="Read it again."
                ) from None
            except TransientStorageError:
                if attempt == _RESUMES:
                    raise
            answer = None
            if attempt < _RESUMES:
                clock.pause(0.05 * 2**attempt)
        raise TransientStorageError(
            f"cannot read {self.place.address}/{key}: {self.place.endpoint} broke off {_RESUMES + 1} times, "
            f"last at byte {position} of {end}",
            hint="Try again. If it stays so, check the network and the service.",
        )


def _locked_until(answer: Any) -> datetime | None:
    """From the answer to a HEAD (S3 API reference, HeadObject: ``x-amz-object-lock-…``)."""
    if answer.get("ObjectLockLegalHoldStatus") == "ON":
        return datetime.max.replace(tzinfo=UTC)
    until = answer.get("ObjectLockRetainUntilDate")
    return until.astimezone(UTC) if isinstance(until, datetime) else None


def _body(body: Any, wanted: int) -> Iterator[bytes]:
    try:
        while wanted and (piece := body.read(min(PIECE_BYTES, wanted))):
            wanted -= len(piece)
            yield piece
    finally:
        body.close()
