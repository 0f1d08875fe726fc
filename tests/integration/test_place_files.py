"""Files and source back on a machine that lost them: once, whole, and without undoing what somebody repaired."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from recoup.assembly.access import Readable, open_for_reading
from recoup.assembly.recover.blank import files, open_blank, open_to_look
from recoup.assembly.recover.context import RecoverWish
from recoup.assembly.recover.machine import _SPARE_BYTES, _rooms
from recoup.assembly.recover.plan_from_repository import sets_with_a_plan
from recoup.assembly.restore.place_files import Placing, place_newest, place_outside
from recoup.engines.engine import Progress
from recoup.engines.files.git_clone import clone_into, stands_at
from recoup.engines.files.place import Target
from recoup.kernel.errors import DamageError, EngineError, Exit, NoRepositoryError, RefusedError, UsageError
from recoup.kernel.finding import Verdict
from recoup.recovery.step import Act, Phase, Step
from tests.real import require
from tests.unit.cli.test_main import recoup

if TYPE_CHECKING:
    from recoup.assembly.recover.context import Recovery

PLAN = """
recoup: 1
system: shop
compose: {file: compose.yml}
services:
  photographs: {engine: files, paths: [photographs]}
  configuration: {engine: files, paths: [recoup.yaml, app.conf, zones.db]}
  api: {engine: compose}
repositories: {local: {path: ../backups}}
key: {file: recoup.key}
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run([require("git"), *identity, *arguments], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``lost`` that was copied when it was ``srv``, and the key beside it."""
    root = tmp_path_factory.mktemp("place")
    folder = root / "srv"
    (folder / "photographs").mkdir(parents=True)
    (folder / "photographs" / "cat.jpg").write_bytes(b"cat")
    (folder / "app.conf").write_text("listen 80\n")
    (folder / "zones.db").write_text("zones\n")
    (folder / "recoup.yaml").write_text(PLAN)
    assert recoup("key", "generate", folder=folder).returncode == Exit.OK
    for service in ("configuration", "photographs"):
        taken = recoup("backup", service, folder=folder, RECOUP_STATE=str(root / "state"))
        assert taken.returncode == Exit.OK, taken.stdout + taken.stderr
    (folder / "recoup.key").rename(root / "recoup.key")
    folder.rename(root / "lost")
    return root


@pytest.fixture
def production(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where production was; nothing is there. What a test does to the repository is undone."""
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "state"))
    shutil.rmtree(root / "srv", ignore_errors=True)
    shutil.copytree(root / "backups", tmp_path / "backups")
    yield root / "srv"
    shutil.rmtree(root / "backups")
    shutil.copytree(tmp_path / "backups", root / "backups")


def wish(production: Path, folder: Path | None = None) -> RecoverWish:
    return RecoverWish(
        situation="server-loss",
        source=str(production.parent / "backups"),
        key_file=production.parent / "recoup.key",
        folder=folder,
    )


def opened(production: Path) -> Readable:
    return open_for_reading(None, str(production.parent / "backups"), production.parent / "recoup.key")


def placing(readable: Readable, folder: Path, *, force: bool = False) -> Placing:
    return Placing(opened=readable, folder=folder, run="run", force=force, on_progress=_nobody)


def _nobody(_progress: Progress) -> None:
    pass


def test_the_plan_goes_where_it_was_and_a_set_without_it_is_not_read(production: Path) -> None:
    _, system = open_blank(wish(production))
    assert system.folder == production
    assert (production / "app.conf").read_text() == "listen 80\n"
    assert not (production / "photographs").exists()
    assert [one.manifest.service for one in sets_with_a_plan(opened(production), None)] == ["configuration"]


def test_what_is_only_looked_at_is_not_there_afterwards(production: Path) -> None:
    _, system = open_to_look(wish(production))
    assert system.plan.system == "shop"
    assert not production.exists()


