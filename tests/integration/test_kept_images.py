"""Copies of images among the others: proven as far as they can be, kept while they are needed, and in nobody's way."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recoup.assembly.access import Readable
from recoup.assembly.protect import kept_images as keeping
from recoup.assembly.protect.kept_images import keep_images, kept_images
from recoup.assembly.system import System
from recoup.backup.take import take_copy
from recoup.engines.compose.client import ImageDigest
from recoup.engines.compose.image_archive import LIST, stream_of
from recoup.engines.engine import Content, CopyFacts, Progress, ProgressListener, Sink
from recoup.kernel.errors import Exit
from recoup.plan.load import load
from recoup.repository.catalog import read_catalog
from recoup.repository.copy_writer import Packing
from recoup.repository.manifest import Manifest
from recoup.repository.repository import Repository
from tests.unit.cli.test_main import recoup

CONFIG = b'{"architecture": "amd64"}'
IDENTITY = "sha256:" + hashlib.sha256(CONFIG).hexdigest()
RUNNING = [{"service": "api", "image": "api:1", "image_id": IDENTITY, "repository_digests": ()}]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call ``recoup`` beside the plan, with the state that this process uses."""
    return recoup(*arguments, folder=folder, RECOUP_STATE=str(folder / "state"))


class Images:
    """A source as the real one, without an engine: with ``held`` the image is in an earlier artefact."""

    service = kind = "images"
    engine = "compose"

    def __init__(self, held: tuple[str, ...] = ()) -> None:
        self.held = held

    def take(self, sink: Sink, begun_stamp: str, on_progress: ProgressListener) -> CopyFacts:
        with sink.stream(LIST) as stream:
            stream.write(json.dumps(RUNNING).encode())
        if not self.held:
            with sink.stream(stream_of(IDENTITY), content=Content.TAR) as stream:
                stream.write(saved())
        return CopyFacts(facts={"images": RUNNING}, depends_on=self.held)


def saved() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in (("manifest.json", b'[{"Config": "c", "Layers": []}]'), ("c", CONFIG)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A plan with a copy of files, and two of images: the second builds on the first."""
    folder = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOUP_STATE", str(folder / "state"))
        yield _system(folder)


def _system(folder: Path) -> System:
    (folder / "recoup.yaml").write_text(
        "recoup: 1\nsystem: shop\nservices: {configuration: {engine: files, paths: [recoup.yaml]}}\n"
        "repositories: {local: {path: backups}}\nkey: {file: recoup.key}\n"
    )
    assert run(folder, "key", "generate").returncode == Exit.OK
    assert run(folder, "backup").returncode == Exit.OK
    system = System(load(folder / "recoup.yaml"))
    take(system, Images(held=(take(system, Images()),)))
    return system


def take(system: System, source: Images) -> str:
    taken = take_copy(
        source, system.open(writing=True).repositories, system="shop", label=None, packing=Packing(),
        state_folder=system.state_folder, on_progress=_nobody,
    )  # fmt: skip
    return taken.outcome.manifest.id


def _nobody(_progress: Progress) -> None:
    pass


def test_an_image_is_found_in_the_artefact_that_holds_it_and_comes_back_byte_for_byte(system: System) -> None:
    opened = system.open()
    readable = Readable(repositories=opened.repositories, failed={}, state_folder=system.state_folder, system=system)
    kept = kept_images(readable)
    assert set(kept) == {IDENTITY}
    assert b"".join(kept[IDENTITY].pieces()) == saved()
    assert kept[IDENTITY].plain_bytes == len(saved())


def test_images_are_proven_as_far_as_they_can_be_and_make_no_verification_unknown(system: System) -> None:
    proven = run(system.folder, "verify", "--all", "--grade", "boots")
    assert proven.returncode == Exit.OK, proven.stdout + proven.stderr
    assert proven.stdout.count("ok      images images") == 2


def test_what_another_copy_of_images_builds_on_stays(system: System) -> None:
    assert run(system.folder, "verify", "--all").returncode == Exit.OK
    shown = run(system.folder, "prune", "--plan")
    assert shown.returncode == Exit.OK, shown.stderr
    assert "depends on it" in shown.stdout
    assert "not proven" not in shown.stdout


def test_latest_means_data_and_not_images(system: System, tmp_path: Path) -> None:
    back = run(system.folder, "restore", "latest", "--destination", str(tmp_path / "back"))
    assert back.returncode == Exit.OK, back.stderr
    assert "restored configuration files" in back.stdout
    images = run(system.folder, "restore", "latest", "--service", "images", "--destination", str(tmp_path / "images"))
    assert "docker load --input" in images.stdout


def test_where_the_stack_runs_what_is_kept_no_older_copy_is_read(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = [ImageDigest(service="api", image="api:1", image_id=IDENTITY, repository_digests=(), created="")]
    stack = SimpleNamespace(client=SimpleNamespace(images=lambda: running))
    monkeypatch.setattr(keeping, "open_stack", lambda _: stack)
    newest, *older = (
        one.id for one in read_catalog(system.open().repositories, system.state_folder).entries if one.kind == "images"
    )
    assert older
    read: list[str] = []
    manifest = Repository.manifest

    def reading(repository: Repository, artefact: str) -> Manifest:
        read.append(artefact)
        return manifest(repository, artefact)

    monkeypatch.setattr(Repository, "manifest", reading)
    plan = SimpleNamespace(compose=SimpleNamespace(keep_images=True))
    planned = SimpleNamespace(plan=plan, open=system.open, state_folder=system.state_folder)
    keep_images(cast("Any", planned), _nobody)
    assert read == [newest]
