"""Where a repository is, as people write it, and how to open it.

``/srv/backups``, ``path:backups``, ``file:///srv/backups`` and ``s3://bucket/prefix``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from recoup.kernel.errors import UsageError
from recoup.kernel.files import expanded
from recoup.kernel.secret import Secret
from recoup.storage.local import LocalStore
from recoup.storage.object_store import ObjectStore, check_key
from recoup.storage.s3 import S3Store

# Amazon S3 user guide, "general purpose bucket naming rules"; other servers allow capitals and underscores too.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderAddress:
    """A folder of this machine."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketAddress:
    """A bucket, or the part of it below a prefix."""

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


Address = FolderAddress | BucketAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """How to reach a bucket. What is ``None`` is left to boto3's own chain (environment, profile, instance role)."""

    endpoint_url: str | None = None  #: for servers other than Amazon's
    region: str | None = None
    access_key: str | None = None
    secret_key: Secret | None = None
    session_token: Secret | None = None
    ca_file: Path | None = None  #: certificate authorities, for a private endpoint
    verify_tls: bool = True
    storage_class: str | None = None


def parse_address(text: str, *, relative_to: Path | None = None) -> Address:
    """Given what people write, return where that is. Relative folders begin at ``relative_to`` (default: here).

    Raise ``UsageError``. Its message does not repeat the text: it may hold a password that does not belong there.
    """
    if not text.strip() or text != text.strip() or not text.isprintable():
        raise UsageError("the address of a repository is empty, or begins, ends or goes on with strange characters")
    scheme = _SCHEME.match(text)
    name = scheme[1].lower() if scheme else ""
    if scheme is None:
        return _folder(text, relative_to)
    if name == "path" and not scheme[2]:
        return _folder(text[scheme.end() :], relative_to)
    if name == "file" and scheme[2]:
        return _file_url(text)
    if name == "s3" and scheme[2]:
        return _bucket(text[scheme.end() :])
    raise UsageError(
        f"an address that begins with {name}: is not known",
        hint="Write a folder (/srv/backups or path:backups) or s3://bucket/prefix; other S3 servers than Amazon's "
        "are named by the endpoint setting.",
    )


def open_store(
    address: Address | str, options: S3Options | None = None, *, create: bool = False, relative_to: Path | None = None
) -> ObjectStore:
    """The store at an address. ``create`` makes a missing folder; buckets are never made.

    Raise ``UsageError`` for an impossible address or options, ``StorageError`` when a folder is missing. Nothing is
    sent to an S3 server yet.
    """
    where = parse_address(address, relative_to=relative_to) if isinstance(address, str) else address
    match where:
        case FolderAddress(folder=folder):
            return LocalStore(folder, create=create)
        case BucketAddress(bucket=bucket, prefix=prefix):
            chosen = options or S3Options()
            return S3Store(
                bucket,
                prefix,
                endpoint_url=chosen.endpoint_url and check_endpoint(chosen.endpoint_url),
                region=chosen.region,
                access_key=chosen.access_key,
                secret_key=chosen.secret_key,
                session_token=chosen.session_token,
                verify=chosen.ca_file if chosen.verify_tls and chosen.ca_file else chosen.verify_tls,
                storage_class=chosen.storage_class,
            )


def check_endpoint(url: str) -> str:
    """Return an endpoint's address without a slash at its end. Raise ``UsageError``, without repeating the text."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        fine = False
        parts = urlsplit("")
    if not fine or " " in url:
        raise UsageError("the S3 endpoint is not an address", hint="Write it as https://s3.example.org:9000.")
    if "@" in parts.netloc or parts.query or parts.fragment or parts.path.strip("/"):
        raise UsageError(
            f"the S3 endpoint for {parts.hostname} holds more than a server's address",
            hint="Credentials, bucket and prefix have settings of their own.",
        )
    return url.rstrip("/")


def _folder(text: str, relative_to: Path | None) -> FolderAddress:
    if not text:
        raise UsageError("the address of a repository names no folder", hint="Write path:/srv/backups.")
    return FolderAddress(folder=(relative_to or Path.cwd()) / expanded(text))


def _file_url(text: str) -> FolderAddress:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise UsageError(
            "a file: address names a folder of another machine, or none", hint="Write file:///srv/backups."
        )
    path = unquote(parts.path)
    if not path.isprintable():
        raise UsageError("a file: address holds characters that cannot be shown")
    return FolderAddress(folder=Path(path))


def _bucket(rest: str) -> BucketAddress:
    bucket, _, prefix = rest.partition("/")
    if "@" in rest or "?" in rest or "#" in rest:
        raise UsageError(
            "an s3:// address holds more than a bucket and a prefix",
            hint="Credentials, endpoint and region have settings of their own. If a secret stood there, change it.",
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(
            "an s3:// address names no possible bucket",
            hint="Write s3://bucket/prefix; a bucket's name has 3 to 63 letters, digits, dots and dashes.",
        )
    prefix = prefix.rstrip("/")
    if prefix:
        try:
            check_key(prefix)
        except ValueError:
            raise UsageError(
                f"the prefix in the address s3://{bucket}/… cannot begin an object key",
                hint="Use letters, digits, dots, dashes and single slashes.",
            ) from None
    return BucketAddress(bucket=bucket, prefix=prefix)
