"""The Git state of a folder: its commits as a bundle, and what is not committed yet.

A repository's own configuration can name commands: hooks, a file system monitor, filters, external diffs. None of
them is run here, whoever owns the repository. Overrides travel in ``GIT_CONFIG_*`` variables, which outrank every
configuration file and can hold any name (git-config(1), "ENVIRONMENT").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, Completed, run

_SECONDS = 600.0
_SAFE = {
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.pager": "cat",
    "core.untrackedCache": "false",
    "safe.directory": "*",  # root backs up what others own; nothing of theirs is run
    "protocol.allow": "never",  # a partial clone would fetch from its remote
    "gc.auto": "0",
    "maintenance.auto": "false",
    "diff.relative": "false",
    "core.quotePath": "true",
}
# Set when recoup is started by a hook; they would name another repository than the one that is meant.
_INHERITED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_PREFIX")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitState:
    """Where a repository stands. ``commit`` is None before the first one, ``branch`` when HEAD is detached."""

    folder: Path  #: the top of its working tree
    commit: str | None
    branch: str | None
    remotes: tuple[tuple[str, str], ...]  #: name and address, without credentials
    shallow: bool
    owner: tuple[int, int]

    def facts(self, path: str) -> dict[str, Any]:
        """As facts of a copy; ``path`` is the repository's place in it."""
        return {
            "path": path,
            "commit": self.commit,
            "branch": self.branch,
            "remotes": [list(remote) for remote in self.remotes],
            "shallow": self.shallow,
            "owner": list(self.owner),
        }

    @property
    def bundled(self) -> bool:
        """Whether its history can be bundled; otherwise the files are copied as they are."""
        return self.commit is not None and not self.shallow


class Git:
    """Calls ``git`` in one folder, with nothing of the repository's run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings = dict(_SAFE)
        named = self.run(
            "config", "--null", "--name-only", "--get-regexp", r"^filter\..*\.(clean|smudge|process)$", expect=(0, 1)
        )
        for name in named.stdout.decode(errors="surrogateescape").split("\0"):
            if name:
                self._settings[name] = ""
                self._settings[name.rpartition(".")[0] + ".required"] = "false"

    def command(self, *argv: str) -> Command:
        """The command ``git ARGV``, made safe."""
        unset = [word for name in _INHERITED for word in ("-u", name)]
        environment = {
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "LC_ALL": "C",
            "GIT_CONFIG_COUNT": str(len(self._settings)),
        }
        for number, (name, value) in enumerate(self._settings.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return Command(
            argv=("env", *unset, "git", "--no-pager", "-C", str(self.folder), *argv),
            environment=environment,
            timeout_seconds=_SECONDS,
        )

    def run(self, *argv: str, expect: tuple[int, ...] = (0,), stdin: bytes | None = None) -> Completed:
        """Run it. Raise ``EngineError`` with git's own words."""
        completed = run(self.command(*argv), stdin=stdin, expect=None)
        if completed.exit_status == 127:
            raise EngineError("git is not installed", hint="Install it: apt-get install git")
        if completed.exit_status not in expect:
            said = without_credentials(completed.stderr.strip()) or f"status {completed.exit_status}"
            raise EngineError(f"git {argv[0]} failed in {self.folder}: {said}")
        return completed

    def text(self, *argv: str, expect: tuple[int, ...] = (0,)) -> str:
        """What it prints, without the line feed."""
        return self.run(*argv, expect=expect).stdout.decode(errors="surrogateescape").rstrip("\n")


def git_state(folder: Path) -> GitState:
    """Given a folder in a working tree, return where its repository stands. Raise ``EngineError`` if it is in none."""
    if not folder.is_dir():
        raise EngineError(f"no such folder: {folder}", hint="Correct git: of the service.")
    try:
        top = Path(Git(folder).text("rev-parse", "--show-toplevel"))
    except EngineError as failure:
        if "not a git repository" not in failure.message and "must be run in a work tree" not in failure.message:
            raise
        raise EngineError(
            f"{folder} is not in a Git working tree", hint="Correct git: of the service, or leave it out."
        ) from failure
    if not folder.resolve().is_relative_to(top.resolve()):
        raise EngineError(f"the Git repository of {folder} has its working tree elsewhere: {top}")
    git = Git(top)
    names = git.run("config", "--null", "--get-regexp", r"^remote\..*\.url$", expect=(0, 1)).stdout
    remotes = []
    for entry in names.decode(errors="replace").split("\0"):
        key, _, url = entry.partition("\n")
        if url:
            remotes.append((key.removeprefix("remote.").removesuffix(".url"), without_credentials(url)))
    info = top.stat()
    return GitState(
        folder=top,
        commit=git.text("rev-parse", "--verify", "--quiet", "HEAD^{commit}", expect=(0, 1)) or None,
        branch=git.text("symbolic-ref", "--quiet", "--short", "HEAD", expect=(0, 1)) or None,
        remotes=tuple(sorted(remotes)),
        shallow=git.text("rev-parse", "--is-shallow-repository") == "true",
        owner=(info.st_uid, info.st_gid),
    )


def without_credentials(text: str) -> str:
    """Take user names and passwords out of every address in a text, and tokens out of its query."""
    return re.sub(r"[a-z][a-z0-9+.-]*://[^\s'\"]+", lambda match: _clean(match[0]), text)


def _clean(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("://")[0] + "://"  # not an address one could use; better nothing than a password
    host = parts.netloc.rpartition("@")[2]
    # ssh needs its user name, and it is no secret.
    user = parts.netloc.rpartition("@")[0].partition(":")[0] if parts.scheme in ("ssh", "git+ssh") else ""
    return urlunsplit((parts.scheme, f"{user}@{host}" if user else host, parts.path, "", ""))


DIFF = (
    *("diff", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=all", "HEAD", "--"),
)


def listed(git: Git, *options: str) -> list[str]:
    """The paths that ``git ls-files -z OPTIONS`` names, from the top of the working tree."""
    names = git.run("ls-files", "-z", "--full-name", *options).stdout.decode("utf-8", "surrogateescape")
    return [name for name in names.split("\0") if name]


def not_in_bundle(git: Git) -> list[tuple[str, str]]:
    """What of a repository neither the bundle nor the patch can hold."""
    found = [
        (entry.partition("\t")[2], "a submodule: only its commit is in the copy")
        for entry in listed(git, "--stage")
        if entry.startswith("160000 ")
    ]
    if (git.folder / ".git" / "lfs" / "objects").is_dir():
        found.append((".git/lfs", "objects of Git LFS: only their pointers are in the copy"))
    stashed = git.run("rev-list", "--walk-reflogs", "refs/stash", "--", expect=(0, 128)).stdout.split()
    if len(stashed) > 1:
        found.append(("git stash", f"all entries but the newest ({len(stashed) - 1}) are only in the reflog"))
    return found
