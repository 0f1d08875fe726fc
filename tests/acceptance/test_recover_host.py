"""A recovery that is typed on a laptop and carried out on a new server, through a real sshd."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.demo.s3_server import S3Server
from recoup.recovery.journal import Line, parse_journal
from tests.acceptance.blank_place import BlankPlace, blank_place
from tests.acceptance.test_recover_blank import assert_production
from tests.acceptance.workplace import KEY, RECOUP, Workplace, s3_environment
from tests.cable import Cable, listen_on
from tests.ssh_place import NAME, ArgumentWatch, Laptop, laptop_of, ssh_below
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Machine

pytestmark = [pytest.mark.testhost, pytest.mark.s3, pytest.mark.xdist_group("testhost")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """The blank machine as it is seen from the laptop."""

    laptop: Laptop
    lost: BlankPlace

    def argv(self, *words: str) -> list[str]:
        """What is typed on the laptop."""
        return [RECOUP, "recover", *words, "--kit", self.lost.kit, "--host", f"ssh://root@{NAME}", "--no-provision"]

    def journal(self) -> tuple[Line, ...]:
        """Of the newest run there."""
        found = sorted(Path(self.lost.environment["RECOUP_STATE"]).glob("*/runs/*/journal"))
        return parse_journal(found[-1].read_bytes())[0] if found else ()

    def has(self, event: str, step: str | None = None) -> bool:
        """Whether the journal has come there."""
        return any(one.event == event and step in (None, one.data.get("step")) for one in self.journal())

    def brought(self) -> list[Path]:
        """What lies in the memory of the server for a recovery."""
        return list(Path("/dev/shm").glob(f"recoup-{self.lost.key_id[:16]}*"))


@contextlib.contextmanager
def reached(server: Machine, s3: S3Server, folder: Path, path: str, **more: str) -> Iterator[Laptop]:
    """A laptop with a cable to a new server, which has a bucket within reach. ``path`` and ``more``: its sessions'."""
    session = {
        "PATH": path,
        "RECOUP_STATE": str(folder / "blank"),
        "DOCKER_CONFIG": server.docker_environment["DOCKER_CONFIG"],
        **more,
    }
    before = set(Path("/dev/shm").glob("recoup-*"))
    try:
        with (
            laptop_of(server, folder, environment=session) as laptop,
            Cable(s3.port, listener=listen_on(server, s3.port)),
        ):
            yield laptop
    finally:
        for one in set(Path("/dev/shm").glob("recoup-*")) - before:
            if (one / "recoup.key").exists():
                shutil.rmtree(one)


def with_recoup() -> str:
    """A PATH with Recoup in it."""
    return f"{Path(RECOUP).parent}:{os.environ['PATH']}"


@pytest.fixture
def far(standing_stack: Stack, second_host: Machine, s3: S3Server, tmp_path: Path) -> Iterator[Far]:
    """Production is lost with its machine; the kit is on a laptop, and a new server has Recoup and is in reach."""
    with blank_place(standing_stack, second_host, s3, tmp_path) as lost:
        lost.stack.machine.power_cut()
        try:
            lost.wipe()
            with reached(second_host, s3, tmp_path, with_recoup()) as laptop:
                yield Far(laptop=laptop, lost=lost)
        finally:
            lost.stack.machine.start()


def test_a_server_that_is_not_known_is_not_trusted_and_its_exit_code_comes_through(
    second_host: Machine, s3: S3Server, tmp_path: Path
) -> None:
    key = tmp_path / "recoup.key"
    key.write_text(KEY + "\n")
    credentials = s3_environment(s3)
    typed = [RECOUP, "recover", "server-loss", "--from", f"s3://{s3.new_bucket()}/shop", "--key-file", str(key)]
    there = [*typed, "--host", f"ssh://root@{NAME}", "--no-provision", "--yes"]
    with (
        reached(second_host, s3, tmp_path, with_recoup()) as laptop,
        ArgumentWatch([KEY, s3.secret_key]) as watch,
    ):
        refused = laptop.run(there, environment=credentials)
        assert refused.returncode == 1, refused
        assert f"cannot sign in to root@{NAME}" in refused.stderr, refused
        assert f"-- root@{NAME} true" in refused.stderr, "what to try by hand"
        assert not any("--key-file /dev/shm" in words for words in watch.seen), "nothing was sent to it"

        laptop.know_the_server()
        ended = laptop.run(there, environment=credentials)
        local = second_host.run([*typed, "--yes"], environment={**credentials, "RECOUP_STATE": str(tmp_path / "s")},
                                check=False)  # fmt: skip
        assert ended.returncode == local.returncode != 0, (ended, local)
        assert local.stderr.decode().splitlines()[0] in ended.stderr, "in the words of the server"
    assert not watch.found, "a secret was in a command line"
    assert any(words.startswith("ssh ") for words in watch.seen), "it has looked at the laptop"
    assert any("recoup recover" in words and "--key-file /dev/shm/" in words for words in watch.seen), "and there"


