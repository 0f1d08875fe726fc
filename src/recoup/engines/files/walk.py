"""Finding what belongs to a file set: declared paths, exclusions, every entry once, in a fixed order.

Folders are entered through file descriptors and never through symbolic links, so that what is copied is what lies
below the declared paths, also while somebody changes them.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recoup.kernel.errors import EngineError

#: Where files outside the base folder stand in the copy: ``_outside/etc/letsencrypt``.
OUTSIDE = "_outside"
MAY_NOT_READ = "may not be read, and declared optional"
_OWN = re.compile(r"\.recoup-(replaced-.+|restoring|restoring-git)")
_MOST_NAMED = 500


@dataclass(slots=True)
class Notes:
    """What a copy does not hold or could not hold still. Each list is bounded; the rest is counted."""

    left_out: list[tuple[str, str]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    grew: list[str] = field(default_factory=list)
    more: int = 0

    def leave_out(self, path: str, why: str) -> None:
        """Note that an entry is not in the copy."""
        if len(self.left_out) < _MOST_NAMED:
            self.left_out.append((path, why))
        else:
            self.more += 1

    def note_changed(self, path: str) -> None:
        """Note that a file was changed while it was read: the copy may mix two states of it."""
        if len(self.changed) < _MOST_NAMED:
            self.changed.append(path)
        else:
            self.more += 1

    def note_grown(self, path: str) -> None:
        """Note that a file grew while it was read: the copy holds it as long as it was at the beginning."""
        if len(self.grew) < _MOST_NAMED:
            self.grew.append(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entry. ``folder`` is an open descriptor of its parent, valid until the next entry is asked for."""

    path: str  #: its path in the copy, relative
    folder: int
    name: str
    info: os.stat_result
    optional: bool = False  #: declared as one that may be missing or closed


class Exclusions:
    """Patterns of what not to copy, as people know them from ``.gitignore``.

    Without a slash a pattern is matched with every name (``*.tmp``, ``cache``); with one, with the path from the base
    folder (``logs/debug-*``, ``**/node_modules``). ``*`` stays within a part, ``**`` crosses parts. What lies below an
    excluded folder is excluded. An absolute path below the base folder excludes just that.
    """

    def __init__(self, patterns: Sequence[str], base: Path) -> None:
        self._names: list[tuple[str, re.Pattern[str]]] = []
        self._paths: list[tuple[str, re.Pattern[str]]] = []
        self.counts: dict[str, int] = dict.fromkeys(patterns, 0)
        for pattern in patterns:
            text = pattern.rstrip("/")
            if text.startswith("/"):
                text = re.sub(r"([*?\[])", r"[\1]", member_path(Path(text), base))
                self._paths.append((pattern, re.compile(_translate(text))))
            elif "/" in text:
                self._paths.append((pattern, re.compile(_translate(text.removeprefix("./")))))
            else:
                self._names.append((pattern, re.compile(fnmatch.translate(text))))

    def exclude(self, path: str, name: str) -> bool:
        """Whether an entry is excluded. Counts what it excludes."""
        for pattern, expression in self._names:
            if expression.fullmatch(name):
                self.counts[pattern] += 1
                return True
        for pattern, expression in self._paths:
            if expression.fullmatch(path):
                self.counts[pattern] += 1
                return True
        return False


def _translate(pattern: str) -> str:
    """A glob over a path as a regular expression."""
    out, index = "", 0
    while index < len(pattern):
        if pattern.startswith("**/", index):
            out, index = out + "(?:.*/)?", index + 3
        elif pattern.startswith("**", index):
            out, index = out + ".*", index + 2
        elif pattern[index] == "*":
            out, index = out + "[^/]*", index + 1
        elif pattern[index] == "?":
            out, index = out + "[^/]", index + 1
        elif pattern[index] == "[" and "]" in pattern[index + 2 :]:
            end = pattern.index("]", index + 2)
            inner = pattern[index + 1 : end].replace("\\", "\\\\")
            out, index = out + "[" + (f"^{inner[1:]}" if inner.startswith("!") else inner) + "]", end + 1
        else:
            out, index = out + re.escape(pattern[index]), index + 1
    return out


def member_path(path: Path, base: Path) -> str:
    """Where a path stands in the copy: relative to the base folder, or below ``_outside``; ``.`` for the base."""
    absolute = Path(os.path.normpath(base / path))
    if absolute.is_relative_to(base):
        return str(absolute.relative_to(base))
    return OUTSIDE + str(absolute)


