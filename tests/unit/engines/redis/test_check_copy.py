"""The grade *intact* of an RDB: what passes, what fails, and what stays unknown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recoup.engines.engine import CopyFacts
from recoup.engines.redis.check_copy import check_rdb_copy
from recoup.kernel.errors import DamageError
from recoup.kernel.finding import Finding, Verdict, overall
from tests.integration.redis_copies import MemoryCopy
from tests.unit.engines.redis.test_rdb import SMALL, entry, rdb, text


def check(data: bytes, keys: dict[str, int] | None = None) -> list[Finding]:
    facts = CopyFacts(facts={} if keys is None else {"keys": keys})
    return check_rdb_copy(MemoryCopy(data, facts))


def test_an_intact_copy_with_the_counts_of_its_manifest_is_ok() -> None:
    findings = check(SMALL, {"0": 5})
    assert overall(findings) is Verdict.OK
    assert "RDB version 11 of Redis 7.2.4, 5 keys" in findings[0].detail


def test_a_copy_with_other_counts_than_its_manifest_fails_and_names_the_database() -> None:
    (wrong,) = [finding for finding in check(SMALL, {"0": 5, "2": 1}) if finding.verdict is Verdict.FAILED]
    assert wrong.detail == "database 2: 0 keys, 1 in the manifest"


def test_without_counts_in_the_manifest_the_files_own_are_used_and_a_difference_is_unknown() -> None:
    assert overall(check(SMALL)) is Verdict.OK
    wrong = rdb(b"\xfe\x00\xfb\x02\x00", entry(0, b"a", text(b"value")))
    assert overall(check(wrong)) is Verdict.UNKNOWN


@pytest.mark.parametrize("data", [SMALL[:-1], SMALL[:40], b"", SMALL + b"x", b"REDIS", b"not an RDB"])
def test_truncated_longer_and_foreign_files_fail(data: bytes) -> None:
    (finding,) = check(data, {"0": 5})
    assert finding.verdict is Verdict.FAILED
    assert finding.hint is not None


def test_a_zero_checksum_is_unknown_and_never_ok() -> None:
    findings = check(SMALL[:-8] + bytes(8), {"0": 5})
    assert overall(findings) is Verdict.UNKNOWN
    assert any("rdbchecksum" in (finding.hint or "") for finding in findings)


def test_a_format_of_the_future_is_unknown() -> None:
    assert overall(check(rdb(version=b"0080"))) is Verdict.UNKNOWN


def test_damage_that_the_repository_finds_is_raised_and_not_taken_for_the_files_own() -> None:
    class Damaged(MemoryCopy):
        def read(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
            yield self.data[:30]
            raise DamageError("frame 1 does not match its digest")

    with pytest.raises(DamageError, match="frame 1"):
        check_rdb_copy(Damaged(SMALL))
