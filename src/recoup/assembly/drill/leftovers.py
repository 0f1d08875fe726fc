"""What dead drills have left, and removing it: by their own labels and notes only."""

from __future__ import annotations

import hashlib
import shutil
import socket
from pathlib import Path
from typing import Final

from recoup.assembly.drill.compose import remove_from_engine
from recoup.assembly.prove.live import sandboxes
from recoup.engines.compose.docker import ComposeSource, ContainerEngineError, call
from recoup.engines.compose.sandbox_engine import remove, things_of
from recoup.engines.sandbox import clean_leftovers

#: The container engine in which sandboxes are: the one that ``docker`` uses here.
ENGINE: Final = ComposeSource(files=())


def has_engine(*, compose: bool) -> bool:
    """Whether there is a container engine here. Without one nothing can be in it; a Compose project needs it.

    Raise ``ContainerEngineError`` when it is needed and does not answer.
    """
    if shutil.which("docker") is None and not compose:
        return False
    try:
        call(ENGINE.docker("version", "--format", "{{.Server.Version}}"), doing="ask the Docker engine")
    except ContainerEngineError:
        if compose:
            raise
        return False
    return True


def owner_of(state_folder: Path) -> str:
    """Whose sandboxes those of this state folder are, as a label: two plans on one engine never clean each other's."""
    said = f"{socket.gethostname()} {sandboxes(state_folder).resolve()}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def clean(state_folder: Path, *, compose: bool) -> tuple[str, ...]:
    """Remove what dead drills have left: processes, folders, and everything of theirs in the container engine.

    Only sandboxes of this state folder whose owner is dead are touched. Return their ids. Raise ``EngineError`` when
    something cannot be removed, or the engine does not answer that a plan with a Compose project (``compose``) needs.
    """
    root = sandboxes(state_folder)
    if not has_engine(compose=compose):
        return clean_leftovers(root)
    things = things_of(ENGINE, owner_of(state_folder))
    removed = clean_leftovers(root, elsewhere=lambda one: remove_from_engine(ENGINE, one))
    # A sandbox has its note before it has anything else: what has none belongs to nobody any more.
    dead = [one for one in things if not (root / f"{one.sandbox}.json").exists()]
    remove(ENGINE, dead)
    return tuple(dict.fromkeys((*removed, *(one.sandbox for one in dead))))
