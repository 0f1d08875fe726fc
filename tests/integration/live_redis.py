"""What the tests of live Redis copies share: climbing the grades with a copy that is held in memory."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recoup.demo.servers import RedisServer
from recoup.engines.engine import CopyFacts
from recoup.engines.redis.crc64 import crc64
from recoup.engines.redis.live import CrossCheck, RedisLive, open_redis_live
from recoup.engines.redis.plan_checks import RedisCheck
from recoup.engines.redis.sandbox_server import Launcher, local_launcher
from recoup.engines.sandbox import open_sandbox
from recoup.kernel.finding import Finding, Verdict
from recoup.verification.grade import Grade, Rung
from recoup.verification.live import LiveCopy, climb
from recoup.verification.verify import Verification
from tests.integration.redis_copies import MemoryCopy

FILLED = (RedisCheck(command="DBSIZE", at_least=1000),)


def launcher_of(server: RedisServer) -> Launcher:
    """The program of a running server, for a sandbox."""
    said = subprocess.run([server.program, "--version"], capture_output=True, text=True, check=True).stdout
    return local_launcher(str(server.program), said.split("v=")[1].split()[0])


@contextlib.contextmanager
def live(copy: MemoryCopy, launcher: Launcher, root: Path, **options: Any) -> Iterator[RedisLive]:
    """A copy in a sandbox below ``root``."""
    with open_sandbox(root, "a test") as sandbox, open_redis_live(sandbox, copy, launcher, **options) as opened:
        yield opened


def proven(
    copy: MemoryCopy,
    launcher: Launcher,
    root: Path,
    *,
    checks: Sequence[RedisCheck] = FILLED,
    cross_check: CrossCheck | None = None,
) -> Verification:
    """What climbing all grades establishes of a copy whose stored bytes are right."""
    return climbed(lambda: live(copy, launcher, root, checks=checks, cross_check=cross_check))


def climbed(open_live: Callable[[], contextlib.AbstractContextManager[LiveCopy]]) -> Verification:
    """All live grades, of a copy whose stored bytes are right."""
    fine = Finding(check="planted", subject="test", verdict=Verdict.OK)
    rungs = tuple(Rung(grade=grade, findings=(fine,)) for grade in (Grade.STORED, Grade.INTACT))
    return climb(Verification(artefact_id="a", asked=Grade.INTACT, rungs=rungs), Grade.WORKS, open_live)


def verdicts(verification: Verification) -> dict[Grade, Verdict]:
    """The verdict of each live grade that was reached."""
    return {rung.grade: rung.verdict for rung in verification.rungs if rung.grade.rank >= Grade.BOOTS.rank}


def bad(verification: Verification, grade: Grade) -> list[Finding]:
    """What is not ok in a grade."""
    (rung,) = [rung for rung in verification.rungs if rung.grade is grade]
    return [finding for finding in rung.findings if finding.verdict is not Verdict.OK]


def sealed(data: bytes) -> bytes:
    """The same RDB with the checksum that fits it."""
    return data[:-8] + crc64(data[:-8]).to_bytes(8, "little")


def unsealed(data: bytes) -> bytes:
    """The same RDB as a server with ``rdbchecksum no`` writes it."""
    return data[:-8] + bytes(8)


def with_data(copy: MemoryCopy, data: bytes, **facts: Any) -> MemoryCopy:
    """A copy of which the recorded facts and fingerprint say one thing, and the bytes are others."""
    assert copy.taken is not None
    taken: Mapping[str, Any] = {**copy.taken.facts, **facts}
    return MemoryCopy(data, CopyFacts(facts=taken, fingerprint=copy.taken.fingerprint))
