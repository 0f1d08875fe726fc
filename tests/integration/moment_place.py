"""Recovering to a moment for tests: a repository, a reader of it, and one call for the whole of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recoup.assembly.access import Readable
from recoup.assembly.restore.job import Report, Wish
from recoup.assembly.restore.postgres_moment import choose_postgres, restore_postgres
from recoup.engines.postgres.recovery_target import Target
from recoup.recovery.in_place import Consent
from recoup.repository.repository import Repository, open_or_create
from recoup.repository.seal import Key
from recoup.storage.local import LocalStore
from tests.integration.wal_story import Story, own

KEY = Key.generate()


def repository_in(folder: Path, name: str = "local") -> Repository:
    return open_or_create(name, LocalStore(folder, create=True), KEY)


def readable(work: Path, *repositories: Repository) -> Readable:
    return Readable(repositories=repositories, failed={}, state_folder=work / "state", system=None)


def recover(
    told: Story,
    work: Path,
    target: Target,
    *,
    to: Path | None = None,
    repositories: tuple[Repository, ...] = (),
    timeline: int | None = None,
) -> tuple[Path, Report]:
    """Recover into a new folder; its path and the report."""
    folder = to or own(told, work / f"restored-{len(list(work.iterdir()))}")
    opened = readable(work, *(repositories or told.repositories))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{told.server.bin}{os.pathsep}{os.environ['PATH']}")
        moment = choose_postgres(opened, "postgres", target, timeline=timeline)
        report = restore_postgres(
            opened, moment, Wish(destination=str(folder)), Consent(), lambda _text: None, lambda _progress: None
        )
    return folder, report
