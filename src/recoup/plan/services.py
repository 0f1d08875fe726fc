"""The services of a plan: what is protected and what is started, one model for each engine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from recoup.plan.schedule import Schedule, daily_at
from recoup.plan.template import Template
from recoup.plan.types import Duration, HttpUrl, Many, Name, RawText, Size, Text, TimeOfDay, When


class Section(BaseModel):
    """A part of a plan: unknown keys are refused, values are not converted, nothing changes after loading."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)


class Check(Section):
    """A question that must have the right answer in every restored copy."""

    sql: RawText = Field(description="One SQL query; the first value of its first row is compared.")
    name: Text | None = Field(default=None, description="What the reports call it; by default the query itself.")
    database: Text | None = Field(default=None, description="Where to ask; by default the first of `databases`.")
    at_least: int | float | None = Field(default=None, description="The value must be this or more.")
    at_most: int | float | None = Field(default=None, description="The value must be this or less.")
    equals: bool | int | float | str | None = Field(default=None, description="The value must be exactly this.")


def _splittable(value: str) -> str:
    try:
        words = shlex.split(value)
    except ValueError as wrong:
        raise ValueError(f"cannot be split into a command and its arguments: {str(wrong).lower()}") from None
    if not words:
        raise ValueError("names no command")
    return value


class RedisCheck(Section):
    """A command that only reads, and what its answer must be in every restored copy."""

    redis: Annotated[RawText, AfterValidator(_splittable)] = Field(
        description="One Redis command that only reads, as in `GET config:version`; no shell. Of a list, its length "
        "is compared."
    )
    name: Text | None = Field(default=None, description="What the reports call it; by default the command itself.")
    database: Annotated[int, Field(ge=0)] = Field(default=0, description="The number of the database to ask.")
    at_least: int | float | None = Field(default=None, description="The answer must be this or more.")
    at_most: int | float | None = Field(default=None, description="The answer must be this or less.")
    equals: bool | int | float | str | None = Field(default=None, description="The answer must be exactly this.")


class FilesCheck(Section):
    """Files that must be in every restored copy."""

    file: RawText = Field(
        description="A path in the copy, relative to the plan's folder; `*` stands for anything, also for `/`."
    )
    name: Text | None = Field(default=None, description="What the reports call it; by default the path itself.")
    at_least: Annotated[int, Field(ge=1)] = Field(default=1, description="So many files must have such a path.")
    contains: RawText | None = Field(default=None, description="A text that must be in each of them.")


class _Service(Section):
    tier: Name | None = Field(default=None, description="One of `tiers`: what was promised for it.")
    rpo: Duration | None = Field(default=None, description="Its own limit of lost data, instead of the tier's.")
    rto: Duration | None = Field(default=None, description="Its own limit of time to recovery, instead of the tier's.")
    after: Many[Name] = Field(default=(), description="Services that must be back before it.")
    health: HttpUrl | None = Field(default=None, description="A web address that answers 2xx when it is healthy.")

    def schedules(self) -> Mapping[str, Schedule]:
        """When copies are taken, by kind. What runs without end (WAL, the Redis stream) is not in it."""
        return {}


