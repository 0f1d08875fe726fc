"""File sets of a plan, and the way to copy them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from recoup.assembly.stack import open_stack
from recoup.assembly.system import System
from recoup.engines.engine import CopyFacts, ProgressListener, Sink
from recoup.engines.files.copy import take_files
from recoup.kernel.errors import EngineError
from recoup.plan.services import FilesService


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSource:
    """Copies a file set. Implements ``backup.take.Source``."""

    system: System
    service: str
    described: FilesService
    engine: str = "files"
    kind: str = "files"

    def take(self, sink: Sink, begun_stamp: str, on_progress: ProgressListener) -> CopyFacts:  # noqa: ARG002
        """See ``Source``. With Git state, the digests of the images that the stack runs are copied as well."""
        resolver, described = self.system.resolver, self.described
        left_out: tuple[tuple[str, str], ...] = ()
        images: list[dict[str, Any]] | None = None
        if described.git is not None and self.system.plan.compose is not None:
            try:
                images = [asdict(one) for one in open_stack(self.system).client.images()]
            except EngineError as failure:
                left_out = (("image digests", failure.message),)
        copy = take_files(
            [resolver.text(one) for one in described.paths],
            self.system.folder,
            sink,
            exclude=described.exclude,
            git=None if described.git is None else resolver.text(described.git),
            images=images,
            on_progress=on_progress,
        )
        return CopyFacts(facts=copy.facts, fingerprint=copy.fingerprint, left_out=(*copy.left_out, *left_out))


def files_source(system: System, name: str) -> FilesSource:
    """The source of the file set ``name``."""
    described = system.plan.services[name]
    assert isinstance(described, FilesService)
    return FilesSource(system=system, service=name, described=described)
