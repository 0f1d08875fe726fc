"""A kept image is the one that it says, or it is said what is wrong."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from recoup.engines.compose.image_archive import check_images_copy, stream_of
from recoup.engines.engine import Content, CopyReader, Member, StreamInfo
from recoup.kernel.finding import Verdict

CONFIG = b'{"architecture": "amd64"}'
IDENTITY = "sha256:" + hashlib.sha256(CONFIG).hexdigest()


@dataclass
class FakeCopy:
    """What a copy of images reads as."""

    parts: dict[str, bytes]
    identity: str = IDENTITY
    facts: dict[str, Any] = field(init=False)
    fingerprint: None = None

    def __post_init__(self) -> None:
        self.facts = {"images": [{"service": "api", "image_id": self.identity}]}
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            for name, data in self.parts.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        self.data = made.getvalue()

    def streams(self) -> tuple[StreamInfo, ...]:
        return (StreamInfo(name=stream_of(self.identity), content=Content.TAR, plain_bytes=len(self.data)),)

    def read(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        yield self.data[start : None if length is None else start + length]

    def members(self, name: str) -> Iterator[Member]:
        with tarfile.open(fileobj=io.BytesIO(self.data)) as tar:
            for one in tar:
                yield Member(
                    path=one.name, kind="file", size_bytes=one.size, mode=0o600, uid=0, gid=0, mtime=0,
                    offset=one.offset_data,
                )  # fmt: skip

    def each_frame(self, *_: object) -> None:
        raise NotImplementedError


def saved(**more: bytes) -> dict[str, bytes]:
    manifest = json.dumps([{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]).encode()
    return {"manifest.json": manifest, "config.json": CONFIG, "layer.tar": b"layer", **more}


def verdicts(copy: CopyReader) -> list[tuple[Verdict, str]]:
    return [(one.verdict, one.detail) for one in check_images_copy(copy)]


def test_an_image_as_docker_saves_it_is_whole() -> None:
    assert verdicts(FakeCopy(saved())) == [(Verdict.OK, "3 files, and its configuration has the image's id")]


def test_an_image_of_the_containerd_store_is_known_by_its_index() -> None:
    index = json.dumps({"manifests": [{"digest": "sha256:" + "a" * 64}]}).encode()
    assert verdicts(FakeCopy(saved(**{"index.json": index}), identity="sha256:" + "a" * 64))[0][0] is Verdict.OK


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ({"manifest.json": b"[]"}, "it is not what docker save writes"),
        ({"manifest.json": b"no json"}, "it is not what docker save writes"),
        ({"config.json": b"{}"}, "it is another image"),
    ],
)
def test_what_is_no_image_or_another_one_fails(parts: dict[str, bytes], what: str) -> None:
    ((verdict, detail),) = verdicts(FakeCopy(saved(**parts)))
    assert verdict is Verdict.FAILED
    assert what in detail


def test_a_layer_that_is_missing_fails() -> None:
    parts = saved()
    del parts["layer.tar"]
    assert verdicts(FakeCopy(parts)) == [(Verdict.FAILED, "layer.tar is not in it")]


def test_a_copy_that_holds_no_image_itself_says_so() -> None:
    copy = FakeCopy(saved())
    copy.facts = {"images": [{"service": "api", "image_id": "sha256:" + "b" * 64}]}
    ((verdict, detail),) = verdicts(copy)
    assert verdict is Verdict.OK
    assert "builds on" in detail
