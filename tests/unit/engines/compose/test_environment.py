"""What of this process's environment a Compose project sees: nothing that Recoup signs in with instead of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recoup.engines.compose.docker import ComposeSource
from recoup.kernel.process import run

_NAMES = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called docker that prints its environment, and a bucket that this process signs in at."""
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nenv\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in _NAMES:
        monkeypatch.setenv(name, "the bucket's")
    return tmp_path


def seen(source: ComposeSource, *, docker: bool = False) -> dict[str, str]:
    said = run(source.docker("pull", "x") if docker else source.compose("up")).stdout.decode().splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in said) if name in _NAMES}


@pytest.mark.parametrize("named", [True, False])
def test_what_the_env_file_of_a_project_says_is_not_overruled_by_the_credentials_of_the_backups(
    folder: Path, named: bool
) -> None:
    env = folder / (".env.production" if named else ".env")
    env.write_text("# AWS_DEFAULT_REGION=eu\nAWS_ACCESS_KEY_ID=app\nexport AWS_SECRET_ACCESS_KEY='app'\n")
    source = ComposeSource(files=(folder / "compose.yaml",), env_files=(env,) if named else ())
    assert seen(source) == {"AWS_ENDPOINT_URL": "the bucket's", "AWS_DEFAULT_REGION": "the bucket's"}
    assert len(seen(source, docker=True)) == 4, "a registry may be signed in at with them"


def test_without_an_env_file_everything_stays_as_it_is(folder: Path) -> None:
    assert len(seen(ComposeSource(files=(folder / "compose.yaml",), env_files=(folder / "gone",)))) == 4