@pytest.mark.soak
def test_a_lost_server_comes_back_from_a_laptop_whose_connection_breaks(far: Far) -> None:
    lost, laptop = far.lost, far.laptop
    laptop.know_the_server()
    with ArgumentWatch([lost.key, lost.s3.secret_key]) as watch:
        process = laptop.begin(far.argv("server-loss", "--yes"))
        assert wait_until(lambda: far.has("step-begun", "images"), limit_seconds=120, every=0.02), process.poll()
        os.kill(ssh_below(process.pid), signal.SIGKILL)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1, (out, err)
        assert f"the connection to root@{NAME} broke" in err, err

        again = laptop.run(far.argv("server-loss", "--yes"))
        assert again.returncode == 6, (again, "it is being carried out there")
        looked = laptop.run(far.argv("--show", "--json"))
        assert json.loads(looked.stdout)["run"], (looked, "what is asked for in JSON comes as JSON")
        assert far.brought(), "the run there still has its key"
        assert wait_until(lambda: far.has("run-ended"), limit_seconds=150, every=0.1), far.journal()
    assert not watch.found, "a secret was in a command line"
    assert_production(lost)


@pytest.mark.soak
def test_recoup_is_brought_to_a_server_that_has_python_and_a_wheel_house(
    second_host: Machine, s3: S3Server, tmp_path: Path
) -> None:
    house = wheel_house(tmp_path / "wheels")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(Path(sys.executable).resolve())
    (tmp_path / "recoup.key").write_text(KEY + "\n")
    show = [RECOUP, "recover", "--show", "--from", "s3://nowhere/shop", "--key-file", str(tmp_path / "recoup.key"),
            "--host", f"ssh://root@{NAME}"]  # fmt: skip
    second_host.run(["mount", "-t", "tmpfs", "tmpfs", "/opt"])
    path = f"{programs}:/usr/bin:/bin:/usr/sbin:/sbin"
    try:
        with reached(second_host, s3, tmp_path, path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(house)) as laptop:
            laptop.know_the_server()
            first, second = laptop.run(show), laptop.run(show)
    finally:
        second_host.run(["umount", "--lazy", "/opt"])
    assert "/opt/recoup/bin/recoup recover --show" in first.stderr, first
    assert "pip install" in first.stderr, first
    assert "pip install" not in second.stderr, "it is there already"
    assert first.returncode == second.returncode != 0, (first, second)


def wheel_house(folder: Path) -> Path:
    """What Recoup depends on here, made wheels again: what an operator downloads where there is an index."""
    folder.mkdir()
    wanted, made = ["recoup", "psycopg-binary"], set[str]()
    while wanted:
        name = wanted.pop()
        if name in made:
            continue
        made.add(name)
        with contextlib.suppress(PackageNotFoundError):  # what another Python or system would need
            one = distribution(name)
            needs = [line for line in one.requires or () if "extra ==" not in line]
            wanted += [re.split(r"[^A-Za-z0-9._-]", line)[0] for line in needs]
            tags = [line.split(": ")[1] for line in (one.read_text("WHEEL") or "").splitlines() if "Tag: " in line]
            if name == "recoup":
                continue
            with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{one.version}-{tags[-1]}.whl", "w") as wheel:
                for file in one.files or ():
                    if ".." not in file.parts and "__pycache__" not in file.parts:
                        wheel.write(str(file.locate()), str(file))
    return folder


#: How a person is asked.
_ASKED = "done, no, or skip"


def test_what_a_recovery_on_another_server_asks_is_answered_at_the_terminal_of_the_laptop(
    work: Workplace, second_host: Machine, s3: S3Server, tmp_path: Path
) -> None:
    uploads = work.folder / "uploads"
    uploads.mkdir()
    (uploads / "a picture").write_bytes(b"of a cat")
    work.repositories.clear()
    bucket = work.add_bucket(s3)
    work.services["uploads"] = "{engine: files, paths: [uploads]}"
    work.services["configuration"] = "{engine: files, paths: [recoup.yaml]}"
    work.write_plan()
    work.recoup("backup")
    shutil.rmtree(uploads)
    there = tmp_path / "shop"
    typed = [
        *(RECOUP, "recover", "server-loss", "--from", f"s3://{bucket}/production"),
        *("--key-file", str(work.key_file), "--host", f"ssh://root@{NAME}", "--no-provision"),
        *("--destination", str(there)),
    ]
    with reached(second_host, s3, tmp_path, with_recoup(), **work.environment) as laptop:
        laptop.know_the_server()
        screen = laptop.at_terminal(typed, environment=s3_environment(s3))
        screen.until("begin [y/N]")
        assert not (there / "uploads").exists(), "nobody has agreed yet"
        screen.type("y")
        screen.until(_ASKED)
        assert (there / "uploads" / "a picture").read_bytes() == b"of a cat"
        screen.hang_up()  # the laptop is closed over the question
        screen.process.wait(60)
        over = wait_until(lambda: "step-failed" in [one.event for one in _lines(tmp_path)], limit_seconds=120)
        assert over, "the question is not answered by that"

        screen = laptop.at_terminal(typed, environment=s3_environment(s3))
        screen.until(_ASKED)
        assert "goes on with the recovery of Shop from server-loss" in screen.shown
        screen.type("done")
        for _ in range(4):  # what the list asks a person: the users, from outside, the cause, who had access
            screen.shown = screen.shown.rpartition(_ASKED)[2]
            screen.until(_ASKED)
            screen.type("done")
        assert screen.ended() in (0, 4), screen.shown
    done = [one.data["step"] for one in _lines(tmp_path) if one.event == "step-done"]
    assert len(done) == len(set(done)), "nothing was done twice"
    assert _lines(tmp_path)[-1].event == "run-ended"


def _lines(folder: Path) -> tuple[Line, ...]:
    (journal,) = folder.glob("blank/*/runs/*/journal")
    return parse_journal(journal.read_bytes())[0]
