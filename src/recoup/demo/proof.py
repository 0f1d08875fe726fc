"""Is what came back what was copied? Compares running, restored servers and files with the fingerprints of copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recoup.demo.servers import PostgresServer
from recoup.engines.engine import Content, Progress, StreamSink
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.base_fingerprint import compare_with_base
from recoup.engines.redis import fingerprint as redis_fingerprint
from recoup.engines.redis.connection import connect, read_info
from recoup.engines.redis.snapshot import server_time_ms, take_rdb
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.secret import Secret

_EQUAL = "the content equals the copied one"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCount:
    """The rows of one table: in the copy, when the disaster came, and in what was restored."""

    name: str
    copied: int
    lost: int
    restored: int

    @property
    def equal(self) -> bool:
        """Whether as many came back as were copied."""
        return self.copied == self.restored


def prove_postgres(fingerprint: Mapping[str, Any] | None, url: str) -> list[Finding]:
    """One finding for each difference, or one that all is equal."""
    return compare_with_base(fingerprint, DirectAccess(Secret(url)))


def copied_tables(fingerprint: Mapping[str, Any] | None, database: str) -> dict[str, int]:
    """How many rows each table had when it was copied, by its quoted name. Partitions stand for themselves."""
    if fingerprint is None:
        return {}
    tables = fingerprint["databases"][database]["tables"]
    return {name: int(entry["rows"]) for name, entry in tables.items() if "rows" in entry}


def count_tables(server: PostgresServer, database: str) -> dict[str, int]:
    """How many rows each table has now, by the name that ``copied_tables`` gives it."""
    tables = server.execute(
        """SELECT format('"%s"."%s"', schemaname, name) FROM (
               SELECT schemaname, tablename AS name FROM pg_tables WHERE schemaname = 'public'
               UNION ALL SELECT schemaname, matviewname FROM pg_matviews) AS t""",
        database,
    )
    counted = {}
    for (name,) in tables:
        query = f"SELECT count(*) FROM ONLY {name}"  # noqa: S608 the demo's own tables
        counted[str(name)] = int(server.execute(query, database)[0][0])
    return counted


def prove_redis(fingerprint: Mapping[str, Any] | None, url: str) -> list[Finding]:
    """One finding for each database of Redis. The restored server is asked for its data as a replica would."""
    if fingerprint is None:
        said = "the copy has no fingerprint"
        return [
            Finding(check="the content equals the copied one", subject="redis", verdict=Verdict.UNKNOWN, detail=said)
        ]
    with connect(url) as connection:
        at_ms = server_time_ms(connection)
    sink = _Memory()
    take_rdb(url, sink, on_progress=_silent, fingerprint=False)
    now = redis_fingerprint.fingerprint_rdb(sink.pieces, at_ms=at_ms, origin_ms=fingerprint["origin_ms"])
    return [replace(one, subject=f"redis {one.subject}") for one in redis_fingerprint.compare(fingerprint, now)]


def prove_still_append_only(url: str) -> list[Finding]:
    """Redis logs every write again: a server that had an append-only file and lost that is not what it was."""
    with connect(url) as connection:
        on = read_info(connection, "persistence").get("aof_enabled") == "1"
    return [
        Finding(
            check="writes are logged",
            subject="redis log",
            verdict=Verdict.OK if on else Verdict.FAILED,
            detail="the append-only file is in use" if on else "there is no append-only file any more",
        )
    ]


def prove_locked(client: Any, bucket: str) -> list[Finding]:
    """Try what an intruder with our S3 keys would: delete a copy for good. The bucket's Object Lock must refuse."""
    from botocore.exceptions import ClientError

    versions = client.list_object_versions(Bucket=bucket, Prefix="production/artefacts/")["Versions"]
    check, subject, victim = "copies cannot be deleted", f"s3://{bucket}", versions[0]
    try:
        client.delete_object(Bucket=bucket, Key=victim["Key"], VersionId=victim["VersionId"])
    except ClientError as refused:
        code = refused.response["Error"]["Code"]
        verdict = Verdict.OK if code == "AccessDenied" else Verdict.UNKNOWN
        detail = f"{len(versions)} objects; deleting one with the S3 keys was answered with {code}"
        return [Finding(check=check, subject=subject, verdict=verdict, detail=detail)]
    finally:
        client.close()
    return [Finding(check=check, subject=subject, verdict=Verdict.FAILED, detail=f"{victim['Key']} could be deleted")]


def read_files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def prove_files(before: Mapping[str, bytes], folder: Path) -> list[Finding]:
    """One finding on all files of a folder."""
    now = read_files(folder)
    different = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return [
        Finding(
            check=_EQUAL,
            subject=folder.name,
            verdict=Verdict.FAILED if different else Verdict.OK,
            detail=f"other or missing: {', '.join(different)}" if different else f"{len(now)} files",
        )
    ]


class _Memory:
    """Keeps one stream in memory: the demo's Redis holds less than a megabyte."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    @contextmanager
    def stream(
        self,
        name: str,  # noqa: ARG002
        *,
        content: Content = Content.OPAQUE,  # noqa: ARG002
        expected_bytes: int | None = None,  # noqa: ARG002
    ) -> Iterator[StreamSink]:
        yield self

    def write(self, data: bytes | memoryview) -> None:
        self.pieces.append(bytes(data))


def _silent(_progress: Progress, /) -> None:
    return None
