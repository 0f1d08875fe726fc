"""Takes one copy, step by step. The manifest comes last; nothing is reported done that was not read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recoup.engines.engine import CopyFacts, ProgressListener, Sink
from recoup.kernel import clock, ids
from recoup.repository.copy_writer import ArtefactWriter, Header, Outcome, Packing
from recoup.repository.lease import hold_lease
from recoup.repository.repository import Repository
from recoup.repository.unfinished import Unfinished, UnfinishedCopies


class Source(Protocol):
    """A service, and one way to take a copy of it."""

    @property
    def service(self) -> str:
        """What the plan calls the service."""
        ...

    @property
    def engine(self) -> str:
        """The engine's name: ``postgres``, ``redis``, ``files``."""
        ...

    @property
    def kind(self) -> str:
        """``base``, ``dump``, ``rdb`` or ``files``."""
        ...

    def take(self, sink: Sink, begun_stamp: str, on_progress: ProgressListener) -> CopyFacts:
        """Write the copy's streams into ``sink`` and return what is known of it.

        ``begun_stamp`` is ``YYYYMMDD-HHMMSS``, for streams that carry their time in their name.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One copy that was taken: where it is, and what was cleaned up of earlier runs that died."""

    outcome: Outcome
    seconds: float
    cleaned: tuple[str, ...]


def take_copy(
    source: Source,
    repositories: Sequence[Repository],
    *,
    system: str,
    label: str | None,
    packing: Packing,
    state_folder: Path,
    on_progress: ProgressListener,
) -> Taken:
    """Take a copy of ``source`` into every repository at once.

    Raise ``BusyError`` when this service is being copied already, the engine's or the storage's error when the copy
    failed everywhere; then nothing of it is left. ``Taken.outcome.failed`` names repositories that do not hold it.
    """
    with hold_lease(state_folder, source.service, f"backup of {source.service} ({source.kind})"):
        unfinished = UnfinishedCopies(state_folder)
        cleaned = unfinished.clean(source.service, repositories)
        begun, started = clock.now(), clock.monotonic()
        header = Header(
            id=ids.new_id(begun),
            system=system,
            service=source.service,
            engine=source.engine,
            kind=source.kind,
            label=label,
            begun=begun,
        )
        unfinished.note(
            Unfinished(
                id=header.id,
                service=source.service,
                kind=source.kind,
                repositories=tuple(one.identity for one in repositories),
            )
        )
        with ArtefactWriter(header, repositories, packing) as writer:
            copy = source.take(writer, ids.stamp(begun), on_progress)
            outcome = writer.finish(copy)
        if not outcome.failed:
            unfinished.forget(header.id)
        return Taken(outcome=outcome, seconds=clock.monotonic() - started, cleaned=tuple(cleaned))
