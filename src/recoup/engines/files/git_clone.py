"""Getting a repository from its forge into a folder that may hold files already, which stay as they are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from recoup.engines.files.git import Git, listed, without_credentials
from recoup.kernel.errors import EngineError

#: A clone is made here first, beside where it goes; copies of files leave it out (``walk``).
_STAGING: Final = ".recoup-restoring-git"
#: Nobody is asked for a password, and a forge that says nothing does not hold a recovery up.
_FETCHING: Final = tuple(
    word
    for setting in (
        *(f"protocol.{name}.allow=always" for name in ("https", "http", "ssh", "git", "file")),
        "core.sshCommand=ssh -o BatchMode=yes -o ConnectTimeout=20",
        "http.lowSpeedLimit=1000",
        "http.lowSpeedTime=30",
    )
    for word in ("-c", setting)
)


def stands_at(folder: Path, commit: str) -> bool:
    """Whether the working tree of ``folder`` itself has this commit checked out."""
    if not (folder / ".git").exists():
        return False
    return Git(folder).text("rev-parse", "--verify", "--quiet", "HEAD", expect=(0, 1, 128)) == commit


def clone_into(origin: str, folder: Path, *, commit: str | None, branch: str | None) -> str:
    """Clone ``origin`` and check ``commit`` out into ``folder``; without one, what the forge calls its HEAD.

    Files that are there already stay as they are: they are the state of the disk, which Git then shows as changed.
    Stopped at any instant, the same call begins anew. Returns the commit. Raise ``EngineError`` in Git's own words when
    the forge does not answer or does not have the commit.
    """
    staging = folder / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True, mode=0o755)
        found = _fetch(staging, origin, commit, branch)
        git = Git(staging)
        for name in listed(git):
            target = folder / name
            if not os.path.lexists(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(staging / name, target)  # noqa: PTH104
        os.rename(staging / ".git", folder / ".git")  # noqa: PTH104 - last: with it the clone is there
    except OSError as failure:
        raise EngineError(f"cannot clone into {folder}: {failure.strerror}") from failure
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return found


def _fetch(staging: Path, origin: str, commit: str | None, branch: str | None) -> str:
    Git(staging).run("init", "--quiet", "--template=")
    git = Git(staging)
    git.run("config", "remote.origin.url", origin)
    git.run("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
    git.run(*_FETCHING, "fetch", "--quiet", "--tags", "origin")
    if commit is None:
        git.run(*_FETCHING, "fetch", "--quiet", "origin", "HEAD")
        commit = git.text("rev-parse", "--verify", "FETCH_HEAD^{commit}")
    elif git.text("cat-file", "-t", commit, expect=(0, 128)) != "commit":
        # One that no branch reaches any more; not every forge gives it.
        git.run(*_FETCHING, "fetch", "--quiet", "origin", commit, expect=(0, 1, 128))
        if git.text("cat-file", "-t", commit, expect=(0, 128)) != "commit":
            raise EngineError(
                f"{without_credentials(origin)} does not have the commit {commit}, which production ran",
                hint="It was never pushed, or was removed there. Clone what there is by hand, and repeat the command.",
            )
    if branch:
        git.run("symbolic-ref", "HEAD", f"refs/heads/{branch}")
        git.run("update-ref", f"refs/heads/{branch}", commit)
    else:
        git.run("update-ref", "--no-deref", "HEAD", commit)
    git.run("reset", "--quiet", "--hard", commit)
    return commit


def update_submodules(folder: Path) -> None:
    """Get the submodules at their recorded commits. Raise ``EngineError`` when a forge does not answer."""
    Git(folder).run(*_FETCHING, "submodule", "update", "--init", "--recursive", "--quiet")
