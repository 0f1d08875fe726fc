"""What a look that failed says of the point: that it cannot be gone back to, or that this machine cannot look."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from recoup.assembly.access import open_for_reading
from recoup.assembly.recover.looks import Looked, Looker
from recoup.assembly.voice import Voice
from recoup.kernel.errors import EngineError, RecoupError
from recoup.recovery.clean_point import Spot
from tests.integration.recovery_place import recovery_place

SERVICES = "{postgres: {engine: postgres, url: 'postgresql://u@127.0.0.1:1/x'}}"


def look(folder: Path, monkeypatch: pytest.MonkeyPatch, failure: RecoupError) -> Looked:
    """A look at a point whose replay ends with ``failure``."""

    def fails(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(Looker, "_require_means", lambda *_: None)
    monkeypatch.setattr(Looker, "_alive", fails)
    place = recovery_place(folder / "plan", SERVICES)
    place.repository  # noqa: B018 - it is made
    opened = open_for_reading(place.plan, None, None)
    assert opened.system is not None
    voice = Voice(say=lambda _: None, on_progress=lambda _: None)
    looker = Looker(opened=opened, system=opened.system, service="postgres", voice=voice)
    return looker.look(Spot(line="1", start="a", at=7), cast(Any, None), 60)


@pytest.mark.parametrize("said", [
    "FATAL:  resource manager with ID 128 not registered",
    "FATAL:  out of memory",
    "FATAL:  could not map anonymous shared memory: Cannot allocate memory",
    'PANIC:  could not open file "pg_wal/000000010000000000000007": Too many open files in system',
    "PANIC:  could not read from log segment: Input/output error",
    'FATAL:  could not access file "$libdir/timescaledb": No such file or directory',
    "No space left on its disk",
    "LOG:  startup process (PID 7) was terminated by signal 9: Killed; LOG:  aborting startup",
    "the server was terminated by signal 9",
])  # fmt: skip
def test_what_this_machine_lacks_says_nothing_of_the_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    seen = look(tmp_path, monkeypatch, EngineError(f"PostgreSQL did not recover to LSN 0/7: {said}"))
    assert seen.seen.faults is None, "going back further for it would lose data"
    assert said in seen.why


@pytest.mark.parametrize("said", [
    "PANIC:  WAL contains references to invalid pages",
    "LOG:  startup process (PID 7) was terminated by signal 11: Segmentation fault",
])  # fmt: skip
def test_what_the_log_itself_does_to_a_server_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    seen = look(tmp_path, monkeypatch, EngineError(f"PostgreSQL did not recover to LSN 0/7: {said}"))
    assert seen.seen.faults
    assert not seen.seen.usable
