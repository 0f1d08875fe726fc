"""What an S3 server or its driver complains of, as Recoup's errors: what, where, and what to do about it.

Codes are those of the Amazon S3 API reference ("Error responses") and what SeaweedFS, MinIO and Ceph answer.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from recoup.kernel.errors import MissingBucketError, MissingObjectError, StorageError, TransientStorageError
from recoup.storage.object_store import ObjectExistsError

_BUSY = frozenset(
    {"SlowDown", "ServiceUnavailable", "InternalError", "InternalServerError", "RequestTimeout", "Throttling"}
    | {"ThrottlingException", "TooManyRequests", "OperationAborted", "ConditionalRequestConflict", "BadGateway"}
)
_DIGEST = frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest"})
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "403", "Forbidden", "AccountProblem"})
_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "301", "IllegalLocationConstraintException"})
_FULL = frozenset({"QuotaExceeded", "QuotaExceededException", "InsufficientStorage", "XMinioStorageFull", "507"})
_TOKEN = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException"})


class UploadGoneError(StorageError):
    """The server knows no such unfinished upload: completed, aborted, or never begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What error messages call the store. Holds no secret."""

    address: str  #: ``s3://bucket/prefix``
    bucket: str
    endpoint: str  #: the server's address, or ``Amazon S3``


@contextlib.contextmanager
def translated(place: Place, doing: str, key: str = "") -> Iterator[None]:
    """Run a driver's call; its exceptions leave as ``StorageError`` and its kinds, saying what was being done."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as refusal:
        raise of_answer(place, doing, key, refusal.response) from refusal
    except BotoCoreError as failure:
        raise of_driver(place, doing, key, failure) from failure


def of_answer(place: Place, doing: str, key: str, response: object) -> StorageError:
    """The error for an S3 answer that is one. ``response`` is what botocore parsed from it."""
    assert isinstance(response, dict)
    error = response.get("Error", {})
    code, said = str(error.get("Code", "")), str(error.get("Message", "")).strip().rstrip(".")
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    name = f"{place.address}/{key}" if key else place.address
    what = f"cannot {doing} {name}"
    if code in _MISSING:
        return MissingObjectError(f"there is no object {name}")
    if code == "NoSuchUpload":
        return UploadGoneError(
            f"{what}: the unfinished upload is gone",
            hint="A lifecycle rule, or another run, aborted it while it ran. Start again.",
        )
    if code == "PreconditionFailed":
        return ObjectExistsError(f"{name} exists already")
    if code in _BUSY or status in (429, 500, 502, 503, 504):
        return TransientStorageError(
            f"{what}: {place.endpoint} answers {status} {code}" + (f" ({said})" if said else ""),
            hint="The S3 service is overloaded or failing. Try again later; its own status page may say more.",
        )
    if code in _DIGEST:
        return TransientStorageError(
            f"{what}: the bytes that arrived are not the bytes that were sent ({code})",
            hint="Try again. If it happens again, suspect the network path, a proxy, or this machine's memory.",
        )
    for codes, message, hint in _TABLE:
        if code in codes:
            kind = MissingBucketError if code == "NoSuchBucket" else StorageError
            return kind(
                f"{what}: {message.format(bucket=place.bucket, endpoint=place.endpoint, code=code)}",
                hint=hint.format(bucket=place.bucket, endpoint=place.endpoint),
            )
    return StorageError(f"{what}: {place.endpoint} answers {code} ({status}): {said or 'nothing more'}")


_TABLE: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        frozenset({"NoSuchBucket"}),
        "there is no bucket {bucket} at {endpoint}",
        "Create the bucket, or correct its name or the endpoint in the plan.",
    ),
    (
        frozenset({"InvalidBucketName"}),
        "{bucket} is not a bucket name",
        "Correct the name of the bucket in the plan.",
    ),
    (
        _DENIED,
        "{endpoint} denies access to bucket {bucket} ({code})",
        (
            "Allow this access key to list, read, write and delete there (s3:ListBucket, GetObject, PutObject, "
            "DeleteObject, AbortMultipartUpload, ListBucketMultipartUploads). A bucket policy or an object lock can "
            "also be the reason."
        ),
    ),
    (
        frozenset({"InvalidAccessKeyId"}),
        "{endpoint} does not know this access key",
        "Check the access key, and that it belongs to this endpoint.",
    ),
    (
        frozenset({"SignatureDoesNotMatch"}),
        "{endpoint} rejects the signature: the secret key is wrong",
        "Check the secret key (a lost character, a stray space), and that it belongs to the access key.",
    ),
    (
        frozenset({"RequestTimeTooSkewed", "RequestExpired"}),
        "the clocks of this machine and of {endpoint} differ too much",
        "Correct this machine's clock: timedatectl set-ntp true.",
    ),
    (
        _TOKEN,
        "the session token has expired or is not valid ({code})",
        "Get new temporary credentials.",
    ),
    (
        _REGION,
        "the bucket {bucket} lives in another region ({code})",
        "Give the repository the region of its bucket.",
    ),
    (
        _FULL,
        "{endpoint} has no room left for bucket {bucket} ({code})",
        "Raise the quota, or free space there.",
    ),
    (
        frozenset({"InvalidObjectState"}),
        "the object lies in an archive storage class and cannot be read at once",
        "Restore it to a readable storage class with the provider's tools first.",
    ),
)


def of_driver(place: Place, doing: str, key: str, failure: Exception) -> StorageError:
    """The error for what never got an answer, or a whole one. ``failure`` is botocore's."""
    from botocore import exceptions as driver

    name = f"{place.address}/{key}" if key else place.address
    what = f"cannot {doing} {name}"
    if isinstance(failure, driver.SSLError):
        return StorageError(
            f"{what}: no trusted TLS connection to {place.endpoint} ({_reason(failure)})",
            hint="Name the authority's certificate file in the plan, repair the server's certificate, or check whether "
            "the endpoint speaks http instead of https.",
        )
    if isinstance(failure, (driver.EndpointConnectionError, driver.ConnectTimeoutError, driver.ProxyConnectionError)):
        return TransientStorageError(
            f"{what}: {place.endpoint} cannot be reached",
            hint="Check the endpoint's address and port, the network, the firewall and the proxy settings.",
        )
    if isinstance(failure, (driver.ReadTimeoutError, driver.HTTPClientError, driver.IncompleteReadError)):
        how = "did not answer in time" if isinstance(failure, driver.ReadTimeoutError) else "broke the connection off"
        return TransientStorageError(
            f"{what}: {place.endpoint} {how}", hint="Try again. If it stays so, check the network and the service."
        )
    if isinstance(
        failure, (driver.NoCredentialsError, driver.PartialCredentialsError, driver.CredentialRetrievalError)
    ):
        return StorageError(
            f"{what}: there are no credentials",
            hint="Give the repository an access key and a secret key, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY.",
        )
    return StorageError(f"{what}: {type(failure).__name__}: {failure}")


def _reason(failure: Exception) -> str:
    """The part of a TLS failure that says why: ``CERTIFICATE_VERIFY_FAILED`` and the like."""
    match = re.search(r"\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+\b", str(failure))
    return match[0].lower().replace("_", " ") if match else type(failure).__name__
