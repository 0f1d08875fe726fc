"""The only file that spells the keys of a repository. ``docs/repository-format.md`` has the same in prose."""

from __future__ import annotations

import re
from typing import Final

MARKER: Final = "recoup-repository.json"
RESTORE_GUIDE: Final = "RESTORE.md"
RESTORE_SCRIPT: Final = "restore.sh"
MANIFESTS: Final = "manifests/"
ARTEFACTS: Final = "artefacts/"

#: Names of services, kinds and streams become parts of keys and file names, so they are kept this plain.
SAFE_NAME: Final = re.compile(r"[a-z0-9A-Z_][a-zA-Z0-9._-]{0,99}")


def manifest_key(artefact_id: str) -> str:
    """Where the manifest of an artefact is."""
    return f"{MANIFESTS}{artefact_id}.json"


def artefact_id_of(manifest: str) -> str | None:
    """The reverse of ``manifest_key``; None when ``manifest`` is not the key of a manifest."""
    if not (manifest.startswith(MANIFESTS) and manifest.endswith(".json")):
        return None
    return manifest[len(MANIFESTS) : -len(".json")]


def artefact_folder(service: str, kind: str, artefact_id: str) -> str:
    """The prefix, with its closing slash, under which all objects of an artefact are."""
    for part in (service, kind):
        if not SAFE_NAME.fullmatch(part):
            raise ValueError(f"{part!r} cannot be part of an object key")
    return f"{ARTEFACTS}{service}/{kind}/{artefact_id}/"


def object_name(stream: str, compression: str) -> str:
    """The name of the object that holds a stream: ``base.tar`` -> ``base.tar.zst.enc``."""
    return f"{stream}.{'gz' if compression == 'gzip' else 'zst'}.enc"


def index_name(stream: str) -> str:
    """The name of the index object of a stream: ``base.tar`` -> ``base.tar.index.enc``."""
    return f"{stream}.index.enc"
