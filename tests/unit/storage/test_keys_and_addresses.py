"""Keys and addresses: what is let through has a known shape, what is not is refused without being repeated."""

from __future__ import annotations

import string
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.errors import StorageError, UsageError
from recoup.kernel.secret import Secret
from recoup.storage.address import (
    BucketAddress,
    FolderAddress,
    S3Options,
    check_endpoint,
    open_store,
    parse_address,
)
from recoup.storage.local import LocalStore
from recoup.storage.object_store import check_key
from recoup.storage.s3 import S3Store

_FIRST = string.ascii_letters + string.digits + "_-"
_part = st.builds(str.__add__, st.sampled_from(_FIRST), st.text(_FIRST + ".", max_size=12))
good_keys = st.lists(_part, min_size=1, max_size=8).map("/".join)


@given(good_keys)
def test_every_key_of_the_stated_shape_is_accepted(key: str) -> None:
    assert check_key(key) == key


@given(st.one_of(st.text(), st.text(alphabet="ab./-_\\ \0\n", max_size=12)))
def test_whatever_is_accepted_stays_inside_any_folder(key: str) -> None:
    try:
        check_key(key)
    except ValueError:
        return
    path = PurePosixPath("/root") / key
    assert str(path) == f"/root/{key}"
    assert all(part not in ("", ".", "..") and not part.startswith(".") for part in key.split("/"))
    assert key.isascii()
    assert key.isprintable()
    assert "\\" not in key


@given(good_keys, st.sampled_from(["/", "..", ".", "\n", "\0", " ", "\\", "é"]), st.data())
def test_a_strange_part_spoils_the_key(key: str, strange: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(["before", "after", "part"]))
    spoilt = {"before": f"{strange}/{key}", "after": f"{key}/{strange}", "part": f"{key}/{strange}/{key}"}[place]
    with pytest.raises(ValueError, match="not an object key"):
        check_key(spoilt)


def test_a_key_has_at_most_900_characters() -> None:
    assert check_key("a" * 900)
    with pytest.raises(ValueError, match="not an object key"):
        check_key("a" * 901)


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("/srv/backups", "/srv/backups"),
        ("backups", "/plan/backups"),
        ("./backups", "/plan/backups"),
        ("path:/srv/backups", "/srv/backups"),
        ("path:backups", "/plan/backups"),
        ("path:with space/and:colon", "/plan/with space/and:colon"),
        ("file:///srv/with%20space", "/srv/with space"),
        ("file://localhost/srv", "/srv"),
    ],
)
def test_folders_are_written_in_several_ways(text: str, folder: str) -> None:
    assert parse_address(text, relative_to=Path("/plan")) == FolderAddress(folder=Path(folder))


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("s3://hummii-backup/production", "hummii-backup", "production"),
        ("s3://hummii-backup", "hummii-backup", ""),
        ("s3://hummii-backup/", "hummii-backup", ""),
        ("S3://b.u.c/deep/er/", "b.u.c", "deep/er"),
    ],
)
def test_buckets_are_written_as_urls(text: str, bucket: str, prefix: str) -> None:
    assert parse_address(text) == BucketAddress(bucket=bucket, prefix=prefix)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        " /srv",
        "/srv\n",
        "path:",
        "s3://",
        "s3:bucket",
        "s3:///prefix",
        "s3://ab",
        "s3://-bucket/x",
        "s3://bucket//x",
        "s3://bucket/../x",
        "s3://bucket/.x",
        "s3://bucket/a b",
        "s3://bucket/x?region=eu",
        "s3://bucket/x#y",
        "https://s3.example.org/bucket",
        "sftp://host/x",
        "file://host/x",
        "file:relative",
        "file:///x?y",
    ],
)
def test_an_impossible_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert caught.value.message[0].islower()


@pytest.mark.parametrize(
    "text", ["s3://AKIAKEY:hunter2@bucket/x", "https://user:hunter2@host/b", "s3://bucket/hunter2?secret=hunter2"]
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert "hunter2" not in caught.value.message + str(caught.value.hint)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        address = parse_address(text, relative_to=Path("/plan"))
    except UsageError:
        return
    if isinstance(address, FolderAddress):
        assert address.folder.is_absolute()
    else:
        assert parse_address(str(address)) == address


@given(good_keys, _part.filter(lambda part: part[0] not in "_-"))
def test_an_address_survives_being_written_and_read(prefix: str, name: str) -> None:
    bucket = f"bucket-{name}0"[:63]
    address = BucketAddress(bucket=bucket, prefix=prefix)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("url", ["https://s3.example.org", "http://127.0.0.1:8333/", "https://[::1]:9000"])
def test_an_endpoint_is_a_servers_address(url: str) -> None:
    assert check_endpoint(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "s3.example.org",
        "ftp://x",
        "https://",
        "https://user:hunter2@host",
        "https://host/hunter2",
        "https://host:99999",
        "https://host?x=hunter2",
        "https://ho st",
        "https://[::1",
    ],
)
def test_an_endpoint_that_is_more_or_less_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="endpoint") as caught:
        check_endpoint(url)
    assert "hunter2" not in caught.value.message + str(caught.value.hint)


def test_an_address_opens_the_store_it_names(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder"):
        open_store("backups", relative_to=tmp_path)
    made = open_store("backups", create=True, relative_to=tmp_path)
    assert isinstance(made, LocalStore)
    assert made.address == str(tmp_path / "backups")
    options = S3Options(endpoint_url="http://127.0.0.1:1", access_key="key", secret_key=Secret("hunter2"))
    bucket = open_store("s3://bucket/prefix", options)
    assert isinstance(bucket, S3Store)
    assert bucket.address == "s3://bucket/prefix"
    assert "hunter2" not in repr(options)


def test_half_a_pair_of_keys_and_unreadable_storage_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="belong together"):
        open_store("s3://bucket", S3Options(access_key="key"))
    with pytest.raises(UsageError, match="belong together"):
        open_store("s3://bucket", S3Options(secret_key=Secret("x")))
    with pytest.raises(UsageError, match="cannot be read back"):
        open_store("s3://bucket", S3Options(storage_class="DEEP_ARCHIVE"))
    with pytest.raises(UsageError, match="no file of certificate authorities"):
        open_store("s3://bucket", S3Options(ca_file=Path("/nonexistent/ca.pem")))
    with pytest.raises(UsageError, match="not a prefix"):
        S3Store("bucket", "a/../b")


def test_opening_a_bucket_does_not_yet_load_the_driver() -> None:
    """It costs 0.2 s, which most commands should not pay."""
    script = (
        "import sys; from recoup.storage.address import open_store; open_store('s3://bucket')\n"
        "sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
