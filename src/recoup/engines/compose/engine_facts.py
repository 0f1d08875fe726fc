"""What the container engine of this machine is, and how to get images into it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recoup.engines.compose.docker import ComposeSource, call, said_by
from recoup.kernel.errors import EngineError
from recoup.kernel.process import open_child

PULL_SECONDS = 3600.0
_LOAD_SECONDS = 3600.0
#: What ``docker load`` says of each image: one with a name by that, others by their id.
_LOADED = re.compile(r"^Loaded image(?: ID)?: (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """Versions as the programs print them. None: not there, or it does not answer; then ``problem`` says why."""

    engine: str | None
    engine_problem: str
    compose: str | None
    compose_problem: str
    folder: Path  #: where the engine keeps images and volumes


def engine_facts(source: ComposeSource) -> EngineFacts:
    """Ask ``docker`` what it is. Never raises for an engine that is missing."""
    engine, problem = _said(source, "version", "--format", "{{.Server.Version}}")
    compose, compose_problem = _said(source, "compose", "version", "--short")
    folder, _ = _said(source, "info", "--format", "{{.DockerRootDir}}")
    return EngineFacts(
        engine=engine,
        engine_problem=problem,
        compose=compose,
        compose_problem=compose_problem,
        folder=Path(folder or "/var/lib/docker"),
    )


def _said(source: ComposeSource, *argv: str) -> tuple[str | None, str]:
    try:
        said = call(source.docker(*argv), doing=f"ask docker for its {argv[0]}").stdout.decode().strip()
    except EngineError as failure:
        return None, failure.message
    return said or None, ""


def image_id(source: ComposeSource, reference: str) -> str | None:
    """The id of an image that is on this machine, by any of its names; None when it is not here."""
    seen = call(
        source.docker("image", "inspect", "--format", "{{.Id}}", reference), doing="look for an image", expect=None
    )
    return seen.stdout.decode().strip() or None if seen.exit_status == 0 else None


def pull(source: ComposeSource, reference: str) -> None:
    """Get an image from its registry. Raise ``EngineError`` in the registry's words."""
    call(source.docker("pull", "--quiet", reference, timeout_seconds=PULL_SECONDS), doing=f"get the image {reference}")


def tag(source: ComposeSource, identity: str, name: str) -> None:
    """Call an image ``name`` from now on."""
    call(source.docker("tag", identity, name), doing=f"call {identity} {name}")


def load_images(source: ComposeSource, pieces: Iterable[bytes]) -> tuple[str, ...]:
    """Put what ``docker save`` wrote into the engine; the ids and names that the engine says it has them by.

    Raise ``EngineError`` when the engine does not take it.
    """
    with open_child(source.docker("load", "--quiet", timeout_seconds=None), stdin=True) as child:
        try:
            for piece in pieces:
                child.stdin.write(piece)
            child.stdin.close()
        except BrokenPipeError:
            pass  # it says why below
        completed = child.wait(_LOAD_SECONDS)  # what it says is a line for each image, and waits in the pipe
        if completed.exit_status != 0:
            raise EngineError(f"cannot load the kept images: {said_by(completed)}")
        said = child.stdout.read().decode(errors="replace")
    return tuple(_LOADED.findall(said))
