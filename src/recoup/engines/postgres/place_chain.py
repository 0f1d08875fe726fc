"""Restore an incremental backup into an empty folder: fetch it and all it builds on, and combine them.

Everything happens inside the destination, in folders called ``SCRATCH``: there the disk is the right one, the marker
of ``place_folder`` says that the restore is not finished, and whatever a killed restore left is cleared away with it.
The combined files then get their places by renames, ``pg_control`` last of all, as in every restore.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from recoup.engines.engine import Content, CopyReader, ProgressListener
from recoup.engines.postgres.combine import Combiner, drop_stale_maps, find_combiner
from recoup.engines.postgres.control import CONTROL_FILE
from recoup.engines.postgres.fill_folder import (
    CONTROL_UNFINISHED,
    fill_folder,
    link_tablespaces,
    make_folder,
    match_group_access,
    reporter,
    require_room,
)
from recoup.engines.postgres.place_files import writing_in
from recoup.engines.postgres.place_folder import PlacedFolder, restore_base_to_folder
from recoup.engines.postgres.placement import Archive, Destinations, lay_out, tablespace_oid
from recoup.kernel.errors import DamageError, RefusedError

SCRATCH: Final = "recoup-combine"
_COMBINED: Final = "combined"
_INCREMENTAL: Final = "INCREMENTAL."
#: An incremental file without blocks: magic, number of blocks, length (src/include/backup/basebackup_incremental.h).
_NO_BLOCKS_BYTES: Final = 12


def restore_chain_to_folder(
    chain: Sequence[CopyReader],
    folder: Path,
    *,
    tablespace_map: Mapping[int, Path] | None = None,
    owner: tuple[int, int] | None = None,
    workers: int = 0,
    on_progress: ProgressListener | None = None,
    before_control: Callable[[Path, Mapping[int, Path]], None] | None = None,
    programs: Sequence[Path] = (),
) -> PlacedFolder:
    """Restore the last of ``chain``: a base backup and the incremental ones that follow it, the oldest first.

    A chain of one is a base backup alone. Everything else is as with ``restore_base_to_folder``. For more than one,
    ``pg_combinebackup`` of the server's major version is needed, and for a while about twice the room.
    """
    newest = chain[-1]

    def restore(fill: Callable[[Destinations, tuple[int, int] | None], None] | None) -> PlacedFolder:
        return restore_base_to_folder(
            newest, folder, tablespace_map=tablespace_map, owner=owner, workers=workers, on_progress=on_progress,
            before_control=before_control, fill=fill,
        )  # fmt: skip

    if len(chain) == 1:
        return restore(None)
    require_chain([reader.facts for reader in chain])
    if any(str(space["path"]).startswith("pg_tblspc/") for space in newest.facts.get("tablespaces", ())):
        raise RefusedError(
            "the copy has tablespaces inside its data folder, which cannot be combined",
            hint="Restore the base backup of its chain; `recoup show` names it.",
        )
    major = int(newest.facts["major"])
    find_combiner(major, user=owner, folders=programs)  # before anything is fetched
    parts = [[lay_out(info.name, reader.members(info.name)) for info in reader.streams()
              if info.content is Content.TAR] for reader in chain]  # fmt: skip
    total = sum(info.plain_bytes for reader in chain for info in reader.streams() if info.content is Content.TAR)
    report = reporter(on_progress, total)

    def fill(destinations: Destinations, owner: tuple[int, int] | None) -> None:
        combiner = find_combiner(major, user=owner, folders=programs)
        wanted = _wanted(parts, destinations)
        _require_room(wanted, destinations, linked=combiner.links)
        inputs = []
        for number, (reader, archives) in enumerate(zip(chain, wanted, strict=True)):
            inputs.append(_fetch(reader, archives, _beside(destinations, str(number)), owner, workers, report))
        _combine(combiner, inputs, destinations, owner)

    return restore(fill)


def require_chain(chain: Sequence[Mapping[str, object]]) -> None:
    """Given the facts of backups, the oldest first, raise ``DamageError`` unless each builds on the one before it."""
    if chain[0].get("since_lsn") is not None:
        raise DamageError("the chain begins with an incremental backup instead of a base backup")
    for before, after in itertools.pairwise(chain):
        for name in ("system_identifier", "timeline", "major"):
            if before[name] != after[name]:
                raise DamageError(
                    f"the backups of the chain do not fit together: {name} is {before[name]}, then {after[name]}"
                )
        if after.get("since_lsn") != before["begin_lsn"]:
            raise DamageError(
                f"the backups of the chain do not follow each other: one began at {before['begin_lsn']}, and the next "
                f"holds what changed since {after.get('since_lsn')}"
            )


def _wanted(parts: Sequence[Sequence[Archive]], destinations: Destinations) -> list[list[Archive]]:
    """What of each backup is needed: not the tablespaces that were dropped since, nor WAL that is not replayed."""
    wanted = []
    for number, archives in enumerate(parts):
        kept = [one for one in archives if (oid := tablespace_oid(one.name)) is None or oid in destinations.tablespaces]
        wanted.append(kept if number == len(parts) - 1 else [_without_wal(one) for one in kept])
    return wanted


def _without_wal(archive: Archive) -> Archive:
    found = Archive(name=archive.name, directories=archive.directories)
    for offset, size, path, mode in zip(archive.offsets, archive.sizes, archive.paths, archive.modes, strict=True):
        if not path.startswith("pg_wal/"):
            found.offsets.append(offset)
            found.sizes.append(size)
            found.paths.append(path)
            found.modes.append(mode)
    return found


def _require_room(parts: Sequence[Sequence[Archive]], destinations: Destinations, *, linked: bool) -> None:
    needs = [(destinations.of(archive.name), archive.total_bytes) for archives in parts for archive in archives]
    sizes = [{one.name: dict(zip(one.paths, one.sizes, strict=True)) for one in archives} for archives in parts]
    for archive in parts[-1]:
        of_archive = [files.get(archive.name, {}) for files in sizes]
        needs.append((destinations.of(archive.name), combined_bytes(of_archive, linked=linked)))
    require_room(needs)


def combined_bytes(backups: Sequence[Mapping[str, int]], *, linked: bool) -> int:
    """How much room the combined files of one archive need at most, given the sizes of the files in each backup.

    With ``linked``, files that are the same as in an input need none. A file grows by no more than the blocks that
    came after it.
    """
    total = 0
    for path, size in backups[-1].items():
        folder, _, name = path.rpartition("/")
        if not name.startswith(_INCREMENTAL):
            total += 0 if linked else _on_disk(size)
            continue
        whole, changed = f"{folder}/{name.removeprefix(_INCREMENTAL)}", 0
        for files in reversed(backups):
            if (blocks := files.get(path, 0)) > _NO_BLOCKS_BYTES:
                changed += blocks
            if whole in files:
                total += 0 if linked and not changed else _on_disk(files[whole] + changed)
                break
    return total


def _on_disk(size: int) -> int:
    return (size + 4095) // 4096 * 4096


# -- doing it ----------------------------------------------------------------------------------------------------


def _beside(destinations: Destinations, name: str) -> Destinations:
    """Folders on the same disks, inside the destinations."""
    return Destinations(
        folder=destinations.folder / SCRATCH / name,
        tablespaces={oid: place / SCRATCH / name for oid, place in destinations.tablespaces.items()},
    )


def _fetch(
    reader: CopyReader,
    archives: Sequence[Archive],
    part: Destinations,
    owner: tuple[int, int] | None,
    workers: int,
    report: Callable[[int], None],
) -> Path:
    """Unpack one backup of the chain as ``pg_combinebackup`` wants to find it."""
    with writing_in(part.folder):
        for place in (part.folder, *part.tablespaces.values()):
            make_folder(place, owner)
    present = {oid for archive in archives if (oid := tablespace_oid(archive.name)) is not None}
    here = Destinations(folder=part.folder, tablespaces={oid: part.tablespaces[oid] for oid in sorted(present)})
    fill_folder(reader, archives, here, owner, workers, report)
    with writing_in(part.folder):
        os.replace(part.folder / CONTROL_UNFINISHED, part.folder / CONTROL_FILE)
    return part.folder


def _combine(
    combiner: Combiner, inputs: Sequence[Path], destinations: Destinations, owner: tuple[int, int] | None
) -> None:
    newest, made = _beside(destinations, str(len(inputs) - 1)), _beside(destinations, _COMBINED)
    spaces = {newest.tablespaces[oid]: made.tablespaces[oid] for oid in destinations.tablespaces}
    combiner.combine(inputs, made.folder, spaces)
    with writing_in(destinations.folder):
        drop_stale_maps(newest.folder, made.folder)
        for oid in made.tablespaces:
            drop_stale_maps(newest.tablespaces[oid], made.tablespaces[oid])
        for oid in made.tablespaces:
            (made.folder / "pg_tblspc" / str(oid)).unlink()
        os.replace(made.folder / CONTROL_FILE, made.folder / CONTROL_UNFINISHED)
        _move_up(made.folder, destinations.folder)
        for oid, place in destinations.tablespaces.items():
            _move_up(made.tablespaces[oid], place)
        link_tablespaces(destinations, owner)
        match_group_access(destinations)


def _move_up(source: Path, target: Path) -> None:
    """Move everything from the scratch folder's ``source`` into ``target``, and remove the scratch folder."""
    for entry in list(source.iterdir()):
        entry.rename(target / entry.name)
    shutil.rmtree(target / SCRATCH)