def test_the_same_command_finds_the_plan_it_brought_and_leaves_what_somebody_repaired(production: Path) -> None:
    first, _ = open_blank(wish(production))
    (production / "app.conf").write_text("listen 8080\n")
    second, system = open_blank(wish(production))
    assert first.state_folder == second.state_folder, "a run that was begun is found again"
    placed = place_newest(placing(second, system.folder), "configuration")
    assert placed.edited == ("app.conf",)
    assert (production / "app.conf").read_text() == "listen 8080\n"
    (production / "app.conf").unlink()
    assert place_newest(placing(second, system.folder), "configuration").restored is not None
    assert (production / "app.conf").read_text() == "listen 80\n"


def test_no_room_is_asked_for_files_that_are_in_their_place(production: Path) -> None:
    readable, system = open_blank(wish(production))
    photographs = next(one for one in readable.catalog().entries if one.service == "photographs")
    [room] = _rooms(readable, system, None)
    assert room.needed_bytes == _SPARE_BYTES + round(photographs.plain_bytes * 1.2)
    place_newest(placing(readable, system.folder), "photographs")
    [room] = _rooms(readable, system, None)
    assert room.needed_bytes == _SPARE_BYTES


def test_what_is_there_and_is_not_ours_is_refused_and_set_aside_only_when_forced(production: Path) -> None:
    production.mkdir()
    (production / "app.conf").write_text("somebody else's\n")
    with pytest.raises(RefusedError) as raised:
        open_blank(wish(production))
    assert "app.conf" in raised.value.message
    done = place_newest(placing(opened(production), production, force=True), "configuration")
    assert (production / ".recoup-replaced-run" / "app.conf").read_text() == "somebody else's\n"
    assert "set aside" in str(done)


def test_a_folder_that_an_engine_made_before_the_recovery_leaves_no_trace(production: Path) -> None:
    (production / "app.conf").mkdir(parents=True)
    open_blank(wish(production))
    assert {one.name for one in production.iterdir()} == {"app.conf", "recoup.yaml", "zones.db"}


def refused(production: Path) -> None:
    with pytest.raises(RefusedError, match=r"app\.conf"):
        place_newest(placing(opened(production), production), "configuration")


def differing(production: Path) -> None:
    """All paths of the configuration are there, and one is not as it was copied."""
    shutil.copytree(production.parent / "lost", production)
    (production / "app.conf").write_text("somebody else's\n")


def test_a_refusal_stays_one_however_often_it_is_asked_for(production: Path) -> None:
    differing(production)
    refused(production)
    refused(production)
    assert (production / "app.conf").read_text() == "somebody else's\n"


def test_force_counts_after_a_refusal_and_again_when_a_file_was_altered_once_more(production: Path) -> None:
    differing(production)
    refused(production)
    for content in ("somebody else's\n", "altered once more\n"):
        (production / "app.conf").write_text(content)
        done = place_newest(placing(opened(production), production, force=True), "configuration")
        assert done.restored is not None
        assert (production / "app.conf").read_text() == "listen 80\n"


def test_what_was_killed_while_it_replaced_files_by_force_goes_on_with_the_rest(
    production: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    differing(production)
    (production / "recoup.yaml").write_text("another plan\n")
    place_file = Target.file

    def until_the_first(target: Target, path: str, *rest: Any) -> None:
        place_file(target, path, *rest)
        raise EngineError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Target, "file", until_the_first)
        with pytest.raises(EngineError, match="killed"):
            place_newest(placing(opened(production), production, force=True), "configuration")
    done = place_newest(placing(opened(production), production, force=True), "configuration")
    assert done.restored is not None
    assert (done.restored.same, done.restored.placed) == (2, 1), "it was stopped between the two"
    assert (production / "app.conf").read_text() == "listen 80\n"
    assert (production / "recoup.yaml").read_text() == PLAN


def test_files_that_somebody_changed_since_are_not_said_to_be_in_their_place(production: Path) -> None:
    readable, system = open_blank(wish(production))
    known = {"system": system, "run": "run", "wish": wish(production), "opened": readable}
    recovery = cast("Recovery", SimpleNamespace(**known, voice=SimpleNamespace(on_progress=_nobody)))
    step = Step(id="files", title="", meaning="", act=Act.FILES, phase=Phase.PREPARE, subject="configuration")
    (finding,) = files(recovery, step).findings
    assert finding.verdict is Verdict.OK
    (production / "app.conf").write_text("listen 8080\n")
    (finding,) = files(recovery, step).findings
    assert finding.verdict is Verdict.UNKNOWN
    assert "app.conf" in finding.detail


