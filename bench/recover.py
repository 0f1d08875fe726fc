"""From the power-off of a stack to users at work on a blank machine, and its parts, beside the same by hand.

Production is the example stack of the tests on a pretend machine; the blank machine has Docker, reaches the bucket, and
nothing else: no registry, no forge. By hand it is what a careful administrator has in a script: a tar of the folder,
the images by ``docker save``, and ``pg_dump`` by gzip and openssl, each fetched from the same bucket by a plain GET.
That script proves nothing, looks at nothing, and brings back the night's dump and no Redis; Recoup brings back both
databases, compares what came back with what was copied, asks the plan's questions and walks the flows.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import OPENSSL
from bench.measure import Say
from bench.report import Part
from recoup.demo.programs import find_weed
from recoup.demo.s3_server import S3Server
from tests.acceptance.blank_place import BlankPlace, blank_place
from tests.cable import Cable, listen_on
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Hall, copy_stack, what_is_missing

_HEALTH = "curl -sf --retry 60 --retry-delay 1 --retry-all-errors http://127.0.0.1:3000/api/health | grep -q ok"
_FILL = (
    "create table ballast as select g as id, md5(g::text) || md5((g * 7)::text) as a, repeat(md5((g / 9)::text), 3) "
    "as b, now() as at from generate_series(1, {rows}) g; create index on ballast (id); checkpoint"
)
_ROW_BYTES = 265  #: of heap and index, measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One recovery: each part in seconds, in order."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """From the power-off to users at work."""
        return sum(self.parts.values())


def measure_recover(size_mib: int, rounds: int, work: Path, say: Say) -> Part:
    """Lose a stack with ``size_mib`` MiB in its database ``rounds`` times, and bring it back both ways."""
    missing = what_is_missing()
    if missing is not None:
        raise SystemExit(f"the part recover needs pretend machines: {missing}")
    work.mkdir(parents=True)
    ours: list[Timed] = []
    theirs: list[Timed] = []
    with Hall() as hall, S3Server(find_weed()) as s3:
        alpha = hall.machine("alpha")
        beta = hall.machine("beta", images_of=alpha)
        file = copy_stack(work / "stack" / "marketplace")
        stack = Stack(machine=alpha, folder=file.parent, file=file, env_file=file.parent / ".env.production")
        stack.compose("up", "--detach", "--wait", "--wait-timeout", "90")
        say(f"generating {size_mib} MiB")
        stack.sql(_FILL.format(rows=max(1000, size_mib * (1 << 20) // _ROW_BYTES)))
        size = int(stack.sql("select pg_database_size('market')"))
        with blank_place(stack, beta, s3, work) as place:
            script = _by_hand(place, work)
            alpha.power_cut()
            for number in range(rounds):
                say(f"  round {number + 1}")
                with Cable(s3.port, listener=listen_on(beta, s3.port)):
                    place.wipe()
                    ours.append(_recoup(place))
                    place.wipe()
                    theirs.append(_hand(place, script))
            alpha.start()
    return Part(
        name="recover",
        about=f"{size / (1 << 20):.0f} MiB in the database; {rounds} rounds; a blank machine with Docker, a bucket, "
        "no registry. Seconds, medians.",
        table=_table(ours, theirs),
        bars=(),
        data={"recoup": [dict(one.parts) for one in ours], "by_hand": [dict(one.parts) for one in theirs]},
        notes=(
            f"from power-off to users at work: Recoup {_median(ours):.1f} s, by hand {_median(theirs):.1f} s",
            "by hand the time in which somebody types, looks things up and decides is not counted",
            "by hand Redis stays empty, and nothing is compared with what was copied",
        ),
    )


def _recoup(place: BlankPlace) -> Timed:
    """The one command, and its parts from the journal up to users at work."""
    begun = time.perf_counter()
    place.recover(expect=None)
    whole = time.perf_counter() - begun
    document = json.loads(place.recoup("recover", "--show", "--json", *place.where, expect=None))
    steps = [one for one in document["steps"] if one["phase"] in ("recover", "prove") and one["machine_seconds"]]
    parts = {one["id"]: float(one["machine_seconds"]) for one in steps}
    after = sum(float(one["machine_seconds"] or 0) for one in document["steps"] if one["phase"] == "after")
    # Reading the repository and the plan comes before the first step.
    return Timed(parts={"find the plan, read the catalog": max(0.0, whole - after - sum(parts.values())), **parts})


def _by_hand(place: BlankPlace, work: Path) -> dict[str, str]:
    """Take the copies that the script needs, put them into the bucket, and return its steps as shell text."""
    stack, key = place.stack, place.folder / "recoup.key"
    copies = work / "by-hand"
    copies.mkdir()
    seal = f"{OPENSSL} -salt -pass file:{key}"
    env = {**os.environ, **stack.machine.docker_environment}
    compose = f"docker compose -f {stack.file} --env-file {stack.env_file}"
    dump = f"{compose} exec -T postgres pg_dump -U market -d market"
    for command in (
        f"tar -c -C {stack.folder} . | gzip | {seal} -out {copies}/folder",
        f"docker save api:1 postgres:15 redis:7 | gzip -1 | {seal} -out {copies}/images",
        f"{dump} | gzip | {seal} -out {copies}/dump",
    ):
        subprocess.run(["bash", "-o", "pipefail", "-c", command], env=env, check=True, capture_output=True)
    get = {name: _uploaded(place, copies / name) for name in ("folder", "images", "dump")}
    shutil.rmtree(copies)
    fetch = {name: f"curl -sf '{url}' | {OPENSSL} -d -pass file:{key} | gunzip" for name, url in get.items()}
    psql = f"{compose} exec -T postgres psql -q -X -v ON_ERROR_STOP=1 -U market -d market"
    drop = "drop schema public cascade; create schema public"
    return {
        "fetch and unpack the folder": f"mkdir -p {stack.folder} && {fetch['folder']} | tar -x -C {stack.folder}",
        "docker load": f"{fetch['images']} | docker load -q",
        "docker compose up postgres": f"{compose} up -d --wait postgres",
        "curl, openssl, gunzip, psql": f"{psql} -c '{drop}' && {fetch['dump']} | {psql}",
        "docker compose up": f"{compose} up -d --wait postgres redis api",
        "ask its health": _HEALTH,
    }


def _uploaded(place: BlankPlace, file: Path) -> str:
    """Put a file into the bucket; an address for a plain GET."""
    import boto3

    s3 = place.s3
    client = boto3.client(
        "s3", endpoint_url=s3.endpoint, aws_access_key_id=s3.access_key, aws_secret_access_key=s3.secret_key,
        region_name=s3.region,
    )  # fmt: skip
    bucket = place.address.removeprefix("s3://").partition("/")[0]
    client.upload_file(str(file), bucket, f"by-hand/{file.name}")
    return str(
        client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": f"by-hand/{file.name}"}, ExpiresIn=24 * 3600
        )
    )


def _hand(place: BlankPlace, script: Mapping[str, str]) -> Timed:
    parts = {}
    for name, command in script.items():
        begun = time.perf_counter()
        place.blank.run(["bash", "-o", "pipefail", "-c", command], timeout=7200)
        parts[name] = time.perf_counter() - begun
    return Timed(parts=parts)


def _median(rounds: Sequence[Timed]) -> float:
    return statistics.median(one.total for one in rounds)


def _table(ours: Sequence[Timed], theirs: Sequence[Timed]) -> list[str]:
    lines = ["| who | part | s |", "| --- | --- | --: |"]
    for who, rounds in (("Recoup", ours), ("by hand", theirs)):
        for name in dict.fromkeys(part for one in rounds for part in one.parts):
            found = statistics.median(one.parts.get(name, 0.0) for one in rounds)
            lines.append(f"| {who} | {name} | {found:.2f} |")
        lines.append(f"| **{who}** | **power-off to users at work** | **{_median(rounds):.2f}** |")
    return lines
