"""Keeping the images that a stack runs, so that it comes back when its registry does not answer.

One artefact names all images of the stack. It holds those that no earlier one in the same repositories holds, and
depends on the artefacts that hold the others: each image is stored once, and whoever prunes keeps what is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from recoup.assembly.access import Found, Readable
from recoup.assembly.prove.copies import prove_and_note
from recoup.assembly.stack import Stack, open_stack
from recoup.assembly.system import System
from recoup.backup.take import take_copy
from recoup.engines.compose.client import ImageDigest
from recoup.engines.compose.image_archive import LIST, save_image, stream_of
from recoup.engines.engine import CopyFacts, ProgressListener, Sink
from recoup.kernel.errors import DamageError, RecoupError, UsageError
from recoup.repository.catalog import IMAGES, Catalog, Entry, read_catalog
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.copy_writer import Packing
from recoup.repository.repository import Repository

#: What proves a copy of images: its bytes, and that they are the images that it names.
_GRADE: Final = "intact"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptImage:
    """An image in a repository: in which artefact, as which stream."""

    identity: str
    found: Found

    @property
    def plain_bytes(self) -> int:
        """How large it is when it is unpacked, as ``docker save`` writes it."""
        return self.found.manifest.object_of(stream_of(self.identity)).plain_bytes

    def pieces(self) -> Iterator[bytes]:
        """What ``docker load`` takes. Raise ``DamageError`` when no repository has it right."""
        return ArtefactReader(self.found.manifest, self.found.holders).read(stream_of(self.identity))


def kept_images(opened: Readable) -> dict[str, KeptImage]:
    """The images that are in the repositories, by their ids; the newest copy of each that can be found."""
    catalog = opened.catalog()
    kept: dict[str, KeptImage] = {}
    for entry in catalog.entries:
        if entry.kind != IMAGES:
            continue
        try:
            found = opened.find(entry.id, catalog=catalog)
        except DamageError:
            continue  # an older one may hold the same; the repository says itself what is wrong with it
        streams = {one.stream for one in found.manifest.objects}
        for one in found.manifest.facts.get("images") or ():
            identity = str(one["image_id"])
            if stream_of(identity) in streams:
                kept.setdefault(identity, KeptImage(identity=identity, found=found))
    return kept


def keep_images(system: System, on_progress: ProgressListener) -> None:
    """Keep what the stack runs now, when the plan says so and it is not kept yet.

    Raise ``RecoupError`` when something of it could not be kept.
    """
    compose = system.plan.compose
    if compose is None or not compose.keep_images:
        return
    stack = open_stack(system)
    running = stack.client.images()
    opened = system.open(kind=IMAGES, writing=True)
    if not opened.repositories:
        raise next(iter(opened.failed.values()), None) or UsageError(
            "no repository of the plan takes images", hint="Add images to a repository's copy list."
        )
    catalog = read_catalog(opened.repositories, system.state_folder)
    newest = next((one for one in catalog.entries if one.kind == IMAGES), None)
    if newest is not None and _says(newest, opened.repositories) == {(one.service, one.image_id) for one in running}:
        return
    source = _ImagesSource(stack=stack, running=running, held=_held(catalog, opened.repositories))
    taken = take_copy(
        source, opened.repositories, system=system.plan.system, label=None, packing=Packing(),
        state_folder=system.state_folder, on_progress=on_progress,
    )  # fmt: skip
    holders = tuple(one for one in opened.repositories if one.name in taken.outcome.stored_in)
    readable = Readable(repositories=holders, failed={}, state_folder=system.state_folder, system=system)
    prove_and_note(readable, Found(manifest=taken.outcome.manifest, holders=holders), _GRADE)
    failed: dict[str, RecoupError] = {**opened.failed, **dict(taken.outcome.failed)}
    if failed:
        name, failure = next(iter(failed.items()))
        failure.message = f"not in {name}: {failure.message}"
        raise failure


@dataclass(frozen=True, slots=True, kw_only=True)
class _ImagesSource:
    """Implements ``backup.take.Source``. ``held`` are the artefacts that hold an image already, by its id."""

    stack: Stack
    running: Sequence[ImageDigest]
    held: Mapping[str, str]
    service: str = IMAGES
    engine: str = "compose"
    kind: str = IMAGES

    def take(self, sink: Sink, begun_stamp: str, on_progress: ProgressListener) -> CopyFacts:  # noqa: ARG002
        """See ``Source``."""
        wanted = dict.fromkeys(one.image_id for one in self.running)
        facts = [asdict(one) for one in self.running]
        with sink.stream(LIST) as stream:  # there is always something to read back, also when each image is held
            stream.write((json.dumps(facts, indent=1) + "\n").encode())
        for identity in wanted:
            if identity not in self.held:
                save_image(self.stack.client.source, identity, sink, on_progress)
        earlier = dict.fromkeys(self.held[one] for one in wanted if one in self.held)
        return CopyFacts(facts={"images": facts}, depends_on=tuple(sorted(earlier)))


def _held(catalog: Catalog, repositories: Sequence[Repository]) -> dict[str, str]:
    """Which artefact holds an image in every one of the repositories."""
    names = {one.name for one in repositories}
    held: dict[str, str] = {}
    for entry in catalog.entries:
        if entry.kind == IMAGES and names <= set(entry.repositories):
            manifest = repositories[0].manifest(entry.id)
            streams = {one.stream for one in manifest.objects}
            for one in manifest.facts.get("images") or ():
                if stream_of(str(one["image_id"])) in streams:
                    held.setdefault(str(one["image_id"]), entry.id)
    return held


def _says(entry: Entry, repositories: Sequence[Repository]) -> set[tuple[str, str]]:
    """What an artefact says the services ran; nothing when not every repository has it."""
    if not {one.name for one in repositories} <= set(entry.repositories):
        return set()
    facts: Mapping[str, Any] = repositories[0].manifest(entry.id).facts
    return {(str(one["service"]), str(one["image_id"])) for one in facts.get("images") or ()}
