"""The demo's production: a PostgreSQL, a Redis, an S3 service, some configuration files, and the plan that protects
them. Everything is in temporary folders and on the loopback, and gone on leaving.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from recoup.demo.host import new_folder, remove_folder
from recoup.demo.programs import Programs, find_postgres, find_redis, find_weed
from recoup.demo.servers import PostgresServer, RedisServer, S3Server
from recoup.kernel.errors import EngineError

DATABASE = "marketplace"
LOCAL, OFFSITE = "local", "offsite"

_PLAN = """\
recoup: 1
system: Marketplace

tiers:                      # what was promised
  critical: {{rto: 4h, rpo: 24h}}
  standard: {{rto: 8h, rpo: 24h}}

services:                   # what is protected, in the order of recovery
  postgres:
    engine: postgres
    tier: critical
    url: postgresql://postgres:${{DEMO_POSTGRES_PASSWORD}}@127.0.0.1:{postgres_port}/{database}
    databases: [{database}]
    base: daily 02:00
    dump: daily 02:30
  redis:
    engine: redis
    tier: critical
    url: redis://:${{DEMO_REDIS_PASSWORD}}@127.0.0.1:{redis_port}/0
    rdb: daily 02:15
  configuration:
    engine: files
    tier: standard
    paths: [configuration]
    every: 1h

repositories:               # the first is the primary
  {local}: {{path: backups}}
  {offsite}:
    url: s3://{bucket}/production
    endpoint: {endpoint}
    region: {region}
    credentials: {{access_key: "${{DEMO_S3_ACCESS_KEY}}", secret_key: "${{DEMO_S3_SECRET_KEY}}"}}

key: {{file: recoup.key}}
"""

_CONFIGURATION = {
    "docker-compose.yml": "services:\n  api: {image: marketplace/api:4.2}\n",
    ".env": "API_PORT=3000\nCURRENCY=CAD\n",
    "nginx/default.conf": "server { listen 80; location / { proxy_pass http://api:3000; } }\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Production:
    """What is there to lose. ``folder`` holds the plan, the key, the local repository and the configuration."""

    folder: Path
    postgres: PostgresServer
    redis: RedisServer
    s3: S3Server
    bucket: str
    environment: Mapping[str, str]

    @property
    def plan(self) -> Path:
        """The plan's file."""
        return self.folder / "recoup.yaml"

    @property
    def key(self) -> Path:
        """The key's file. Not written yet when production opens."""
        return self.folder / "recoup.key"

    @property
    def configuration(self) -> Path:
        """The folder of the application's configuration."""
        return self.folder / "configuration"

    @property
    def local_repository(self) -> Path:
        """The folder of the local repository."""
        return self.folder / "backups"

    @property
    def environment_file(self) -> Path:
        """A file that a shell can source, for trying commands by hand."""
        return self.folder / "environment"

    @property
    def psql_address(self) -> str:
        """The database's address for ``psql``, without the password: that is ``PGPASSWORD`` in the environment."""
        return f"postgresql://postgres@127.0.0.1:{self.postgres.port}/{DATABASE}"

    def lose(self) -> None:
        """The disaster: everything on the machine but the key and the plan. The servers die, their data with them."""
        self.postgres.kill()
        self.redis.wipe()
        for folder in (self.postgres.data_folder, self.configuration, self.local_repository):
            shutil.rmtree(folder)

    def write_configuration(self) -> None:
        """The application's own files."""
        for name, text in _CONFIGURATION.items():
            path = self.configuration / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@contextlib.contextmanager
def open_production() -> Iterator[Production]:
    """Start everything; the database and Redis are empty. While inside, the plan's variables are in the environment.

    Raise ``EngineError`` when a server is not installed or does not start.
    """
    postgres_programs = _first("PostgreSQL", *(lambda m=major: find_postgres(m) for major in (17, 18, 16, 15)))
    redis_program = _first("Redis", *(lambda m=major: find_redis(m) for major in (8, 7, 6)))
    folder = new_folder("demo", None)
    try:
        with (
            S3Server(find_weed()) as s3,
            PostgresServer(postgres_programs, auth="scram-sha-256") as postgres,
            RedisServer(redis_program, appendonly=True) as redis,
        ):
            postgres.execute(f"CREATE DATABASE {DATABASE}")
            production = Production(
                folder=folder,
                postgres=postgres,
                redis=redis,
                s3=s3,
                bucket=s3.new_bucket(lock=True, lock_days=1, prefix="marketplace"),
                environment={
                    "DEMO_POSTGRES_PASSWORD": postgres.password or "",
                    "PGPASSWORD": postgres.password or "",
                    "DEMO_REDIS_PASSWORD": redis.password,
                    "DEMO_S3_ACCESS_KEY": s3.access_key,
                    "DEMO_S3_SECRET_KEY": s3.secret_key,
                    # The dump takes the server's own pg_dump; a shell that sources the environment finds recoup.
                    "PATH": os.pathsep.join(
                        [str(postgres.bin), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
                    ),
                    "RECOUP_FILE": str(folder / "recoup.yaml"),
                    # Leases and caches stay with the demo instead of going where those of real systems are.
                    "RECOUP_STATE": str(folder / "state"),
                },
            )
            production.write_configuration()
            _write_plan(production)
            with _environment(production.environment):
                yield production
    finally:
        remove_folder(folder)


def _first(name: str, *finders: Callable[[], Programs]) -> Programs:
    failures = []
    for find in finders:
        try:
            return find()
        except EngineError as missing:
            failures.append(missing)
    raise EngineError(f"{name} is not installed", hint=failures[0].hint)


def _write_plan(production: Production) -> None:
    production.plan.write_text(
        _PLAN.format(
            postgres_port=production.postgres.port,
            redis_port=production.redis.port,
            database=DATABASE,
            local=LOCAL,
            offsite=OFFSITE,
            bucket=production.bucket,
            endpoint=production.s3.endpoint,
            region=production.s3.region,
        )
    )
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in production.environment.items())
    production.environment_file.touch(mode=0o600)
    production.environment_file.write_text("".join(lines))


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