def test_another_folder_can_be_named(production: Path, tmp_path: Path) -> None:
    _, system = open_blank(wish(production, tmp_path / "elsewhere"))
    assert system.folder == tmp_path / "elsewhere"
    assert not production.exists()
    _, same = open_blank(wish(production))
    assert same.folder == tmp_path / "elsewhere", "who says nothing means the one that was brought here"
    _, other = open_blank(wish(production, tmp_path / "a-larger-disk"))
    assert other.folder == tmp_path / "a-larger-disk"


def test_a_clone_is_checked_out_beside_files_that_are_there_and_these_win(tmp_path: Path) -> None:
    forge, place = tmp_path / "forge", tmp_path / "place"
    forge.mkdir()
    place.mkdir()
    git(forge, "init", "-q", ".")
    (forge / "compose.yml").write_text("services: {}\n")
    (forge / "app").mkdir()
    (forge / "app" / "main.py").write_text("print()\n")
    git(forge, "add", ".")
    git(forge, "commit", "-q", "-m", "first")
    wanted = git(forge, "rev-parse", "HEAD")
    (forge / "app" / "main.py").write_text("later\n")
    git(forge, "commit", "-q", "-a", "-m", "second")
    (place / "compose.yml").write_text("services: {changed: {}}\n")
    assert clone_into(str(forge), place, commit=wanted, branch="main") == wanted
    assert stands_at(place, wanted)
    assert (place / "compose.yml").read_text() == "services: {changed: {}}\n"
    assert (place / "app" / "main.py").read_text() == "print()\n"
    assert not (place / ".recoup-restoring-git").exists()
    other = tmp_path / "other"
    assert clone_into(str(forge), other, commit=None, branch=None) == git(forge, "rev-parse", "HEAD")


def test_a_forge_that_does_not_answer_or_lacks_the_commit_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with pytest.raises(EngineError):
        clone_into(str(tmp_path / "nowhere"), place, commit="1" * 40, branch=None)
    forge = tmp_path / "forge"
    forge.mkdir()
    git(forge, "init", "-q", ".")
    git(forge, "commit", "-q", "--allow-empty", "-m", "first")
    with pytest.raises(EngineError, match="does not have the commit") as raised:
        clone_into(str(forge), place, commit="1" * 40, branch=None)
    assert raised.value.hint
    assert list(place.iterdir()) == []


def copied_again(production: Path, **contents: bytes) -> str:
    """One more copy of the configuration, with other contents of its files; which one it is."""
    shutil.copytree(production.parent / "lost", production)
    shutil.copy2(production.parent / "recoup.key", production)
    for name, content in contents.items():
        (production / name.replace("_", ".")).write_bytes(content)
    taken = recoup("backup", "configuration", folder=production)
    assert taken.returncode == Exit.OK, taken.stdout + taken.stderr
    shutil.rmtree(production)
    return newest(production, "configuration")


def newest(production: Path, service: str) -> str:
    return next(one.id for one in opened(production).catalog().entries if one.service == service)


def damage(production: Path, artefact: str, *, at: float = 0.5, name: str = "files.tar.zst.enc") -> None:
    """Change a byte of a stored object; ``at`` is where, of the whole."""
    (data,) = (production.parent / "backups").glob(f"artefacts/*/*/{artefact}/{name}")
    broken = bytearray(data.read_bytes())
    broken[int(len(broken) * at)] ^= 1
    data.chmod(0o600)
    data.write_bytes(broken)


def test_of_a_damaged_copy_the_one_before_it_is_taken_and_that_is_said(production: Path) -> None:
    artefact = copied_again(production, app_conf=b"listen 81\n")
    damage(production, artefact)
    placed = place_newest(placing(opened(production), production), "configuration")
    assert placed.found.manifest.id != artefact
    assert list(placed.damaged) == [artefact]
    assert (production / "app.conf").read_text() == "listen 80\n"