def roots(paths: Sequence[str], base: Path, *, optional: Sequence[str], notes: Notes) -> list[tuple[Path, bool]]:
    """The declared paths as absolute ones, none inside another, in order, each with whether it is optional.

    A link brings what it points to with it.

    Raise ``EngineError`` naming a path that is not there, unless it is declared optional.
    """
    wanted: dict[Path, bool] = {}
    for text in paths:
        path = Path(os.path.normpath(base / text))
        try:
            is_link = stat.S_ISLNK(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError) as missing:
            if text in optional:
                notes.leave_out(member_path(path, base), "not there, and declared optional")
                continue
            raise EngineError(
                f"no such file or folder: {path}", hint="Correct the paths: of the service, or declare it optional."
            ) from missing
        except PermissionError as closed:
            raise unreadable(str(path)) from closed
        wanted[path] = text in optional
        if is_link and path.exists():
            wanted.setdefault(path.resolve(), text in optional)
    ordered = sorted(wanted, key=lambda path: path.parts)
    return [(path, wanted[path]) for path in ordered if not any(parent in wanted for parent in path.parents)]


def unreadable(path: str) -> EngineError:
    """The error for what this user may not read."""
    return EngineError(
        f"cannot read {path}: permission denied",
        hint="Run recoup as a user who may read it, exclude it, or declare it optional.",
    )


def walk(top: Path, base: Path, exclusions: Exclusions, notes: Notes, *, optional: bool = False) -> Iterator[Found]:
    """Everything from ``top`` down, folders before what is in them, names in byte order. ``top`` is absolute.

    Raise ``EngineError`` for a folder that may not be read, unless ``optional``. What vanishes meanwhile is noted as
    left out.
    """
    member = member_path(top, base)
    whole = member == "."
    try:
        handle = os.open(top if whole else top.parent, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        notes.leave_out(member, "vanished while the copy was made")
        return
    except PermissionError as closed:
        raise unreadable(str(top)) from closed
    if whole:
        yield from _below(handle, "", exclusions, notes, optional)
        return
    try:
        found = _look(handle, top.name, member, notes, optional)
        if found is not None:
            yield found
            if stat.S_ISDIR(found.info.st_mode):
                inner = _enter(found, notes)
                if inner is not None:
                    yield from _below(inner, member + "/", exclusions, notes, optional)
    finally:
        os.close(handle)


def _below(handle: int, prefix: str, exclusions: Exclusions, notes: Notes, optional: bool) -> Iterator[Found]:
    # An explicit stack: a tree may be deeper than Python's.
    stack: list[tuple[int, str, Iterator[str]]] = [(handle, prefix, _names(handle))]
    try:
        while stack:
            handle, prefix, names = stack[-1]
            name = next(names, None)
            if name is None:
                os.close(stack.pop()[0])
                continue
            path = prefix + name
            if _OWN.fullmatch(name):
                notes.leave_out(path, "made by recoup itself during a restore")
                continue
            if exclusions.exclude(path, name):
                continue
            found = _look(handle, name, path, notes, optional)
            if found is None:
                continue
            yield found
            if stat.S_ISDIR(found.info.st_mode):
                inner = _enter(found, notes)
                if inner is not None:
                    stack.append((inner, path + "/", _names(inner)))
    finally:
        for handle, _, _ in stack:
            os.close(handle)


def _names(handle: int) -> Iterator[str]:
    return iter(sorted(os.listdir(handle), key=os.fsencode))


def _look(folder: int, name: str, path: str, notes: Notes, optional: bool) -> Found | None:
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        notes.leave_out(path, "vanished while the copy was made")
        return None
    except PermissionError as closed:
        if not optional:
            raise unreadable(path) from closed
        notes.leave_out(path, MAY_NOT_READ)
        return None
    return Found(path=path, folder=folder, name=name, info=info, optional=optional)


def _enter(found: Found, notes: Notes) -> int | None:
    try:
        return os.open(found.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=found.folder)
    except (FileNotFoundError, NotADirectoryError):
        notes.leave_out(found.path, "vanished while the copy was made")
        return None
    except PermissionError as closed:
        if not found.optional:
            raise unreadable(found.path) from closed
        notes.leave_out(found.path, MAY_NOT_READ)
        return None
