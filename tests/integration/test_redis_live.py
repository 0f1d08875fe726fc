"""Redis copies in a sandbox: a good one reaches the top, and each planted damage is caught at its grade and named."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.engines.engine import CopyFacts
from recoup.engines.redis.fingerprint import fingerprint_rdb
from recoup.engines.redis.plan_checks import RedisCheck
from recoup.engines.redis.snapshot import milliseconds_now
from recoup.kernel.finding import Verdict
from recoup.verification.grade import Grade
from tests.integration.live_redis import bad, launcher_of, proven, sealed, unsealed, verdicts, with_data
from tests.integration.redis_copies import MemoryCopy, fill, take
from tests.real import require_found
from tests.unit.engines.redis.test_rdb import entry, rdb, text

pytestmark = pytest.mark.redis
OK, FAILED, UNKNOWN = Verdict.OK, Verdict.FAILED, Verdict.UNKNOWN


def test_a_good_copy_with_every_type_reaches_the_highest_grade(any_redis: RedisServer, tmp_path: Path) -> None:
    fill(any_redis)
    copy = take(any_redis)
    done = proven(copy, launcher_of(any_redis), tmp_path)
    assert done.reached is Grade.WORKS, bad(done, Grade.BOOTS) + bad(done, Grade.SOUND)
    assert set(verdicts(done).values()) == {OK}
    said = " ".join(finding.detail for finding in done.findings)
    assert f"loaded {sum(copy.facts['keys'].values())} keys" in said
    assert "stream" in said
    assert "202 expire" in said
    assert list(tmp_path.glob("*")) == [tmp_path / "door.lock"]


def test_a_flipped_bit_and_a_truncated_copy_do_not_boot(any_redis: RedisServer, tmp_path: Path) -> None:
    fill(any_redis)
    copy, launcher = take(any_redis), launcher_of(any_redis)
    middle = len(copy.data) // 2
    flipped = copy.data[:middle] + bytes([copy.data[middle] ^ 4]) + copy.data[middle + 1 :]
    for data, named in ((flipped, "checksum is wrong"), (copy.data[:-100], "truncated")):
        done = proven(with_data(copy, data), launcher, tmp_path)
        assert verdicts(done) == {Grade.BOOTS: FAILED}
        assert named in bad(done, Grade.BOOTS)[0].detail
        assert done.reached is Grade.INTACT


def _structure_damaged(data: bytes) -> bytes:
    """A packed hash whose inner lengths lie: a server that believes them reads beyond it."""
    place = data.index(b"hash:small") + len(b"hash:small")
    inside = data.index(b"name", place) - 1  # the length of the first field's name, in a listpack and a ziplist
    assert data[inside] in (0x84, 4)
    return data[:inside] + bytes([data[inside] + 0x30]) + data[inside + 1 :]


def test_damaged_structure_without_a_checksum_is_found_by_the_server_and_by_us(
    any_redis: RedisServer, tmp_path: Path
) -> None:
    fill(any_redis)
    copy, launcher = take(any_redis), launcher_of(any_redis)
    done = proven(with_data(copy, unsealed(_structure_damaged(copy.data))), launcher, tmp_path)
    assert verdicts(done) == {Grade.BOOTS: FAILED}
    (finding,) = bad(done, Grade.BOOTS)
    assert "Redis does not load it" in finding.detail


def test_a_changed_value_without_a_checksum_never_ends_green(any_redis: RedisServer, tmp_path: Path) -> None:
    fill(any_redis)
    copy, launcher = take(any_redis), launcher_of(any_redis)
    assert copy.data.count(b"odd key") == 1
    changed = unsealed(copy.data.replace(b"odd key", b"odd kez"))
    # On the way: what was recorded tells. No grade above boots holds.
    done = proven(with_data(copy, changed), launcher, tmp_path)
    assert verdicts(done) == {Grade.BOOTS: OK, Grade.SOUND: UNKNOWN, Grade.SAME: FAILED, Grade.WORKS: OK}
    assert {(one.subject, one.detail) for one in bad(done, Grade.SAME)} == {
        ("database 0", f"string: other content in the {_permanent_strings(copy)} without expiry")
    }
    # Before we saw it: nothing can tell, and that is said.
    assert copy.fingerprint is not None
    recorded = fingerprint_rdb([changed], at_ms=copy.fingerprint["at_ms"])
    done = proven(MemoryCopy(changed, CopyFacts(facts=copy.facts, fingerprint=recorded)), launcher, tmp_path)
    assert verdicts(done)[Grade.SOUND] is UNKNOWN
    assert done.verdict is UNKNOWN
    assert done.reached is Grade.BOOTS
    (finding,) = bad(done, Grade.SOUND)
    assert "rdbchecksum no" in finding.detail
    assert any("rdbchecksum" in one.not_checked for one in done.findings if one.verdict is OK)


def _permanent_strings(copy: MemoryCopy) -> int:
    assert copy.fingerprint is not None
    return int(copy.fingerprint["databases"]["0"]["string"]["permanent"][0])


def test_what_changed_on_the_way_is_named_by_its_database_and_type(redis7: RedisServer, tmp_path: Path) -> None:
    fill(redis7)
    copy, launcher = take(redis7), launcher_of(redis7)
    value = proven(with_data(copy, sealed(copy.data.replace(b"odd key", b"odd kez"))), launcher, tmp_path)
    assert verdicts(value)[Grade.SOUND] is OK
    assert {one.detail.split(":")[0] for one in bad(value, Grade.SAME)} == {"string"}
    with contextlib.closing(redis7.client()) as client:
        client.delete("zset:big")
        missing = proven(with_data(copy, take(redis7).data), launcher, tmp_path)
        assert {one.detail for one in bad(missing, Grade.SAME)} == {"zset: 2 without expiry before, 1 now"}
        assert missing.reached is Grade.SOUND
        client.move("set:words", 3)
        moved = proven(with_data(copy, take(redis7).data), launcher, tmp_path)
        assert {one.subject for one in bad(moved, Grade.SAME) if "set:" in one.detail} == {"database 0", "database 3"}


def test_an_earlier_expiry_is_caught_also_when_it_has_passed(redis7: RedisServer, tmp_path: Path) -> None:
    with contextlib.closing(redis7.client()) as client:
        client.set("stays", 1)
        client.set("goes", 1, exat=4_102_444_800)
    copy = take(redis7)
    late, gone = struct.pack("<q", 4_102_444_800_000), struct.pack("<q", 1_700_000_000_000)
    assert copy.data.count(late) == 1
    done = proven(with_data(copy, sealed(copy.data.replace(late, gone))), launcher_of(redis7), tmp_path)
    assert verdicts(done)[Grade.SOUND] is OK
    assert {one.detail for one in bad(done, Grade.SAME)} == {"string: 1 that expire before, 0 now"}


def _copy_of_what_expires_soon(server: RedisServer, *names: str) -> MemoryCopy:
    """A copy with these keys in it, all of which have expired since."""
    with contextlib.closing(server.client()) as client:
        others = len(client.keys())
        for milliseconds in (3_000, 15_000, 75_000):  # they must live until they are copied, however long that takes
            for name in names:
                client.set(name, 1, px=milliseconds)
            copy = take(server)
            assert copy.fingerprint is not None
            held = copy.fingerprint["databases"].get("0", {}).get("string", {}).get("keys", 0)
            if held == others + len(names):
                break
        assert held == others + len(names)
        assert wait_until(
            lambda: milliseconds_now() > copy.fingerprint["at_ms"] + milliseconds + 200, limit_seconds=120
        )
    return copy


def test_what_expired_since_the_copy_is_compared_in_the_copy_and_said(redis8: RedisServer, tmp_path: Path) -> None:
    with contextlib.closing(redis8.client()) as client:
        client.set("stays", 1)
    launcher = launcher_of(redis8)
    copy = _copy_of_what_expires_soon(redis8, *(f"goes:{number}" for number in range(30)))
    done = proven(copy, launcher, tmp_path, checks=[RedisCheck(command="GET stays", equals=1)])
    assert done.reached is Grade.WORKS, done
    exact, served = (one for one in done.findings if "recorded" in one.check)
    assert exact.detail == "31 keys and expiring fields are equal"
    assert "30" in served.not_checked
    # When all of them have gone, an empty server proves nothing.
    with contextlib.closing(redis8.client()) as client:
        client.delete("stays")
    copy = _copy_of_what_expires_soon(redis8, "goes")
    done = proven(copy, launcher, tmp_path)
    assert verdicts(done)[Grade.SAME] is UNKNOWN
    assert "have expired since the copy" in bad(done, Grade.SAME)[0].detail


def test_a_copy_without_a_fingerprint_is_not_the_same_but_unknown(redis7: RedisServer, tmp_path: Path) -> None:
    fill(redis7)
    done = proven(take(redis7, fingerprint=False), launcher_of(redis7), tmp_path)
    assert verdicts(done) == {Grade.BOOTS: OK, Grade.SOUND: OK, Grade.SAME: UNKNOWN, Grade.WORKS: OK}
    assert "fingerprint: true" in (bad(done, Grade.SAME)[0].hint or "")


def test_what_a_server_drops_while_it_loads_is_not_sound(redis7: RedisServer, tmp_path: Path) -> None:
    """Redis 7 passes over an empty list without an error: the copy says one thing, the server holds another."""
    data = rdb(b"\xfe\x00", entry(0, b"kept", text(b"value")), entry(1, b"dropped", b"\x00"), version=b"0009")
    facts = {"redis_version": "7.0.15", "keys": {"0": 2}}
    recorded = fingerprint_rdb([data], at_ms=milliseconds_now())
    done = proven(MemoryCopy(data, CopyFacts(facts=facts, fingerprint=recorded)), launcher_of(redis7), tmp_path)
    assert verdicts(done)[Grade.SOUND] is FAILED
    assert {one.detail for one in bad(done, Grade.SOUND)} == {"list: 1 without expiry before, 0 now"}
    assert verdicts(done)[Grade.SAME] is FAILED


def test_a_missing_module_is_unknown_and_named(redis7: RedisServer, tmp_path: Path) -> None:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    identity = 0
    for letter in b"nosuchmod":
        identity = identity << 6 | alphabet.index(letter)
    module = b"\x81" + (identity << 10 | 1).to_bytes(8, "big") + b"\x05" + text(b"value") + b"\x00"
    data = rdb(b"\xfe\x00", entry(7, b"key", module), version=b"0009")
    with contextlib.closing(redis7.client()) as client:
        version = client.info("server")["redis_version"]
    copy = MemoryCopy(data, CopyFacts(facts={"redis_version": version, "keys": {"0": 1}}))
    done = proven(copy, launcher_of(redis7), tmp_path)
    assert set(verdicts(done).values()) == {UNKNOWN}
    assert "the sandbox lacks the module nosuchmod" in bad(done, Grade.BOOTS)[0].detail


def test_another_release_than_the_copys_is_said_and_an_older_one_is_refused(
    redis6: RedisServer, redis7: RedisServer, tmp_path: Path
) -> None:
    fill(redis6)
    done = proven(take(redis6), launcher_of(redis7), tmp_path)
    assert verdicts(done) == {Grade.BOOTS: UNKNOWN, Grade.SOUND: OK, Grade.SAME: OK, Grade.WORKS: OK}
    assert "started with Redis 7.0.15, taken from Redis 6.2.14" in bad(done, Grade.BOOTS)[0].detail
    fill(redis7)
    done = proven(take(redis7), launcher_of(redis6), tmp_path)
    assert verdicts(done) == {Grade.BOOTS: UNKNOWN}
    assert "loads up to 9" in bad(done, Grade.BOOTS)[0].detail


def test_a_copy_that_needs_more_memory_than_is_free_is_not_loaded(redis7: RedisServer, tmp_path: Path) -> None:
    copy = take(redis7)
    done = proven(with_data(copy, copy.data, used_memory_bytes=1 << 50), launcher_of(redis7), tmp_path)
    assert verdicts(done) == {Grade.BOOTS: UNKNOWN}
    assert "of memory" in bad(done, Grade.BOOTS)[0].detail


def test_a_server_that_is_written_without_a_checksum_gives_copies_that_stay_unknown(tmp_path: Path) -> None:
    with RedisServer(require_found(lambda: find_redis(7)), settings={"rdbchecksum": "no"}) as server:
        fill(server)
        copy = take(server)
        done = proven(copy, launcher_of(server), tmp_path)
    assert copy.facts["checksum"] is False
    assert done.verdict is UNKNOWN
    assert done.reached is Grade.BOOTS


def test_an_empty_redis_is_proven_as_what_it_is_and_no_check_of_it_proves_anything(
    redis7: RedisServer, tmp_path: Path
) -> None:
    done = proven(take(redis7), launcher_of(redis7), tmp_path, checks=[RedisCheck(command="DBSIZE", equals=0)])
    assert verdicts(done) == {Grade.BOOTS: OK, Grade.SOUND: OK, Grade.SAME: OK, Grade.WORKS: UNKNOWN}
