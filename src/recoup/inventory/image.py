"""What an image's name says about what is in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The last part of the name. What stands beside a database (exporters, poolers, clients, backup tools) is none.
_POSTGRES = re.compile(
    r"(postgres|postgresql|postgis|timescaledb|timescale|pgvector|citus|paradedb|spilo)([-_][\w-]+)?"
)
_REDIS = re.compile(r"(redis|valkey|keydb)([-_](stack|stack-server|server|bundle|ha|alpine))?")
_BESIDE = re.compile(
    r"export|backup|client|operator|bounc|pool|admin|proxy|rest|sentinel|commander|insight|cli|job|init"
)
_VERSION = re.compile(r"(?:.*?pg)?v?(\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageName:
    """The parts of ``registry.example.org:5000/team/postgres:15-alpine@sha256:…``."""

    path: str  #: ``registry.example.org:5000/team/postgres``
    name: str  #: ``postgres``
    tag: str | None  #: ``15-alpine``
    digest: str | None

    @property
    def publisher(self) -> str:
        """The part before the name: ``bitnami``, or nothing for official images."""
        return self.path.rpartition("/")[0].rpartition("/")[2]


def parse_image(text: str) -> ImageName:
    """Take the name of an image apart (https://pkg.go.dev/github.com/distribution/reference)."""
    rest, _, digest = text.partition("@")
    # A colon before the last slash is the port of a registry.
    head, _, last = rest.rpartition("/")
    name, _, tag = last.partition(":")
    return ImageName(path=f"{head}/{name}" if head else name, name=name, tag=tag or None, digest=digest or None)


def is_postgres(image: ImageName) -> bool:
    """Whether an image is a PostgreSQL server by its name."""
    return _POSTGRES.fullmatch(image.name) is not None and _BESIDE.search(image.name) is None


def is_redis(image: ImageName) -> bool:
    """Whether an image is a Redis, Valkey or KeyDB server by its name."""
    return _REDIS.fullmatch(image.name) is not None and _BESIDE.search(image.name) is None


def version_in(image: ImageName) -> str | None:
    """The version that a tag begins with: ``15`` of ``15-alpine``, ``16`` of ``latest-pg16``; None for ``latest``."""
    if image.tag is None:
        return None
    # postgis/postgis:15-3.4, timescale/timescaledb:2.14.2-pg15, pgvector/pgvector:pg16
    by_server = re.search(r"pg(\d+)", image.tag)
    if by_server is not None:
        return by_server[1]
    match = _VERSION.match(image.tag)
    return match[1] if match is not None else None