def test_what_a_copy_brought_before_its_damage_was_met_makes_way_for_the_one_before_it(production: Path) -> None:
    artefact = copied_again(production, app_conf=b"listen 82\n", zones_db=os.urandom(9 << 20))
    damage(production, artefact, at=0.95)
    placed = place_newest(placing(opened(production), production), "configuration")
    assert placed.restored is not None
    assert placed.restored.replaced == ("app.conf",), "the damage is behind the first file"
    assert (production / "app.conf").read_text() == "listen 80\n"
    assert (production / "zones.db").read_text() == "zones\n"


def test_a_file_of_somebody_else_is_refused_by_the_copy_before_a_damaged_one_too(production: Path) -> None:
    artefact = copied_again(production, app_conf=b"listen 83\n")
    production.mkdir()
    (production / "app.conf").write_text("listen 83\n")
    damage(production, artefact)
    with pytest.raises(RefusedError, match=r"app\.conf"):
        place_newest(placing(opened(production), production), "configuration")
    assert (production / "app.conf").read_text() == "listen 83\n"


@pytest.mark.parametrize("name", ["files.tar.zst.enc", "files.tar.index.enc"])
def test_a_server_comes_back_with_the_newest_whole_copy_of_its_plan(production: Path, name: str) -> None:
    artefact = copied_again(production, app_conf=b"listen 84\n")
    damage(production, artefact, name=name)
    readable, system = open_blank(wish(production))
    assert system.plan.system == "shop"
    again = place_newest(placing(readable, production), "configuration")
    assert again.restored is None, "the step of this set finds what was brought for its plan"
    assert artefact in again.damaged
    assert (production / "app.conf").read_text() == "listen 80\n"


def test_damage_of_another_set_does_not_keep_the_plan_from_being_found(production: Path) -> None:
    damage(production, newest(production, "photographs"), name="files.tar.index.enc")
    _, system = open_blank(wish(production))
    assert system.plan.system == "shop"


def test_without_another_plan_the_damage_is_said(production: Path) -> None:
    for entry in opened(production).catalog().entries:
        damage(production, entry.id, name="files.tar.index.enc")
    with pytest.raises(DamageError):
        open_blank(wish(production))


def test_a_repository_without_a_plan_and_a_set_without_a_copy_say_so(production: Path) -> None:
    with pytest.raises(NoRepositoryError):
        place_newest(placing(opened(production), production), "absent")
    readable = opened(production)
    manifests = production.parent / "backups" / "manifests"
    for entry in readable.catalog().entries:
        if entry.service == "configuration":
            (manifests / f"{entry.id}.json").unlink()
    with pytest.raises(UsageError, match="holds a plan"):
        open_blank(wish(production))


def test_a_file_outside_that_could_not_be_brought_whole_is_absent_and_the_next_call_brings_it(tmp_path: Path) -> None:
    folder, target = tmp_path / "srv", tmp_path / "etc" / "tls.key"
    kept = folder / "_outside" / target.relative_to("/")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"k" * 200_000)
    kept.chmod(0o640)
    (kept.parent / "current").symlink_to("tls.key")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the disk takes half of it
    try:
        with pytest.raises(EngineError, match="cannot bring back"):
            place_outside(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [one.name for one in target.parent.iterdir() if one.is_file() and not one.is_symlink()] == []
    assert place_outside(folder)[1] == ()
    assert target.read_bytes() == kept.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert (target.parent / "current").readlink() == Path("tls.key")
    assert place_outside(folder) == (0, ())


def test_a_file_outside_is_never_more_readable_than_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, target = tmp_path / "srv", tmp_path / "etc" / "tls.key"
    kept = folder / "_outside" / target.relative_to("/")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"key")
    kept.chmod(0o600)
    seen: list[int] = []
    copied = shutil.copystat

    def look(source: Path, new: Path, **_: object) -> None:
        if Path(new).is_file():
            seen.append(stat.S_IMODE(Path(new).stat().st_mode))
        copied(source, new)

    monkeypatch.setattr(shutil, "copystat", look)
    place_outside(folder)
    assert set(seen) == {0o600}
