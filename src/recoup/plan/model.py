"""The plan as data: what ``recoup.yaml`` says once it was read. Use ``recoup.plan.load`` to get one.

Every key has a description; the JSON Schema and the reference page are generated from them.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from recoup.objectives.objective import Objective
from recoup.plan.people import Alarms, Channel, Communication, Drill, Listening, Member, Recovery, RotatedSecret, Vendor
from recoup.plan.proving import Verify
from recoup.plan.services import PostgresService, RedisService, Section, Service
from recoup.plan.template import Template
from recoup.plan.types import (
    Day,
    Duration,
    DurationOrZero,
    HttpUrl,
    Many,
    Name,
    RawText,
    Text,
    Variable,
    When,
    Zone,
    splittable,
)

#: A program and its arguments, as one text or as a list.
Program = Annotated[str, AfterValidator(splittable)] | Annotated[Many[RawText], Field(min_length=1)]
CopyKind = Literal["base", "incremental", "dump", "rdb", "wal", "stream", "files", "images"]


class Agreement(Section):
    """The document: which version, who approved it, when it is looked at again."""

    version: Text | None = Field(default=None, description="The version of the plan, yours to count.")
    approved_by: Text | None = Field(default=None, description="Who agreed to it.")
    updated: Day | None = Field(default=None, description="The day of the last change.")
    next_review: Day | None = Field(default=None, description="The day by which it is looked at again.")


class Compose(Section):
    """The Docker Compose project that is protected."""

    file: Template | None = Field(default=None, description="The Compose file. Or give `files`.")
    files: Many[Template] = Field(default=(), description="Several Compose files; later ones override earlier ones.")
    env_files: Many[Template] = Field(default=(), description="Env files; references are looked up here too.")
    source: Text | None = Field(default=None, description="The Git repository it comes from, for a new server.")
    profiles: Many[Text] = Field(default=(), description="Compose profiles that are on.")
    project: Text | None = Field(default=None, description="The project's name, when it is not the folder's.")
    keep_images: bool = Field(
        default=False,
        description="Keeps the images that the stack runs, each once, so that it comes back without a registry. Looked "
        "at with every copy of files.",
    )

    def all_files(self) -> tuple[Template, ...]:
        """The Compose files in order; empty means Compose's own default names."""
        return self.files if self.file is None else (self.file,)


class Tier(Section):
    """What was promised for the services of a tier."""

    rto: Duration = Field(description="The longest time until users are served again.")
    rpo: Duration = Field(description="The most data, as time, that may be lost.")


class Credentials(Section):
    """How to sign in to an S3 service; without it boto3's own ways are used (environment, profile, instance)."""

    access_key: Template = Field(description="A reference to the access key's id.")
    secret_key: Template = Field(description="A reference to the secret key.")


Count = Annotated[int, Field(ge=1, le=100_000)]


class Retention(Section):
    """How many copies are kept. A copy stays as long as one of the rules keeps it."""

    last: Count | None = Field(default=None, description="The newest so many.")
    hourly: Count | None = Field(default=None, description="The newest of each hour, for so many hours.")
    daily: Count | None = Field(default=None, description="The newest of each day, for so many days.")
    weekly: Count | None = Field(default=None, description="The newest of each ISO week, for so many weeks.")
    monthly: Count | None = Field(default=None, description="The newest of each month, for so many months.")
    yearly: Count | None = Field(default=None, description="The newest of each year, for so many years.")
    wal: Duration | None = Field(default=None, description="How far back any instant can be reached.")
    minimum: Count = Field(
        default=2, description="The newest so many good ones of each service and kind stay, whatever the rules say."
    )

    @property
    def counts(self) -> dict[str, int]:
        """The rules that count copies: how many, by period. Without one, no copy expires."""
        names = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
        return {name: count for name in names if (count := getattr(self, name)) is not None}


def _s3_url(value: Template) -> Template:
    filled = value.expand(lambda _name: "reference")
    if not re.fullmatch(r"s3://[a-z0-9A-Z][a-zA-Z0-9._-]{1,254}(/[A-Za-z0-9._/-]*)?", filled):
        raise ValueError("not an address of a repository (write s3://bucket/folder, or use path for a folder)")
    return value


