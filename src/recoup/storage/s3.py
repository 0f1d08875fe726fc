"""Objects in an S3 bucket: Amazon's, or any server that speaks the same (SeaweedFS, MinIO, Ceph, R2, B2).

boto3 is loaded when the first request is made, because loading it costs more than most commands take. Every request
has time limits and a bounded number of attempts. An object's version is its ETag, which listings give as well.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recoup.kernel.errors import MissingObjectError, StorageError, UsageError
from recoup.kernel.secret import Secret
from recoup.kernel.units import show_size
from recoup.storage.object_store import ObjectInfo, check_key
from recoup.storage.ranges import check_range, end_of_range
from recoup.storage.s3_download import PIECE_BYTES, Downloads
from recoup.storage.s3_errors import Place, UploadGoneError, translated
from recoup.storage.s3_upload import S3Writer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NEEDS_THAWING = frozenset({"GLACIER", "DEEP_ARCHIVE"})


class S3Store:
    """A bucket, or the part of one below a prefix. Safe to use from several threads at once."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: Secret | None = None,
        session_token: Secret | None = None,
        verify: bool | Path = True,
        storage_class: str | None = None,
        attempts: int = 4,
        connect_timeout_seconds: float = 10.0,
        read_timeout_seconds: float = 60.0,
    ) -> None:
        """Nothing is sent yet.

        ``endpoint_url`` is for servers other than Amazon's. Without keys, boto3's own chain applies (environment,
        profile, instance role). ``verify`` is a file of certificate authorities, or whether to check TLS at all.
        Raise ``UsageError`` for a prefix that cannot begin a key, half a pair of keys, a missing file of
        authorities, and a storage class whose objects cannot be read back at once (every backup is, before it counts).
        """
        self._prefix = prefix.strip("/")
        if self._prefix:
            try:
                check_key(self._prefix)
            except ValueError:
                raise UsageError(f"not a prefix for object keys: {prefix!r}") from None
        if (access_key is None) != (secret_key is None):
            raise UsageError(f"s3://{bucket}: an access key and a secret key belong together; only one is given")
        if storage_class in _NEEDS_THAWING:
            raise UsageError(
                f"s3://{bucket}: objects of storage class {storage_class} cannot be read back at once",
                hint="Use STANDARD_IA or GLACIER_IR, or a lifecycle rule that moves objects later.",
            )
        if isinstance(verify, Path) and not verify.is_file():
            raise UsageError(
                f"s3://{bucket}: there is no file of certificate authorities {verify}",
                hint="Correct its path, or leave it out to trust the system's authorities.",
            )
        self._place = Place(
            address=f"s3://{bucket}" + (f"/{self._prefix}" if self._prefix else ""),
            bucket=bucket,
            endpoint=endpoint_url or "Amazon S3",
        )
        self._bucket = bucket
        self._endpoint_url = endpoint_url
        self._region = region
        self._credentials = (access_key, secret_key, session_token)
        self._verify = verify
        self._extra: dict[str, Any] = {"StorageClass": storage_class} if storage_class else {}
        self._attempts = attempts
        self._timeouts = (connect_timeout_seconds, read_timeout_seconds)
        self._lock = threading.Lock()
        self._made: S3Client | None = None
        self._bucket_seen = False

    @property
    def address(self) -> str:
        """``s3://bucket/prefix``."""
        return self._place.address

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """Write a whole object in one request; see ``ObjectStore.put``."""
        check_key(key)
        self.require_bucket()
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        client = self._client()
        from botocore.exceptions import ClientError

        with translated(self._place, "write", key):
            try:
                answer = client.put_object(
                    Bucket=self._bucket,
                    Key=self._full(key),
                    Body=data,
                    ChecksumSHA256=digest,
                    **condition,
                    **self._extra,
                )
            except ClientError as refusal:
                if not (if_absent and _was_repeated(refusal) and self._holds(key, data)):
                    raise
                # The first attempt won but its answer was lost; the driver's second attempt met our own object.
                return self.stat(key)
        return ObjectInfo(key=key, size_bytes=len(data), version=_version(answer["ETag"]))

    def writer(self, key: str, *, expected_bytes: int | None = None) -> S3Writer:
        """Begin an object of any size; see ``ObjectStore.writer``."""
        check_key(key)
        self.require_bucket()
        return S3Writer(
            client=self._client(),
            place=self._place,
            key=key,
            full_key=self._full(key),
            extra=self._extra,
            put=self.put,
            stat=self.stat,
            expected_bytes=expected_bytes,
        )

    def get(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        """Read a whole small object; see ``ObjectStore.get``."""
        found = self._downloads().open(check_key(key), 0, PIECE_BYTES)
        if found.size_bytes > limit_bytes:
            raise StorageError(
                f"{self._name(key)} has {show_size(found.size_bytes)}, "
                f"more than the {show_size(limit_bytes)} allowed here"
            )
        return b"".join(self._downloads().pieces(found, 0, found.size_bytes))

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield a range in pieces, fetched ahead in parallel; see ``ObjectStore.read``."""
        check_key(key)
        check_range(start, length)
        return self._read(key, start, length)

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        found = self._downloads().open(key, start, length)
        end = end_of_range(self._name(key), found.size_bytes, start, length)
        yield from self._downloads().pieces(found, start, end)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``; see ``ObjectStore.read_range``."""
        return b"".join(self.read(key, start, length))

    def stat(self, key: str) -> ObjectInfo:
        """Describe an object; see ``ObjectStore.stat``."""
        return self._downloads().look(check_key(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below ``prefix``, ordered by key; see ``ObjectStore.list``.

        The whole listing is held (about 300 bytes an object) to sort it: Amazon lists by key, other servers by
        folder. Foreign objects with keys that Recoup cannot have written are left out.
        """
        found: list[ObjectInfo] = []
        cut = len(self._prefix) + 1 if self._prefix else 0
        with translated(self._place, "list"):
            pages = (
                self._client().get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._full(prefix))
            )
            for page in pages:
                for each in page.get("Contents", ()):
                    key = each["Key"][cut:]
                    if _is_key(key):
                        version, modified = _version(each["ETag"]), each["LastModified"]
                        found.append(ObjectInfo(key=key, size_bytes=each["Size"], version=version, modified=modified))
        found.sort(key=lambda info: info.key)
        self._bucket_seen = True
        yield from found

    def delete(self, key: str) -> None:
        """Remove an object (in a versioned bucket: hide it); see ``ObjectStore.delete``."""
        check_key(key)
        self.require_bucket()
        with translated(self._place, "delete", key):
            self._client().delete_object(Bucket=self._bucket, Key=self._full(key))

    def discard_unfinished(self, prefix: str) -> None:
        """Abort the multipart uploads below ``prefix``; see ``ObjectStore.discard_unfinished``."""
        client = self._client()
        with translated(self._place, "remove unfinished uploads from"):
            pages = client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._full(prefix)
            )
            uploads = [(each["Key"], each["UploadId"]) for page in pages for each in page.get("Uploads", ())]
        for full_key, upload in uploads:
            if not full_key.startswith(self._full(prefix)):
                continue
            with (
                contextlib.suppress(UploadGoneError),  # it ended meanwhile
                translated(self._place, "remove an unfinished upload from"),
            ):
                client.abort_multipart_upload(Bucket=self._bucket, Key=full_key, UploadId=upload)

    def require_bucket(self) -> None:
        """Raise ``StorageError`` when the bucket is not there. Asks once.

        Some servers make a missing bucket on the first write, so that a misspelt name would go unnoticed. A key that
        may write but not list passes: then the server's own answer to the write decides.
        """
        if self._bucket_seen:
            return
        client = self._client()
        from botocore.exceptions import ClientError

        with translated(self._place, "use"):
            try:
                client.list_objects_v2(Bucket=self._bucket, Prefix=self._full(""), MaxKeys=1)
            except ClientError as refusal:
                if refusal.response.get("Error", {}).get("Code") != "AccessDenied":
                    raise
        self._bucket_seen = True

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.get(key, limit_bytes=len(data)) == data
        except MissingObjectError:
            return False

    def _downloads(self) -> Downloads:
        return Downloads(client=self._client(), place=self._place, full_key=self._full)

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _name(self, key: str) -> str:
        return f"{self._place.address}/{key}"

    def _client(self) -> S3Client:
        with self._lock:
            if self._made is None:
                with translated(self._place, "use"):
                    self._made = self._make_client()
            return self._made

    def _make_client(self) -> S3Client:
        import boto3
        from botocore.config import Config

        access_key, secret_key, session_token = self._credentials
        connect, read = self._timeouts
        config = Config(
            connect_timeout=connect,
            read_timeout=read,
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            max_pool_connections=32,
            tcp_keepalive=True,
            # We send a SHA-256 of our own with every body, and the artefact format has digests for every frame.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # Other servers are reached by an address, and have no name for each bucket in the DNS.
            s3={"addressing_style": "path" if self._endpoint_url else "auto"},
        )
        session = boto3.session.Session()
        return session.client(
            "s3",
            endpoint_url=self._endpoint_url,
            region_name=self._region or session.region_name or "us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key.reveal() if secret_key else None,
            aws_session_token=session_token.reveal() if session_token else None,
            verify=str(self._verify) if isinstance(self._verify, Path) else self._verify,
            config=config,
        )


def _version(etag: str) -> str:
    return etag.strip('"')


def _is_key(key: str) -> bool:
    try:
        check_key(key)
    except ValueError:
        return False
    return True


def _was_repeated(refusal: Any) -> bool:
    response = refusal.response
    return bool(
        response.get("Error", {}).get("Code") == "PreconditionFailed"
        and response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0
    )
