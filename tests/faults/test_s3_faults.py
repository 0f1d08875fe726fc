"""An S3 service that fails, delays and breaks off: the store recovers, or says clearly what happened."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.servers import S3Server
from recoup.kernel import clock
from recoup.kernel.errors import MissingObjectError, StorageError, TransientStorageError
from recoup.kernel.secret import Secret
from recoup.storage.object_store import ObjectExistsError
from recoup.storage.s3 import S3Store
from tests.faults.s3_proxy import Act, Rule, S3Proxy

MEBIBYTE = 1 << 20
BIG = 33 * MEBIBYTE + 777


@pytest.fixture(scope="module")
def noise() -> bytes:
    return os.urandom(BIG)


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    return s3.new_bucket()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def prefix() -> str:
    return "run-" + secrets.token_hex(4)


@pytest.fixture
def store(s3: S3Server, proxy: S3Proxy, bucket: str, prefix: str) -> S3Store:
    """Through the proxy."""
    return connect(s3, proxy.endpoint, bucket, prefix)


@pytest.fixture
def direct(s3: S3Server, bucket: str, prefix: str) -> S3Store:
    """The same place, without the proxy."""
    return connect(s3, s3.endpoint, bucket, prefix)


def connect(
    s3: S3Server,
    endpoint: str,
    bucket: str,
    prefix: str = "",
    *,
    access_key: str | None = None,
    secret_key: str | None = None,
    attempts: int = 3,
    read_timeout_seconds: float = 60,
    verify: bool | Path = True,
) -> S3Store:
    return S3Store(
        bucket,
        prefix,
        endpoint_url=endpoint,
        access_key=access_key or s3.access_key,
        secret_key=Secret(secret_key or s3.secret_key),
        attempts=attempts,
        connect_timeout_seconds=2,
        read_timeout_seconds=read_timeout_seconds,
        verify=verify,
    )


def write(store: S3Store, key: str, data: bytes) -> None:
    with store.writer(key, expected_bytes=len(data)) as writer:
        for position in range(0, len(data), 3 * MEBIBYTE):
            writer.write(data[position : position + 3 * MEBIBYTE])
        writer.commit()


def unfinished_uploads(s3: S3Server, bucket: str, prefix: str) -> list[str]:
    client = s3.client()
    try:
        uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    finally:
        client.close()
    return [each["Key"] for each in uploads if each["Key"].startswith(prefix)]


# The last request is for little more than 1 MiB, and requests come in any order: each must be able to meet the cut.
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_a_body_cut_in_the_middle_is_resumed_where_it_ended(
    which: int, store: S3Store, direct: S3Store, proxy: S3Proxy, noise: bytes
) -> None:
    write(direct, "object", noise)
    proxy.rules.append(Rule(act=Act.CUT, method="GET", contains="/object", skip=which, at_byte=MEBIBYTE + 5))
    assert b"".join(store.read("object")) == noise
    ranges = [asked for method, target, asked in proxy.requests if method == "GET" and "/object" in target]
    begins = sorted(int(asked.removeprefix("bytes=").partition("-")[0]) for asked in ranges)
    assert len(begins) == 6
    # Read in pieces of 1 MiB, of which only whole ones are certain to have come.
    assert any(begin % (8 * MEBIBYTE) for begin in begins)


def test_a_body_cut_again_and_again_still_comes_whole(
    store: S3Store, direct: S3Store, proxy: S3Proxy, noise: bytes
) -> None:
    direct.put("object", noise[: 5 * MEBIBYTE])
    proxy.rules.append(Rule(act=Act.CUT, method="GET", contains="/object", times=4, at_byte=MEBIBYTE + 1))
    assert store.get("object") == noise[: 5 * MEBIBYTE]


def test_a_body_that_is_always_cut_is_an_error_and_never_a_short_object(
    store: S3Store, direct: S3Store, proxy: S3Proxy, noise: bytes
) -> None:
    direct.put("object", noise[: 5 * MEBIBYTE])
    proxy.rules.append(Rule(act=Act.CUT, method="GET", contains="/object", times=-1, at_byte=10))
    for ask in (
        lambda: store.get("object"),
        lambda: list(store.read("object")),
        lambda: store.read_range("object", 7, 99),
    ):
        with pytest.raises(TransientStorageError, match=r"cannot read .*/object: .* (broke|did not)") as caught:
            ask()
        assert caught.value.hint
    assert len(proxy.requests) < 30


def test_an_object_replaced_while_it_is_read_is_never_mixed(store: S3Store, direct: S3Store, noise: bytes) -> None:
    write(direct, "object", noise)
    pieces = store.read("object")
    received = [next(pieces)]
    write(direct, "object", bytes(BIG))
    with pytest.raises(StorageError, match="was replaced while it was read"):
        received.extend(pieces)
    assert noise.startswith(b"".join(received))


def test_any_single_request_may_break_off_and_all_ends_well(
    s3: S3Server, proxy: S3Proxy, bucket: str, prefix: str, noise: bytes
) -> None:
    number = 0
    while True:
        store = connect(s3, proxy.endpoint, bucket, f"{prefix}/{number}")
        path = f"/{bucket}/{prefix}/{number}/large"
        proxy.requests.clear()
        proxy.rules[:] = [Rule(act=(Act.DROP, Act.LOSE)[number % 2], skip=number)]
        write(store, "large", noise[: 17 * MEBIBYTE])
        store.put("small", b"small", if_absent=True)
        assert b"".join(store.read("large")) == noise[: 17 * MEBIBYTE]
        assert [info.key for info in store.list()] == ["large", "small"]
        assert store.stat("small").size_bytes == 5
        assert store.get("small") == b"small"
        store.delete("small")
        # Who never learns the number of an upload cannot end it. The next run over the same keys does.
        never_told = len(proxy.requests) > number and proxy.requests[number][:2] == ("POST", f"{path}?uploads")
        left = [f"{prefix}/{number}/large"] if never_told and proxy.rules[0].act is Act.LOSE else []
        assert unfinished_uploads(s3, bucket, f"{prefix}/{number}") == left
        store.discard_unfinished("large")
        assert unfinished_uploads(s3, bucket, f"{prefix}/{number}") == []
        if proxy.rules[0].times:
            break
        number += 1
    assert number >= 12


def test_a_failing_service_is_an_error_that_may_be_retried(
    s3: S3Server, proxy: S3Proxy, bucket: str, prefix: str
) -> None:
    store = connect(s3, proxy.endpoint, bucket, prefix, attempts=2)
    store.put("key", b"x")
    proxy.rules.append(Rule(act=Act.ANSWER, times=-1))
    for ask in (
        lambda: store.put("key", b"x"),
        lambda: store.get("key"),
        lambda: list(store.read("key")),
        lambda: store.stat("key"),
        lambda: list(store.list()),
        lambda: store.delete("key"),
        lambda: store.discard_unfinished("key"),
    ):
        before = len(proxy.requests)
        with pytest.raises(TransientStorageError, match="answers 500") as caught:
            ask()
        assert caught.value.may_retry
        assert prefix in caught.value.message
        assert len(proxy.requests) - before <= 12


def test_a_part_that_never_gets_through_leaves_no_object_and_no_parts(
    s3: S3Server, proxy: S3Proxy, bucket: str, prefix: str, noise: bytes
) -> None:
    store = connect(s3, proxy.endpoint, bucket, prefix, attempts=2)
    proxy.rules.append(Rule(act=Act.ANSWER, method="PUT", contains="partNumber=3", times=-1))
    with pytest.raises(TransientStorageError, match="cannot write part 3 of"):
        write(store, "object", noise)
    assert unfinished_uploads(s3, bucket, prefix) == []
    assert list(store.list()) == []


def test_a_completion_that_fails_leaves_no_object_and_no_parts(
    s3: S3Server, proxy: S3Proxy, bucket: str, prefix: str, noise: bytes
) -> None:
    store = connect(s3, proxy.endpoint, bucket, prefix, attempts=2)
    proxy.rules.append(Rule(act=Act.ANSWER, method="POST", contains="uploadId=", times=-1))
    with pytest.raises(TransientStorageError, match="cannot complete"):
        write(store, "object", noise)
    assert unfinished_uploads(s3, bucket, prefix) == []
    assert list(store.list()) == []


def test_leftovers_that_cannot_be_removed_are_reported_and_can_be_discarded_later(
    s3: S3Server, proxy: S3Proxy, bucket: str, prefix: str, noise: bytes
) -> None:
    store = connect(s3, proxy.endpoint, bucket, prefix, attempts=1)
    proxy.rules.append(Rule(act=Act.ANSWER, method="POST", contains="uploadId=", times=-1))
    proxy.rules.append(Rule(act=Act.ANSWER, method="DELETE", contains="uploadId=", times=-1))
    with pytest.raises(TransientStorageError) as caught:
        write(store, "folder/object", noise)
    assert "AbortIncompleteMultipartUpload" in "".join(caught.value.__notes__)
    proxy.rules.clear()
    assert unfinished_uploads(s3, bucket, prefix) == [f"{prefix}/folder/object"]
    store.discard_unfinished("other/")
    assert len(unfinished_uploads(s3, bucket, prefix)) == 1
    store.discard_unfinished("folder/")
    assert unfinished_uploads(s3, bucket, prefix) == []


def test_a_fresh_key_won_with_a_lost_answer_counts_as_won(store: S3Store, direct: S3Store, proxy: S3Proxy) -> None:
    store.require_bucket()
    proxy.rules.append(Rule(act=Act.LOSE, method="PUT"))
    assert store.put("lease", b"run 1", if_absent=True) == direct.stat("lease")
    proxy.rules.append(Rule(act=Act.LOSE, method="PUT"))
    with pytest.raises(ObjectExistsError):
        store.put("lease", b"run 2", if_absent=True)
    assert direct.get("lease") == b"run 1"


def test_a_slow_answer_ends_in_time(s3: S3Server, proxy: S3Proxy, bucket: str, prefix: str) -> None:
    connect(s3, proxy.endpoint, bucket, prefix).put("key", b"x")
    store = connect(s3, proxy.endpoint, bucket, prefix, attempts=1, read_timeout_seconds=0.4)
    proxy.rules.append(Rule(act=Act.DELAY, times=-1, seconds=200))
    begun = clock.monotonic()
    with pytest.raises(TransientStorageError, match="did not answer in time"):
        store.stat("key")
    assert clock.monotonic() - begun < 200, "it ended before any answer"


def test_a_slow_answer_within_the_limit_is_waited_for(store: S3Store, proxy: S3Proxy) -> None:
    proxy.rules.append(Rule(act=Act.DELAY, times=-1, seconds=0.3))
    store.put("key", b"x")
    assert store.get("key") == b"x"


@pytest.mark.parametrize(
    ("status", "code", "says", "advises"),
    [
        (403, "RequestTimeTooSkewed", "clocks of this machine and of", "timedatectl"),
        (403, "AccessDenied", "denies access to bucket", "s3:ListBucket"),
        (403, "SignatureDoesNotMatch", "the secret key is wrong", "secret key"),
        (403, "InvalidAccessKeyId", "does not know this access key", "access key"),
        (400, "ExpiredToken", "session token has expired", "credentials"),
        (404, "NoSuchBucket", "there is no bucket", "Create the bucket"),
        (400, "AuthorizationHeaderMalformed", "another region", "region"),
        (403, "QuotaExceeded", "no room left", "quota"),
        (403, "InvalidObjectState", "archive storage class", "Restore it"),
        (503, "SlowDown", "answers 503 SlowDown", "overloaded"),
        (400, "BadDigest", "not the bytes that were sent", "network path"),
    ],
)
def test_each_refusal_says_what_is_wrong_and_what_to_do(
    s3: S3Server, proxy: S3Proxy, bucket: str, prefix: str, status: int, code: str, says: str, advises: str
) -> None:
    store = connect(s3, proxy.endpoint, bucket, prefix, attempts=1)
    proxy.rules.append(Rule(act=Act.ANSWER, times=-1, status=status, code=code))
    for ask in (lambda: store.get("key"), lambda: list(store.list()), lambda: store.stat("key")):
        with pytest.raises(StorageError, match=says) as caught:
            ask()
        assert not isinstance(caught.value, MissingObjectError)
        assert advises in (caught.value.hint or "")
        assert s3.secret_key not in str(caught.value) + str(caught.value.hint)


def test_a_missing_bucket_is_not_a_missing_object_and_is_not_made(s3: S3Server, bucket: str) -> None:
    name = "absent-" + secrets.token_hex(4)
    store = connect(s3, s3.endpoint, name)
    for ask in (
        lambda: store.get("key"),
        lambda: store.stat("key"),
        lambda: list(store.read("key", 0, 0)),
        lambda: list(store.list()),
        lambda: store.put("key", b"x"),
        lambda: store.writer("key"),
        lambda: store.delete("key"),
    ):
        with pytest.raises(StorageError, match=f"there is no bucket {name}") as caught:
            ask()
        assert not isinstance(caught.value, MissingObjectError)
    client = s3.client()
    try:
        assert name not in [each["Name"] for each in client.list_buckets()["Buckets"]]
    finally:
        client.close()


def test_wrong_credentials_are_told_apart_and_not_shown(s3: S3Server, bucket: str) -> None:
    wrong_secret = connect(s3, s3.endpoint, bucket, secret_key="hunter2hunter2")
    with pytest.raises(StorageError, match="the secret key is wrong") as caught:
        wrong_secret.put("key", b"x")
    assert "hunter2" not in repr(caught.value) + str(caught.value.hint)
    for ask in (lambda: wrong_secret.stat("key"), lambda: wrong_secret.get("key")):
        with pytest.raises(StorageError, match="the secret key is wrong"):
            ask()
    with pytest.raises(StorageError, match="does not know this access key"):
        connect(s3, s3.endpoint, bucket, access_key="nobody").get("key")


def test_an_endpoint_that_nobody_listens_on_is_unreachable(s3: S3Server, bucket: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, so that nobody else takes it, and not listening
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(TransientStorageError, match="cannot be reached") as caught:
            connect(s3, endpoint, bucket, attempts=1).get("key")
    assert "address and port" in (caught.value.hint or "")


def test_an_endpoint_that_speaks_no_tls_is_said_so(s3: S3Server, bucket: str) -> None:
    with pytest.raises(StorageError, match="no trusted TLS connection") as caught:
        connect(s3, s3.endpoint.replace("http:", "https:"), bucket, attempts=1).get("key")
    assert "http instead of https" in (caught.value.hint or "")


def test_missing_credentials_are_said_so(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(StorageError, match="there are no credentials") as caught:
        S3Store(bucket, endpoint_url=s3.endpoint).get("key")
    assert "AWS_ACCESS_KEY_ID" in (caught.value.hint or "")


def test_a_certificate_of_an_unknown_authority_is_refused_unless_it_is_named(
    s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", *curve, *name, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    with S3Proxy(s3.endpoint, certificate=(certificate, key)) as proxy:
        unknown = connect(s3, proxy.endpoint, bucket, "tls", attempts=1)
        with pytest.raises(StorageError, match="certificate verify failed") as caught:
            unknown.get("key")
        assert "authority's certificate" in (caught.value.hint or "")
        named = connect(s3, proxy.endpoint, bucket, "tls", verify=certificate)
        write(named, "key", os.urandom(9 * MEBIBYTE))
        assert named.stat("key").size_bytes == 9 * MEBIBYTE