class RepositoryPlan(Section):
    """A place where copies live: `path` or `url`."""

    path: Template | None = Field(default=None, description="A folder, best on another disk.")
    url: Annotated[Template, AfterValidator(_s3_url)] | None = Field(
        default=None, description="An S3 bucket: s3://bucket/folder."
    )
    region: Text | None = Field(default=None, description="The bucket's region.")
    endpoint: Template | None = Field(default=None, description="The address of an S3 service other than Amazon's.")
    credentials: Credentials | None = Field(default=None, description="References to the access keys.")
    copies: Many[CopyKind] | None = Field(
        None, alias="copy", description="The kinds of copies it gets; all by default."
    )
    required: bool = Field(
        default=True,
        description="Whether WAL counts as safe only when it is here too. When `false`, a failure here holds nothing "
        "up, and what was missed is copied from another repository later.",
    )
    lock: Duration | None = Field(default=None, description="How long an object cannot be deleted (S3 Object Lock).")
    storage_class: Text | None = Field(default=None, description="The S3 storage class of large objects.")
    retention: Retention | None = Field(
        default=None, description="How long copies are kept there, instead of the plan's `retention`."
    )

    def takes(self, kind: str) -> bool:
        """Whether copies of this kind go there."""
        return self.copies is None or kind in self.copies


class Key(Section):
    """Where the backup key is. Exactly one of these."""

    env: Variable | None = Field(default=None, description="A variable of the environment or of an env file.")
    file: Template | None = Field(default=None, description="A file; its first line is the key.")
    command: Program | None = Field(
        default=None, description="A program and its arguments (no shell); the first line it writes is the key."
    )
    credential: Name | None = Field(default=None, description="The name of a systemd credential.")


class Plan(Section):
    """The whole agreement."""

    recoup: Literal[1] = Field(description="The version of this file's format: 1.")
    system: Text = Field(description="What this is the plan of, as people call it.")
    timezone: Zone = Field("UTC", description="The time zone in which schedules are meant.")
    jitter: DurationOrZero = Field(
        default=timedelta(minutes=2),
        description="Scheduled work begins up to so much later, by a delay that is fixed for each task and differs "
        "between systems; at most a tenth of the time between two runs, and none for `every`.",
        json_schema_extra={"default": "2m"},
    )
    plan: Agreement = Field(default=Agreement(), description="Version, approver and next review.")
    compose: Compose | None = Field(default=None, description="The Docker Compose project, when there is one.")
    tiers: dict[Name, Tier] = Field(default={}, description="What was promised: RTO and RPO by tier.")
    services: dict[Name, Service] = Field(min_length=1, description="What is protected, in the order of recovery.")
    repositories: dict[Name, RepositoryPlan] = Field(
        min_length=1, description="Where copies live; the first is primary."
    )
    stack: When | None = Field(
        default=None, description="When a stack point is taken: copies of all services under one label."
    )
    key: Key = Field(description="Where the backup key is.")
    retention: Retention = Field(
        default=Retention(daily=30, weekly=52, monthly=84, wal=timedelta(days=7)),
        description="How long copies are kept.",
    )
    verify: Verify = Field(default=Verify(), description="How copies are proven.")
    drill: Drill | None = Field(default=None, description="How the recovery is rehearsed.")
    recovery: Recovery = Field(default=Recovery(), description="How the recovery itself is carried out.")
    provision: Program | None = Field(
        default=None,
        description="A program and its arguments (no shell) that makes a new server, run by `recoup recover "
        "server-loss --host` before anything else. The last line it writes that is an address (ssh://…) is taken "
        "instead of `--host`. It gets RECOUP_SYSTEM, RECOUP_SITUATION and RECOUP_HOST, and no secret.",
    )
    team: dict[Name, Member] = Field(default={}, description="Who does what, by role.")
    vendors: dict[Name, Vendor] = Field(default={}, description="Who outside is called.")
    channels: dict[Name, Many[Channel]] = Field(default={}, description="Where messages go: Apprise addresses.")
    communication: Communication = Field(default=Communication(), description="Who is told what, and when.")
    alarms: Alarms = Field(default=Alarms(), description="Who is told when protection fails.")
    pings: dict[Name, HttpUrl] = Field(
        default={},
        description="Dead-man services that hear of each run: `backup`, or a service's name, and an address of "
        "healthchecks or of an Uptime Kuma push monitor.",
    )
    metrics: Listening | None = Field(
        default=None, description="Where the daemon serves `/metrics`; best on the loopback."
    )
    secrets: dict[Name, RotatedSecret] = Field(default={}, description="What a breach rotates.")

    def databases(self) -> dict[str, PostgresService | RedisService]:
        """The services that are database servers, in the plan's order."""
        return {n: s for n, s in self.services.items() if isinstance(s, PostgresService | RedisService)}

    def objective(self, service: str) -> Objective:
        """What was promised for a service: its tier's numbers, or its own where it has them."""
        described = self.services[service]
        tier = None if described.tier is None else self.tiers[described.tier]
        promised = Objective() if tier is None else Objective(rto=tier.rto, rpo=tier.rpo)
        return promised.overridden(rto=described.rto, rpo=described.rpo)
