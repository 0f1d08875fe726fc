"""The only file that spells the keys of a repository. ``docs/repository-format.md`` has the same in prose."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from recoup.kernel import ids

MARKER: Final = "recoup-repository.json"
RESTORE_GUIDE: Final = "RESTORE.md"
RESTORE_SCRIPT: Final = "restore.sh"
MANIFESTS: Final = "manifests/"
ARTEFACTS: Final = "artefacts/"
HOLDS: Final = "holds/"
HEARTBEATS: Final = "heartbeats/"
WAL: Final = "wal/"
COMMANDS: Final = "redis-stream/"
DRILLS: Final = "drills/"
RUNS: Final = "runs/"

#: Names of services, kinds and streams become parts of keys and file names, so they are kept this plain.
SAFE_NAME: Final = re.compile(r"[a-z0-9A-Z_][a-zA-Z0-9._-]{0,99}")
#: A PostgreSQL system identifier: 64 bits, decimal.
SYSTEM_IDENTIFIER: Final = re.compile(r"[1-9][0-9]{0,19}")
#: The folder of a segment: its timeline and the upper half of its number.
WAL_SEGMENT_FOLDER: Final = re.compile(r"[0-9A-F]{16}")
#: What a Redis calls the history of its data set (``master_replid``).
REPLICATION_ID: Final = re.compile(r"[0-9a-f]{40}")
#: How the key of every object of WAL, and of every segment of a command stream, ends.
WAL_ENDING: Final = ".zst.enc"


def manifest_key(artefact_id: str) -> str:
    """Where the manifest of an artefact is."""
    return f"{MANIFESTS}{artefact_id}.json"


def artefact_id_of(manifest: str) -> str | None:
    """The reverse of ``manifest_key``; None when ``manifest`` is not the key of a manifest."""
    if not (manifest.startswith(MANIFESTS) and manifest.endswith(".json")):
        return None
    return manifest[len(MANIFESTS) : -len(".json")]


def hold_key(name: str) -> str:
    """Where a hold is. Raise ``ValueError`` for a name that cannot be part of an object key."""
    if not SAFE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be part of an object key")
    return f"{HOLDS}{name}.json"


def hold_name_of(key: str) -> str | None:
    """The reverse of ``hold_key``; None when ``key`` is not the key of a hold."""
    return key[len(HOLDS) : -len(".json")] if key.startswith(HOLDS) and key.endswith(".json") else None


def heartbeat_key(system: str) -> str:
    """Where the daemon of a system leaves its word that it lives. Names of systems are free text, so it is a digest."""
    return f"{HEARTBEATS}{_digest_of(system)}.json"


def _digest_of(system: str) -> str:
    return hashlib.sha256(system.encode()).hexdigest()[:16]


def drill_records(family: str) -> str:
    """The prefix, with its closing slash, of records about drills: ``drills/records/``, ``drills/closings/``."""
    return f"{DRILLS}{family}/"


def drill_record_key(family: str, identifier: str) -> str:
    """Where one record about drills is. Raise ``ValueError`` for what is no id."""
    if not ids.is_id(identifier):
        raise ValueError(f"{identifier!r} is not an id")
    return f"{drill_records(family)}{identifier}.json"


def drill_record_id_of(family: str, key: str) -> str | None:
    """The reverse of ``drill_record_key``; None when ``key`` is not the key of such a record."""
    identifier = key.removeprefix(drill_records(family)).removesuffix(".json")
    return identifier if ids.is_id(identifier) and drill_record_key(family, identifier) == key else None


def drill_proof_key(identifier: str) -> str:
    """Where the file is that a closing names as its proof."""
    return f"{DRILLS}proofs/{identifier}.enc"


def runs_folder(system: str) -> str:
    """The prefix, with its closing slash, of everything about the recoveries of a system."""
    return f"{RUNS}{_digest_of(system)}/"


def run_lease_key(system: str, generation: int) -> str:
    """Where the lease of a system's recoveries is. Each time that it changes hands it is another object."""
    return f"{run_leases(system)}{generation:08d}.json"


def run_leases(system: str) -> str:
    """The prefix, with its closing slash, of the leases of a system's recoveries."""
    return f"{runs_folder(system)}lease/"


def run_lease_generation(key: str) -> int | None:
    """The generation in the key of a lease; None when ``key`` is not that of a lease."""
    name = key.rpartition("/")[2].removesuffix(".json")
    return int(name) if re.fullmatch(r"[0-9]{8}", name) and key.endswith(f"/lease/{name}.json") else None