class PostgresService(_Service):
    """A PostgreSQL server."""

    engine: Literal["postgres"] = Field(description="PostgreSQL 14 to 18.")
    compose: Text | None = Field(default=None, description="Its service in the Compose file. Or give `url`.")
    url: Template | None = Field(
        default=None, description="Where it is, without Compose: postgresql://user@host:5432/database."
    )
    user: Template | None = Field(
        default=None, description="The role to connect as; by default the container's POSTGRES_USER."
    )
    password: Template | None = Field(
        default=None, description="A reference; by default the container's POSTGRES_PASSWORD."
    )
    database: Template | None = Field(default=None, description="The database to connect to; by default POSTGRES_DB.")
    databases: Many[Template] = Field(default=(), description="What is dumped and compared; all of them when empty.")
    base: When | None = Field(default=None, description="When a base backup is taken.")
    incremental: When | None = Field(
        default=None,
        description="When what changed since the newest base or incremental backup is copied (PostgreSQL 17 and "
        "later, with `summarize_wal` on).",
    )
    dump: When | None = Field(default=None, description="When each database is dumped.")
    wal: Literal["continuous"] | None = Field(default=None, description="Streams the WAL, for recovery to any instant.")
    wal_every: Duration = Field(
        default=timedelta(seconds=5),
        description="How often WAL that does not fill a segment yet is archived: the most that a lost server loses.",
    )
    wal_heartbeat: Duration = Field(
        default=timedelta(minutes=1),
        description="How often a tiny transaction is committed, so that an idle server is provably alive and can be "
        "restored to any time.",
    )
    heartbeat: bool = Field(
        default=False,
        description="Writes the time into the table `recoup.heartbeat` of the database `postgres` with each heartbeat "
        "and before each base backup, so that drills measure lost data by a record. `recoup check --prepare` makes it.",
    )
    wal_limit: Size | None = Field(
        default=None,
        description="How much WAL the server may hold for the archive. By default its `max_slot_wal_keep_size`, or "
        "10GiB when that is unlimited.",
    )
    protect: Literal["production", "archive"] = Field(
        default="production",
        description="What gives way when `wal_limit` is reached: `production` lets the WAL go, with a gap in the "
        "archive and an alarm; `archive` keeps it, until the server's disk is full.",
    )
    dump_format: Literal["custom", "plain"] = Field(
        default="custom", description="`plain` is SQL text; `custom` restores in parallel."
    )
    dump_compression: Literal["zstd", "gzip"] = Field(default="zstd", description="`gzip` for tools that know no zstd.")
    fingerprint: bool = Field(
        default=True, description="Computes a fingerprint of every table, to compare restored copies with."
    )
    checks: Many[Check] = Field(default=(), description="Must hold in every restored copy.")

    def schedules(self) -> Mapping[str, Schedule]:
        """When copies are taken: ``base``, ``incremental`` and ``dump``."""
        schedules = (("base", self.base), ("incremental", self.incremental), ("dump", self.dump))
        return {kind: when for kind, when in schedules if when is not None}


class RedisService(_Service):
    """A Redis server."""

    engine: Literal["redis"] = Field(description="Redis 6 and later, and Valkey.")
    compose: Text | None = Field(default=None, description="Its service in the Compose file. Or give `url`.")
    url: Template | None = Field(
        default=None, description="Where it is, without Compose: redis://:${REDIS_PASSWORD}@host:6379/0."
    )
    user: Template | None = Field(default=None, description="The ACL user to connect as; by default `default`.")
    password: Template | None = Field(
        default=None, description="A reference; by default what the container was started with."
    )
    rdb: When | None = Field(default=None, description="When an RDB snapshot is taken.")
    stream: Literal["continuous"] | None = Field(
        default=None, description="Keeps the command stream, to go back to any instant."
    )
    stream_every: Duration = Field(
        default=timedelta(seconds=5), description="How often what came of the stream is stored: the most that is lost."
    )
    heartbeat: bool = Field(
        default=False,
        description="Writes the time into the key `recoup:heartbeat` of database 0, every minute beside the stream and "
        "before each RDB, so that drills measure lost data by a record. Never the only key.",
    )
    fingerprint: bool = Field(
        default=True, description="Computes a fingerprint of every key, to compare restored copies with."
    )
    checks: Many[RedisCheck] = Field(default=(), description="Must hold in every restored copy.")

    def schedules(self) -> Mapping[str, Schedule]:
        """When copies are taken: ``rdb``."""
        return {} if self.rdb is None else {"rdb": self.rdb}


class FilesService(_Service):
    """A set of files, and the state of a Git work tree."""

    engine: Literal["files"] = Field(description="Files and folders.")
    paths: Many[Template] = Field(default=(), description="Files and folders, relative to the plan's folder.")
    exclude: Many[RawText] = Field(default=(), description="Patterns of what is left out: `*.tmp`, `cache/**`.")
    git: Template | None = Field(
        default=None, description="A Git work tree: its commit, a bundle, and what is not committed."
    )
    every: Duration | None = Field(default=None, description="How often a copy is taken. Or give `daily`.")
    daily: TimeOfDay | None = Field(default=None, description='When a copy is taken each day, as in "03:00".')
    keep: Duration | None = Field(default=None, description="How long copies are kept, instead of `retention`.")
    checks: Many[FilesCheck] = Field(default=(), description="Must hold in every restored copy.")

    def schedules(self) -> Mapping[str, Schedule]:
        """When copies are taken: ``files``."""
        if self.every is not None:
            return {"files": Schedule(text="every", every=self.every)}
        return {} if self.daily is None else {"files": daily_at(self.daily)}


class ComposeService(_Service):
    """A container that holds no data: stopped before a restore, started after it."""

    engine: Literal["compose"] = Field(description="A service of the Compose file that holds no data.")
    compose: Text | None = Field(
        default=None, description="Its service in the Compose file, when it has another name there."
    )


Service = Annotated[PostgresService | RedisService | FilesService | ComposeService, Field(discriminator="engine")]

ENGINES = ("postgres", "redis", "files", "compose")
