"""Which image each Compose service ran, as the newest stack point or copy of files wrote it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from recoup.assembly.access import Readable
from recoup.assembly.drill.leftovers import ENGINE
from recoup.assembly.drill.members import newest
from recoup.engines.compose.engine_facts import image_id
from recoup.repository.catalog import STACK
from recoup.repository.stack_points import read_point


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedImage:
    """The image of one service. ``digests`` are what its registry knows it by; empty for one that was built."""

    service: str
    image: str
    image_id: str
    digests: tuple[str, ...]

    @property
    def references(self) -> tuple[str, ...]:
        """Everything that means exactly this image, the most telling first."""
        return (*self.digests, self.image_id)

    def here(self) -> str | None:
        """What the engine of this machine calls it; None when it is not here. Engines with the containerd image store
        call an image by its manifest, and others by its configuration: the recorded id may be another one than this.
        """
        return next((found for one in self.references if (found := image_id(ENGINE, one)) is not None), None)


def recorded_images(opened: Readable, instant: datetime | None = None) -> dict[str, RecordedImage]:
    """The images that were recorded last before ``instant``, by Compose service."""
    catalog = opened.catalog()
    wanted = {(one.service, one.kind) for one in catalog.entries if one.kind in (STACK, "files")}
    said: list[tuple[datetime, Mapping[str, Any]]] = []
    for service, kind in sorted(wanted):
        found = newest(opened, catalog, service, (kind,), instant)
        if found is not None:
            images = read_point(found.manifest).images if kind == STACK else found.manifest.facts.get("images") or ()
            said += [(found.manifest.ended, one) for one in images]
    known: dict[str, RecordedImage] = {}
    for _, one in sorted(said, key=lambda each: each[0], reverse=True):
        service = str(one["service"])
        known.setdefault(
            service,
            RecordedImage(
                service=service,
                image=str(one.get("image") or ""),
                image_id=str(one["image_id"]),
                digests=tuple(str(digest) for digest in one.get("repository_digests") or ()),
            ),
        )
    return known
