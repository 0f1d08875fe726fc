"""The data volume of a PostgreSQL service that gets a *recovered* cluster: ``DataHome`` with a replay in its staging.

The base backup is unpacked beside the old data and recovered there, by the service's own image in one-off containers;
only then do the two change places. So the old data are untouched until the new are complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recoup.assembly.postgres import PostgresPlace
from recoup.assembly.restore.feed import SCRIPT_SECONDS
from recoup.assembly.restore.homes import PostgresHome
from recoup.engines.compose.one_off import OneOff, open_one_off, run_one_off
from recoup.engines.engine import CopyReader, ProgressListener
from recoup.engines.postgres import recovery_volume
from recoup.engines.postgres.access import open_maintenance
from recoup.engines.postgres.recover_folder import Recovery, TargetTooEarlyError, run_recovery
from recoup.engines.postgres.recovery_script import Reached, recovery_settings
from recoup.engines.postgres.recovery_target import Target
from recoup.engines.postgres.wal_windows import Base
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.finding import Finding, Verdict

#: Room for the WAL that a recovering server keeps between two restart points (max_wal_size, 1 GiB by default).
_REPLAY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredWith:
    """One base backup to recover from."""

    base: Base
    reader: CopyReader
    recovery: Recovery
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredHome(PostgresHome):
    """``candidates`` are tried in order; ``outcome`` gets the one that was used and where the server stopped."""

    candidates: tuple[RecoveredWith, ...]
    say: Callable[[str], None]
    on_replay: Callable[[int, int], None]
    outcome: list[tuple[Base, Reached]]

    def needs_bytes(self, reader: CopyReader) -> int:
        """See ``DataHome``."""
        return PostgresHome.needs_bytes(self, reader) + _REPLAY_BYTES

    def stage(self, reader: CopyReader, restore_id: str, on_progress: ProgressListener) -> None:  # noqa: ARG002
        """See ``DataHome``. Raise ``RefusedError`` when every base backup is too young for the target."""
        for one in self.candidates:
            PostgresHome.stage(self, one.reader, restore_id, on_progress)
            try:
                reached = self._recover(one, restore_id)
            except BaseException as failure:
                self._run(restore_id, recovery_volume.DISCARD)
                if not isinstance(failure, TargetTooEarlyError):
                    raise
                self.say(f"{failure.message}; trying an older one")
                continue
            self.outcome.append((one.base, reached))
            return
        raise RefusedError(
            f"{self.candidates[0].recovery.target} comes before the end of the oldest base backup there is for it",
            hint="The time of a base backup is by this machine's clock; the server's differs. Choose a later instant.",
        )

    def check(self, reader: CopyReader) -> Sequence[Finding]:
        """See ``DataHome``: it is the cluster of the copy, and out of recovery. Its data are newer than the copy's."""
        return [check_recovered(self.place, str(reader.facts["system_identifier"]))]

    def _recover(self, one: RecoveredWith, restore_id: str) -> Reached:
        self.say(f"replaying WAL to {one.recovery.target} beside the old data")
        said = dict(line.split(" ", 1) for line in self._run(restore_id, recovery_volume.PREPARE) if " " in line)
        if "owner" not in said or "incoming" not in said:
            raise EngineError("preparing the recovery in the volume did not report its end")

        @contextlib.contextmanager
        def start(target: Target, look_ahead: bool) -> Iterator[Any]:
            settings = recovery_settings(target, one.recovery.timeline, one.facts, look_ahead=look_ahead)
            one_off = OneOff(
                service=self.compose_service,
                argv=(
                    *("sh", "-c", recovery_volume.RECOVER_STAGED, "recoup"),
                    *(said["incoming"], "\n".join(one.recovery.roles), *settings),
                ),
                run_id=restore_id,
                user=said["owner"],
                environment={"LC_ALL": "C"},
            )
            with open_one_off(self.stack.client, one_off) as child:
                yield child
                child.wait(SCRIPT_SECONDS)

        reached = run_recovery(start, one.recovery, self.on_replay).reached()
        if "sealed" not in self._run(restore_id, recovery_volume.SEAL):
            raise EngineError("the recovered cluster in the volume could not be looked at")
        return reached

    def _run(self, restore_id: str, script: str) -> list[str]:
        one_off = replace(self._one_off(restore_id, script), timeout_seconds=SCRIPT_SECONDS)
        return run_one_off(self.stack.client, one_off).stdout.decode(errors="replace").splitlines()


def check_recovered(place: PostgresPlace, wanted: str) -> Finding:
    """Whether the running server has the cluster ``wanted``, and is out of recovery. Raise ``EngineError``."""
    with open_maintenance(place.access) as session:
        found, recovering = session.query(
            "SELECT system_identifier::text, pg_is_in_recovery()::text FROM pg_control_system()"
        )[0]
    right = str(found) == wanted and str(recovering) in ("f", "false")
    return Finding(
        check="the running cluster is the recovered one",
        subject=place.name,
        verdict=Verdict.OK if right else Verdict.FAILED,
        detail=f"system identifier {found}, in recovery: {recovering}" + ("" if right else f", not {wanted}"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresRecovery:
    """A recovery in a volume: ``home`` is staged, swapped and checked as any; then ``findings`` tells where it stopped.

    ``placement_id`` stands for an artefact's id, ``identity`` is the cluster's.
    """

    home: RecoveredHome
    compose: str
    placement_id: str
    identity: str
    findings: Callable[[], Sequence[Finding]]
