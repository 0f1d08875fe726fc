"""Where the data of a Compose service live, as the in-place restore sees it (``recovery.in_place.DataHome``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from recoup.assembly.postgres import PostgresPlace
from recoup.assembly.restore.feed import SCRIPT_SECONDS, feed
from recoup.assembly.stack import Stack
from recoup.engines.compose.one_off import OneOff, remove_leftovers, run_one_off
from recoup.engines.engine import CopyReader, ProgressListener
from recoup.engines.postgres import recovery_volume, volume_script
from recoup.engines.postgres.access import open_maintenance
from recoup.engines.postgres.base_fingerprint import compare_with_base
from recoup.engines.postgres.earlier import tar_with_manifest
from recoup.engines.postgres.place_chain import require_chain
from recoup.engines.postgres.stream_names import BASE_ARCHIVE
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.in_place import Occupant

#: What a database that came back must be.
IDENTITY: Final = "the running cluster is the one of the copy"
#: Combining writes as much as the cluster has: a day for several terabytes.
_COMBINE_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresHome:
    """The data volume of a PostgreSQL service. Implements ``DataHome``."""

    place: PostgresPlace
    stack: Stack
    compose_service: str
    parents: tuple[CopyReader, ...] = ()  #: what an incremental copy builds on, the oldest first

    def look(self) -> Occupant:
        """See ``DataHome``."""
        output = run_one_off(self.stack.client, self._one_off("look", volume_script.STATUS, writable=False)).stdout
        status = volume_script.parse_status(output)
        what = None
        if status.cluster is not None:
            what = f"the cluster {status.cluster[0]} (PostgreSQL {status.cluster[1]})"
        elif status.something is not None:
            what = f"something that is no cluster ({status.something})"
        unfinished = status.placing[1] if status.placing is not None else None
        return Occupant(
            place=f"the volume of {self.compose_service} ({status.folder})",
            identity=status.cluster[0] if status.cluster is not None and status.cluster[0] != "?" else None,
            what=what,
            unfinished=unfinished,
            begun=unfinished,
            free_bytes=status.free_bytes,
            placed=status.placed,
        )

    def needs_bytes(self, reader: CopyReader) -> int:
        """See ``DataHome``. A tenth more than the tar, for what PostgreSQL writes while it recovers."""
        needed = sum(info.plain_bytes for one in (*self.parents, reader) for info in one.streams()) * 11 // 10
        return needed * 2 if self.parents else needed  # a chain, and what it is combined to

    def stage(self, reader: CopyReader, restore_id: str, on_progress: ProgressListener) -> None:
        """See ``DataHome``."""
        if reader.facts.get("tablespaces"):
            raise RefusedError(
                "the copy has tablespaces, which lie outside of the data volume",
                hint="Restore it into a folder with --destination FOLDER and place the tablespaces by hand.",
            )
        remove_leftovers(self.stack.client, except_run=restore_id)
        if self.parents:
            self._stage_chain((*self.parents, reader), restore_id, on_progress)
            return
        total = next(info.plain_bytes for info in reader.streams() if info.name == BASE_ARCHIVE)
        feed(
            self.stack.client,
            self._one_off(restore_id, volume_script.STAGE),
            reader.read(BASE_ARCHIVE),
            what=f"restore of {self.place.name}",
            total_bytes=total,
            on_progress=on_progress,
        )

    def _stage_chain(self, chain: Sequence[CopyReader], restore_id: str, on_progress: ProgressListener) -> None:
        require_chain([one.facts for one in chain])
        for number, one in enumerate(chain):
            feed(
                self.stack.client,
                self._one_off(restore_id, volume_script.STAGE_PART, str(number)),
                tar_with_manifest(one),
                what=f"restore of {self.place.name} ({number + 1} of {len(chain)} backups)",
                total_bytes=next(info.plain_bytes for info in one.streams() if info.name == BASE_ARCHIVE),
                on_progress=on_progress,
            )
        combine = replace(
            self._one_off(restore_id, volume_script.COMBINE, str(len(chain))), timeout_seconds=_COMBINE_SECONDS
        )
        run_one_off(self.stack.client, combine)

    def discard(self, restore_id: str) -> None:
        """Remove what ``stage`` brought, when it will not be swapped in. Never after a swap began."""
        run_one_off(self.stack.client, self._one_off(restore_id, recovery_volume.DISCARD))

    def swap(self, restore_id: str) -> str | None:
        """See ``DataHome``."""
        return self._change_places(restore_id, volume_script.SWAP)

    def put_back(self, restore_id: str) -> str | None:
        """See ``Undo``."""
        return self._change_places(restore_id, volume_script.PUT_BACK)

    def _change_places(self, restore_id: str, script: str) -> str | None:
        said = run_one_off(self.stack.client, self._one_off(restore_id, script)).stdout.decode()
        if not {"placed", "nothing"} & set(said.splitlines()):
            raise EngineError(f"the swap did not report its end; it said: {said.strip()[-300:]}")
        kept = [line.removeprefix("kept ") for line in said.splitlines() if line.startswith("kept ")]
        return f"{kept[0]} in the volume of {self.compose_service}" if kept else None

    def forget(self, restore_id: str) -> Sequence[str]:
        """See ``Undo``."""
        one_off = replace(self._one_off(restore_id, volume_script.FORGET), beside=True)
        said = run_one_off(self.stack.client, one_off).stdout.decode().splitlines()
        return [line.removeprefix("removed ") for line in said if line.startswith("removed ")]

    def check(self, reader: CopyReader) -> Sequence[Finding]:
        """See ``DataHome``: it is the cluster of the copy, and its data are those of the fingerprint."""
        return check_copied(self.place, reader)

    def _one_off(self, run_id: str, script: str, *more: str, writable: bool = True) -> OneOff:
        folder = self.stack.project.service(self.compose_service).environment.get("PGDATA")
        data = folder.reveal() if folder is not None else ""
        return OneOff(
            service=self.compose_service,
            argv=("sh", "-c", script, "recoup", data, run_id, *more),
            run_id=run_id,
            timeout_seconds=None if script in (volume_script.STAGE, volume_script.STAGE_PART) else SCRIPT_SECONDS,
            writable=writable,
        )


def check_copied(place: PostgresPlace, reader: CopyReader) -> list[Finding]:
    """Whether the running server has the cluster of a copy, and the data of its fingerprint. Raise ``EngineError``."""
    with open_maintenance(place.access) as session:
        found = str(session.query("SELECT system_identifier FROM pg_control_system()")[0][0])
    wanted = str(reader.facts["system_identifier"])
    identity = Finding(
        check=IDENTITY,
        subject=place.name,
        verdict=Verdict.OK if found == wanted else Verdict.FAILED,
        detail=f"system identifier {found}" + ("" if found == wanted else f", not {wanted}"),
    )
    return [identity, *compare_with_base(reader.fingerprint, place.access)]
