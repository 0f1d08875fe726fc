"""A repository that was there before and is gone is an unmounted disk until somebody says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from recoup.assembly.system import System
from recoup.kernel.errors import RefusedError, UsageError
from recoup.plan.load import load


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "state"))
    (tmp_path / "key").write_text("5a" * 32 + "\n")
    (tmp_path / "recoup.yaml").write_text(
        "recoup: 1\nsystem: Known\nkey: {file: key}\nrepositories:\n  local: {path: backups}\n"
        "services:\n  notes: {engine: files, paths: [recoup.yaml]}\n"
    )
    return System(load(tmp_path / "recoup.yaml"))


def test_a_repository_whose_folder_is_gone_is_not_made_anew_in_silence(system: System) -> None:
    first = system.open(writing=True)
    assert [one.name for one in first.repositories] == ["local"]
    folder = system.folder / "backups"
    folder.rename(system.folder / "elsewhere")
    refused = system.open(writing=True).failed["local"]
    assert isinstance(refused, RefusedError)
    assert refused.hint is not None
    assert "--new-repository local" in refused.hint
    assert not folder.exists(), "nothing was put on the disk below the mount point"
    folder.mkdir()  # the mount point, with nothing mounted
    assert isinstance(system.open(writing=True).failed["local"], RefusedError)
    assert list(folder.iterdir()) == []
    folder.rmdir()
    (system.folder / "elsewhere").rename(folder)
    assert system.open(writing=True).repositories[0].identity == first.repositories[0].identity


def test_a_new_one_begins_when_the_user_says_that_the_old_one_is_gone_for_good(system: System) -> None:
    first = system.open(writing=True).repositories[0]
    (system.folder / "backups").rename(system.folder / "broken-disk")
    system.begin_anew("local")
    assert system.open(writing=True).repositories[0].identity != first.identity
    with pytest.raises(UsageError, match="nowhere"):
        system.begin_anew("nowhere")
