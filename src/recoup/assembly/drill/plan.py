"""Which plan a drill rehearses: the digests of all that a recovery by it rests on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from recoup.assembly.stack import default_files
from recoup.assembly.system import System
from recoup.drill.model import PlanIdentity
from recoup.drill.state import UNSEEN, identify
from recoup.kernel.errors import RecoupError


def plan_identity(system: System, images: Mapping[str, str]) -> PlanIdentity:
    """The plan file, the Compose files, and the image that each service runs (``images``, by its id)."""
    parts = {"plan file": hashlib.sha256(system.loaded.text.encode()).hexdigest()}
    for path in _compose_files(system):
        parts[path.name] = _digest(path)
    parts |= {f"image of {service}": identity for service, identity in images.items()}
    return identify(system.plan.plan.version, parts)


def _compose_files(system: System) -> tuple[Path, ...]:
    described = system.plan.compose
    if described is None:
        return ()
    try:
        return tuple(system.resolver.path(one) for one in described.all_files()) or default_files(system.folder)
    except RecoupError:
        return (system.folder / "compose.yaml",)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return UNSEEN
