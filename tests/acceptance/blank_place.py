"""A production that is lost with its machine, and a blank machine that has nothing but a bucket within reach."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from recoup.demo.s3_server import S3Server
from tests.acceptance.admin import CLIENT_SEES_ORDERS
from tests.acceptance.workplace import RECOUP, s3_environment
from tests.cable import Cable, in_network_of, listen_on
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Machine, copy_images

__all__ = ["BlankPlace", "blank_place", "git", "in_network_of"]

T = TypeVar("T")

#: Nobody is there: no forge answers on these machines, and no registry.
FORGE = "https://forge.invalid/marketplace.git"

_PLAN = f"\ndrill:\n  flows:{CLIENT_SEES_ORDERS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlankPlace:
    """The lost production, as it is in the bucket, and the machine that is to carry it from now on."""

    stack: Stack  #: of production; its folder is gone when production is lost
    blank: Machine
    folder: Path  #: somebody's home on the blank machine, with the key in it
    address: str
    environment: dict[str, str]
    s3: S3Server
    production_state: str = ""
    commit: str = ""
    identity: str = ""
    images: dict[str, str] = field(default_factory=dict)
    key: str = ""
    key_id: str = ""
    kit: str = ""  #: the file
    page: str = ""

    @property
    def where(self) -> tuple[str, ...]:
        """What a machine knows that has nothing."""
        return ("--from", self.address, "--key-file", "recoup.key")

    def recoup(self, *arguments: str, expect: int | None = 0, environment: Mapping[str, str] | None = None) -> str:
        """Run ``recoup`` on the blank machine; what it printed."""
        done = self.blank.run(
            [RECOUP, *arguments],
            folder=self.folder,
            environment={**self.environment, **(environment or {})},
            check=False,
            timeout=400,
        )
        said = done.stdout.decode() + done.stderr.decode()
        assert "Traceback" not in said, said
        if expect is not None:
            assert done.returncode == expect, f"recoup {' '.join(arguments)} ended with {done.returncode}:\n{said}"
        return done.stdout.decode() if "--json" in arguments else said

    def recover(
        self, situation: str = "server-loss", *, expect: int | None = 0, environment: Mapping[str, str] | None = None
    ) -> str:
        """The one command."""
        return self.recoup("recover", situation, *self.where, "--yes", expect=expect, environment=environment)

    def on_production(self) -> BlankPlace:
        """The same somebody on the machine of production."""
        environment = {**self.environment, "RECOUP_STATE": self.production_state}
        return replace(self, blank=self.stack.machine, environment=environment)

    def there(self) -> Stack:
        """The stack as it came up on the blank machine."""
        return replace(self.stack, machine=self.blank)

    def databases(self) -> str:
        """The containers of production's databases, and since when they run."""
        services = ("--filter", "label=com.docker.compose.project=marketplace")
        shown = '{{.Label "com.docker.compose.service"}} {{.ID}}'
        lines = self.stack.machine.docker("ps", *services, "--format", shown).splitlines()
        ids = sorted(line.split()[1] for line in lines if line.split()[0] in ("postgres", "redis"))
        assert len(ids) == 2, lines
        return self.stack.machine.docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *ids)

    @contextlib.contextmanager
    def without_kept_images(self) -> Iterator[None]:
        """For a while the bucket has no images."""
        import boto3

        bucket, _, prefix = self.address.removeprefix("s3://").partition("/")
        client = boto3.client(
            "s3", endpoint_url=self.s3.endpoint, aws_access_key_id=self.s3.access_key,
            aws_secret_access_key=self.s3.secret_key, region_name=self.s3.region,
        )  # fmt: skip
        taken = {}
        for one in client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/manifests/")["Contents"]:
            body = client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
            if b'"kind": "images"' in body or b'"kind":"images"' in body:
                taken[one["Key"]] = body
                client.delete_object(Bucket=bucket, Key=one["Key"])
        assert taken, "there were kept images"
        try:
            yield
        finally:
            for key, body in taken.items():
                client.put_object(Bucket=bucket, Key=key, Body=body)

    def wipe(self) -> None:
        """Make the machine blank again: no container, no volume, no image, no file."""
        kinds = {
            ("ps", "-aq"): ("rm", "-f", "-v"),
            ("volume", "ls", "-q"): ("volume", "rm", "-f"),
            ("images", "-aq"): ("rmi", "-f"),
            ("network", "ls", "-q", "--filter", "type=custom"): ("network", "rm"),
        }
        for asked, remove in kinds.items():
            found = dict.fromkeys(self.blank.docker(*asked).split())
            if found:
                self.blank.docker(*remove, *found)
        shutil.rmtree(self.stack.folder, ignore_errors=True)
        shutil.rmtree(self.environment["RECOUP_STATE"], ignore_errors=True)


def git(folder: Path, *arguments: str) -> str:
    """Call git as the people of this stack do."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "safe.directory=*")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextlib.contextmanager
def blank_place(stack: Stack, blank: Machine, s3: S3Server, folder: Path) -> Iterator[BlankPlace]:
    """Production is protected into a bucket, with its source and its images; a kit of it was made."""
    git(stack.folder, "init", "--quiet", "--initial-branch=main", ".")
    (stack.folder / ".gitignore").write_text("/.env.production\n/recoup.key\n/logs/\n")
    git(stack.folder, "remote", "add", "origin", FORGE)
    git(stack.folder, "add", ".gitignore", "docker-compose.prod.yml", "docker")
    git(stack.folder, "commit", "--quiet", "-m", "the stack")
    home = folder / "home"
    home.mkdir()
    place = BlankPlace(
        stack=stack,
        blank=blank,
        folder=home,
        address=f"s3://{s3.new_bucket()}/marketplace",
        environment={
            "RECOUP_STATE": str(folder / "blank"),
            **s3_environment(s3),
        },
        s3=s3,
        production_state=str(folder / "production"),
        commit=git(stack.folder, "rev-parse", "HEAD"),
        identity=stack.sql("select system_identifier from pg_control_system()"),
        images={
            name: stack.machine.docker("image", "inspect", "--format", "{{.Id}}", name).strip()
            for name in ("api:1", "postgres:15", "redis:7")
        },
    )
    at_work = replace(place.on_production(), folder=stack.folder)
    with Cable(s3.port, listener=listen_on(stack.machine, s3.port)):
        at_work.recoup(
            *("init", "--compose", "docker-compose.prod.yml", "--env-file", ".env.production"),
            *("--repository", place.address),
        )
        plan = stack.folder / "recoup.yaml"
        checks = "    checks: [{name: there are orders, sql: select count(*) from orders, at_least: 1}]\n"
        text = plan.read_text().replace("    base: daily", checks + "    base: daily")
        text = re.sub(r"^compose:\n", "compose:\n  keep_images: true\n", text, flags=re.MULTILINE)
        plan.write_text(text + _PLAN)
        for what in (("postgres", "--kind", "base"), ("redis",), ("configuration",)):
            at_work.recoup("backup", *what)
    kit = folder / "kit"
    at_work.recoup("kit", "--with-key", "--output", str(kit))
    shutil.copy(stack.folder / "recoup.key", home / "recoup.key")
    try:
        yield replace(
            place,
            key=(home / "recoup.key").read_text().strip(),
            key_id=at_work.recoup("key", "show-id").strip(),
            kit=str(kit / "recovery-kit.tar"),
            page=(kit / "recovery-kit.md").read_text(),
        )
    finally:
        place.wipe()
        copy_images(stack.machine, blank)
