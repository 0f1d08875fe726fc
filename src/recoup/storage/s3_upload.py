"""Writing to S3: parts sent in parallel with a SHA-256 each, visible only when complete, aborted otherwise.

Limits from the Amazon S3 user guide, "multipart upload limits": 10,000 parts of 5 MiB to 5 GiB. All parts of an upload
have the same size as long as the estimate holds (Cloudflare R2 demands it); when an object outgrows it by far, later
parts are larger. What fits into one part is sent as one plain request.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from recoup.kernel.errors import StorageError
from recoup.storage.object_store import ObjectInfo
from recoup.storage.s3_errors import Place, UploadGoneError, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_T = TypeVar("_T")
_Part = dict[str, Any]

MEBIBYTE = 1 << 20
MINIMUM_PART_BYTES = 8 * MEBIBYTE
MAXIMUM_PART_BYTES = 5 << 30
MAXIMUM_PARTS = 10_000
PARTS_IN_FLIGHT = 2
_UNKNOWN_PART_BYTES = 16 * MEBIBYTE
_STEADY_PARTS = 8_000  # from here on parts grow, so that a wrong estimate does not end the upload


def part_bytes(expected_bytes: int | None) -> int:
    """The size of the parts for an object of about ``expected_bytes``: whole MiB, 8,000 of them hold twice that."""
    if expected_bytes is None:
        return _UNKNOWN_PART_BYTES
    needed = -(-2 * expected_bytes // _STEADY_PARTS)
    return min(max(MINIMUM_PART_BYTES, -(-needed // MEBIBYTE) * MEBIBYTE), MAXIMUM_PART_BYTES)


def size_of_part(number: int, steady_bytes: int) -> int:
    """The size of part ``number`` (from 1): steady, and from part 8,001 on doubled every 250 parts."""
    growth = 0 if number <= _STEADY_PARTS else 1 + (number - _STEADY_PARTS - 1) // 250
    return min(steady_bytes << growth, MAXIMUM_PART_BYTES)


class S3Writer:
    """An object on its way into an ``S3Store``. Holds at most ``PARTS_IN_FLIGHT`` parts being sent and one filling."""

    def __init__(
        self,
        *,
        client: S3Client,
        place: Place,
        key: str,
        full_key: str,
        extra: dict[str, Any],
        put: Callable[[str, bytes], ObjectInfo],
        stat: Callable[[str], ObjectInfo],
        expected_bytes: int | None,
    ) -> None:
        """``full_key`` is the key in the bucket; ``extra`` goes with the request that creates the object; ``put``
        sends what turns out to be small, ``stat`` looks at what is there."""
        self._client = client
        self._place = place
        self._key = key
        self._where: dict[str, Any] = {"Bucket": place.bucket, "Key": full_key}
        self._extra = extra
        self._put = put
        self._stat = stat
        self._steady = part_bytes(expected_bytes)
        self._buffer = bytearray()
        self._pool = ThreadPoolExecutor(PARTS_IN_FLIGHT, thread_name_prefix="s3-write")
        self._sending: deque[Future[_Part]] = deque()
        self._parts: list[Any] = []
        self._begun = 0
        self._bytes = 0
        self._upload: str | None = None
        self._ended = False

    def write(self, data: bytes | memoryview) -> None:
        """Append; see ``ObjectWriter.write``. Waits while the allowed parts are under way."""
        self._require_open()
        rest = memoryview(data).cast("B")
        self._bytes += len(rest)
        while rest:
            room = size_of_part(self._begun + 1, self._steady) - len(self._buffer)
            if room:
                self._buffer += rest[:room]
                rest = rest[room:]
            else:
                self._or_abort(self._send)

    def commit(self) -> ObjectInfo:
        """Make the object visible; see ``ObjectWriter.commit``."""
        self._require_open()
        if self._upload is None:
            self._ended = True
            self._pool.shutdown()
            return self._put(self._key, bytes(self._buffer))
        info = self._or_abort(self._complete)
        self._ended = True
        self._pool.shutdown()
        return info

    def abort(self) -> None:
        """Give up and remove the parts that were sent; see ``ObjectWriter.abort``.

        Raise ``StorageError`` when the server does not take the order; a lifecycle rule then has to.
        """
        if self._ended:
            return
        self._ended = True
        self._buffer = bytearray()
        # A part that arrives after the abort would stay, so those under way are waited for (they have time limits).
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._upload is None:
            return
        try:
            with translated(self._place, "remove the unfinished upload of", self._key):
                self._client.abort_multipart_upload(**self._where, UploadId=self._upload)
        except UploadGoneError:
            return
        except StorageError as failure:
            failure.hint = (
                f"Parts of it may still lie in bucket {self._place.bucket} and cost money. A lifecycle rule "
                "AbortIncompleteMultipartUpload removes such leftovers."
            )
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.abort()
        else:
            self._abort_because(error)

    def _require_open(self) -> None:
        if self._ended:
            raise StorageError(f"the writing of {self._key} to {self._place.address} has already ended")

    def _or_abort(self, act: Callable[[], _T]) -> _T:
        try:
            return act()
        except StorageError as failure:
            self._abort_because(failure)
            raise

    def _abort_because(self, error: BaseException) -> None:
        try:
            self.abort()
        except StorageError as second:
            error.add_note(f"{second.message}. {second.hint}")

    def _send(self) -> None:
        """Hand the full buffer to a thread, after waiting for the oldest when too many are under way."""
        if self._upload is None:
            with translated(self._place, "begin to write", self._key):
                answer = self._client.create_multipart_upload(**self._where, ChecksumAlgorithm="SHA256", **self._extra)
            self._upload = answer["UploadId"]
        while len(self._sending) >= PARTS_IN_FLIGHT:
            self._parts.append(self._sending.popleft().result())
        self._begun += 1
        if self._begun > MAXIMUM_PARTS:
            raise StorageError(
                f"cannot write {self._place.address}/{self._key}: more than {MAXIMUM_PARTS} parts are needed"
            )
        data, self._buffer = self._buffer, bytearray()
        self._sending.append(self._pool.submit(self._send_part, self._upload, self._begun, data))

    def _send_part(self, upload: str, number: int, data: bytearray) -> _Part:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        body: Any = data  # the driver takes a bytearray as well; its type hints do not know
        with translated(self._place, f"write part {number} of", self._key):
            answer = self._client.upload_part(
                **self._where, UploadId=upload, PartNumber=number, Body=body, ChecksumSHA256=digest
            )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": digest}

    def _complete(self) -> ObjectInfo:
        self._send()
        while self._sending:
            self._parts.append(self._sending.popleft().result())
        assert self._upload is not None, "the last part began one"
        try:
            with translated(self._place, "complete", self._key):
                answer = self._client.complete_multipart_upload(
                    **self._where, UploadId=self._upload, MultipartUpload={"Parts": self._parts}
                )
        except UploadGoneError:
            # The first attempt completed it but its answer was lost; the driver's second attempt found no upload.
            info = self._stat(self._key)
            if (info.size_bytes, info.version) != (self._bytes, _whole_etag(self._parts)):
                raise
            return info
        return ObjectInfo(key=self._key, size_bytes=self._bytes, version=str(answer["ETag"]).strip('"'))


def _whole_etag(parts: list[Any]) -> str:
    """The ETag of a completed upload: the MD5 of the parts' MD5s, and their number. Empty if theirs are no MD5s."""
    try:
        digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