def run_journal(system: str, run: str) -> str:
    """The prefix, with its closing slash, of the lines of a run's journal. Raise ``ValueError`` for what is no id."""
    if not ids.is_id(run):
        raise ValueError(f"{run!r} is not an id")
    return f"{runs_folder(system)}{run}/"


def run_lines_bound(folder: str, generation: int, first: int, last: int, stamp: str) -> str:
    """The key of some lines of a journal up to its MAC, which is bound to this. ``folder`` is from ``run_journal``."""
    return f"{folder}{generation:08d}-{first:06d}-{last:06d}-{stamp}"


def run_lines_key(bound: str, mac: str) -> str:
    """The key of some lines of a journal: what its MAC is bound to, and the MAC itself."""
    return f"{bound}-{mac}{WAL_ENDING}"


def run_of(key: str) -> str | None:
    """The id of the run in a key; None for what is not part of a run's journal."""
    parts = key.split("/")
    return parts[2] if len(parts) == 4 and parts[0] + "/" == RUNS and ids.is_id(parts[2]) else None


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


def wal_folder(service: str, system_identifier: str) -> str:
    """The prefix, with its closing slash, of the WAL of one cluster: ``wal/postgres/7412345678901234567/``."""
    if not SAFE_NAME.fullmatch(service) or not SYSTEM_IDENTIFIER.fullmatch(system_identifier):
        raise ValueError(f"{service!r}, {system_identifier!r} cannot be part of an object key")
    return f"{WAL}{service}/{system_identifier}/"


def commands_folder(service: str, replication_id: str | None = None) -> str:
    """The prefix, with its closing slash, of the command streams of a service, or of one replication id of it."""
    if not SAFE_NAME.fullmatch(service) or not (replication_id is None or REPLICATION_ID.fullmatch(replication_id)):
        raise ValueError(f"{service!r}, {replication_id!r} cannot be part of an object key")
    return f"{COMMANDS}{service}/" + ("" if replication_id is None else f"{replication_id}/")


def commands_key(bound: str, mac: str) -> str:
    """The key of an object of a command stream: what its MAC is bound to (folder, name and stamp), and the MAC."""
    return f"{bound}-{mac}{WAL_ENDING}"


def wal_service(service: str) -> str:
    """The prefix, with its closing slash, of the WAL of all clusters of a service."""
    if not SAFE_NAME.fullmatch(service):
        raise ValueError(f"{service!r} cannot be part of an object key")
    return f"{WAL}{service}/"


def wal_cluster(key: str) -> str:
    """The system identifier in the key of an object of WAL."""
    return key.split("/")[2]


def wal_bound(folder: str, name: str, stamp: str) -> str:
    """The key of an object of WAL up to its MAC, which is bound to this. ``folder`` is from ``wal_folder``.

    What belongs to a segment is in a folder for 4 GiB of WAL (256 segments of 16 MiB), so that no folder of a disk
    grows without limit: ``wal/postgres/74…/0000000100000000/000000010000000000000003-20261123T020000123Z``.
    """
    return f"{wal_prefix(folder, name)}-{stamp}"


def wal_prefix(folder: str, name: str) -> str:
    """How the keys of all objects of WAL begin whose names begin with ``name``."""
    return f"{folder}{name[:16]}/{name}" if WAL_SEGMENT_FOLDER.match(name) else folder + name


def wal_key(bound: str, mac: str) -> str:
    """The key of an object of WAL: what its MAC is bound to, and the MAC itself."""
    return f"{bound}-{mac}{WAL_ENDING}"


def wal_name(key: str) -> str | None:
    """The last part of the key of an object of WAL; None when ``key`` is not where it should be."""
    parts = key.split("/")
    name = parts[-1]
    if len(parts) < 4 or parts[0] + "/" != WAL or parts[3:-1] != wal_prefix("", name).split("/")[:-1]:
        return None
    return name


#: An object of an artefact, under a key that this file spells: service, kind, id, name.
_ARTEFACT_OBJECT: Final = re.compile(
    rf"{ARTEFACTS}({SAFE_NAME.pattern})/({SAFE_NAME.pattern})/([0-9a-z-]+)/[^/]+\.(?:zst|gz|index)\.enc"
)


def place_of_object(key: str) -> tuple[str, str, str] | None:
    """The service, kind and artefact id of an artefact's object by its key; None for what Recoup does not write."""
    match = _ARTEFACT_OBJECT.fullmatch(key)
    return None if match is None or not ids.is_id(match[3]) else (match[1], match[2], match[3])
