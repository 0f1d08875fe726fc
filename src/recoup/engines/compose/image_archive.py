"""Copies of images: what ``docker save`` writes, one stream for each image, and whether it is what it says.

Format: https://github.com/moby/docker-image-spec (``manifest.json``, ``Config``, ``Layers``) and, from engines with the
containerd image store, https://github.com/opencontainers/image-spec/blob/main/image-layout.md (``index.json``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from recoup.engines.compose.docker import ComposeSource, said_by
from recoup.engines.engine import Content, CopyReader, Member, Progress, ProgressListener, Sink
from recoup.kernel.errors import DamageError, EngineError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.process import open_child

#: The stream that says which service ran which image.
LIST: Final = "images.json"
_PIECE_BYTES: Final = 1 << 20
_REPORT_EVERY: Final = 64 << 20
_SAVE_SECONDS: Final = 60.0
_LARGEST_JSON: Final = 8 << 20


def stream_of(identity: str) -> str:
    """The stream of an image: ``sha256-….tar``."""
    return identity.replace(":", "-") + ".tar"


def save_image(source: ComposeSource, identity: str, sink: Sink, on_progress: ProgressListener | None = None) -> int:
    """Write an image that is on this machine into ``sink``; its bytes. Raise ``EngineError`` in the engine's words."""
    total = reported = 0
    with (
        sink.stream(stream_of(identity), content=Content.TAR) as stream,
        open_child(source.docker("save", identity, timeout_seconds=None)) as child,
    ):
        while piece := child.stdout.read(_PIECE_BYTES):
            stream.write(piece)
            total += len(piece)
            if on_progress is not None and total >= reported + _REPORT_EVERY:
                reported = total
                on_progress(Progress(what=stream_of(identity), done_bytes=total))
        completed = child.wait(_SAVE_SECONDS)
        if completed.exit_status != 0:
            raise EngineError(f"cannot save the image {identity}: {said_by(completed)}")
    return total


def check_images_copy(reader: CopyReader) -> Sequence[Finding]:
    """Each image that this copy itself holds is whole, and is the one that the copy says."""
    here = {one.name for one in reader.streams()}
    wanted = dict.fromkeys(str(one["image_id"]) for one in reader.facts.get("images") or ())
    findings = [_check(reader, identity) for identity in wanted if stream_of(identity) in here]
    return findings or [
        Finding(
            check="the images are whole", subject="the copy", verdict=Verdict.OK,
            detail="it holds none itself: all of them are in the copies that it builds on",
        )
    ]  # fmt: skip


def _check(reader: CopyReader, identity: str) -> Finding:
    stream = stream_of(identity)
    members = {one.path.removeprefix("./"): one for one in reader.members(stream)}
    wrong = _wrong(reader, stream, members, identity)
    # Reading all of it shows that every byte still has its digest.
    for _ in reader.read(stream):
        pass
    return Finding(
        check="the image is whole",
        subject=stream,
        verdict=Verdict.FAILED if wrong else Verdict.OK,
        detail=wrong or f"{len(members)} files, and its configuration has the image's id",
        hint="Take a new copy of the images: recoup backup." if wrong else None,
    )


def _wrong(reader: CopyReader, stream: str, members: Mapping[str, Member], identity: str) -> str:
    """What is wrong with a saved image, or nothing."""
    try:
        manifest = json.loads(_content(reader, stream, members["manifest.json"]))
        configuration, layers = str(manifest[0]["Config"]), manifest[0]["Layers"]
        missing = [one for one in (configuration, *layers) if str(one) not in members]
        if missing:
            return f"{missing[0]} is not in it"
        known = {hashlib.sha256(_content(reader, stream, members[configuration])).hexdigest()}
        if "index.json" in members:
            index: dict[str, Any] = json.loads(_content(reader, stream, members["index.json"]))
            known |= {str(one["digest"]).removeprefix("sha256:") for one in index.get("manifests") or ()}
    except (KeyError, IndexError, TypeError, ValueError) as failure:
        return f"it is not what docker save writes: {type(failure).__name__} {failure}"
    return "" if identity.removeprefix("sha256:") in known else "it is another image"


def _content(reader: CopyReader, stream: str, member: Member) -> bytes:
    if member.kind != "file" or member.size_bytes > _LARGEST_JSON:
        raise DamageError(f"{member.path} in {stream} is no description of an image")
    return b"".join(reader.read(stream, member.offset, member.size_bytes))
