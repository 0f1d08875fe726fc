"""A YAML 1.2 text as plain values, with the line and column of every key and value.

ruamel.yaml only builds the node tree; turning nodes into values happens here, so that every fault is found at once,
an alias cannot multiply without limit, and a number keeps the way it was written (``version: 1.10`` stays ``1.10``).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

Path = tuple[str | int, ...]

LARGEST_BYTES = 1 << 20  #: a plan is a page or two; a megabyte is somebody else's file
MOST_VALUES = 50_000  #: after aliases are followed; stops "billion laughs"
DEEPEST = 60

_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MERGE = "tag:yaml.org,2002:merge"


class WrittenInt(int):
    """A whole number that remembers how it was written."""

    written: str


class WrittenFloat(float):
    """A number that remembers how it was written."""

    written: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Position:
    """A place in a text. Both count from 1, as editors do."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong, and where. ``path`` is empty when it concerns the whole file."""

    position: Position
    path: Path
    what: str

    def __str__(self) -> str:
        where = f"{show_path(self.path)}: " if self.path else ""
        return f"{self.position.line}:{self.position.column}: {where}{self.what}"


def show_path(path: Path) -> str:
    """``("services", "api", "after", 0)`` as ``services.api.after.0``."""
    return ".".join(str(part) for part in path)


@dataclass(slots=True, kw_only=True)
class Document:
    """The values of a text, where they stand, and what was wrong with them before any meaning was read."""

    value: Any = None
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def position(self, path: Path, *, of_key: bool = False) -> Position:
        """Where ``path`` is; where it is absent, its nearest parent's key. The file's start when nothing matches."""
        if of_key and path in self.keys:
            return self.keys[path]
        if path in self.values:
            return self.values[path]
        while path:
            path = path[:-1]
            if path in self.keys:
                return self.keys[path]
            if path and path in self.values:
                return self.values[path]
        return self.values.get((), Position(line=1, column=1))


def parse(text: str) -> Document:
    """Given a YAML text, return its document. Faults of the syntax are in ``faults``; nothing is raised."""
    document = Document()
    try:
        node = _compose(text)
    except MarkedYAMLError as wrong:
        document.faults.append(_syntax_fault(wrong, text))
        return document
    except ReaderError as wrong:
        document.faults.append(_character_fault(wrong, text))
        return document
    except RecursionError:
        document.faults.append(_fault_at_start(f"nested too deeply (more than {DEEPEST} levels)"))
        return document
    except (
        YAMLError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        AssertionError,
        NotImplementedError,
    ) as wrong:
        # ruamel.yaml answers some malformed texts (odd directives and tags) with exceptions of these kinds
        document.faults.append(_fault_at_start(f"not valid YAML: {_first_line(str(wrong)) or type(wrong).__name__}"))
        return document
    if node is None:
        document.faults.append(_fault_at_start("the file holds no plan"))
        return document
    _Builder(document).build_root(node)
    return document


def _compose(text: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = DEEPEST * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an anchor that is used twice is no fault
        return yaml.compose(text)  # type: ignore[no-any-return]


def _fault_at_start(what: str) -> Fault:
    return Fault(position=Position(line=1, column=1), path=(), what=what)


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0].strip()


def _syntax_fault(wrong: MarkedYAMLError, text: str) -> Fault:
    mark = wrong.problem_mark or wrong.context_mark
    what = _first_line(wrong.problem or wrong.context or "not valid YAML")
    position = Position(line=1, column=1) if mark is None else Position(line=mark.line + 1, column=mark.column + 1)
    lines = text.splitlines()
    here = lines[position.line - 1] if position.line <= len(lines) else ""
    if "\t" in here[: position.column] and not here[: position.column].strip():
        what = "a tab is used for indentation; YAML wants spaces"
    elif "another document" in what:
        what = "a second document begins here (---); a plan is one document"
    elif wrong.context and wrong.problem:
        what = f"{what} ({_first_line(wrong.context)})"
    return Fault(position=position, path=(), what=f"not valid YAML: {what}")


def _character_fault(wrong: ReaderError, text: str) -> Fault:
    before = text[: wrong.position] if isinstance(wrong.position, int) else ""
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    code = wrong.character if isinstance(wrong.character, int) else ord(str(wrong.character)[:1] or "\0")
    what = f"not valid YAML: the character U+{code:04X} may not stand in a YAML file"
    return Fault(position=Position(line=line, column=column), path=(), what=what)


class _TooMuchError(Exception):
    """The limit of values was reached; reading stops."""


class _Builder:
    """Turns nodes into values. Collects faults in the document instead of raising them."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0
        self._open: set[int] = set()

    def build_root(self, node: Node) -> None:
        try:
            self._document.value = self._build(node, ())
        except _TooMuchError:
            what = f"more than {MOST_VALUES} values once aliases are followed; this is not a plan"
            self._document.faults.append(_fault_at_start(what))

    def _fault(self, node: Node, path: Path, what: str) -> None:
        self._document.faults.append(Fault(position=_position(node), path=path, what=what))

    def _build(self, node: Node, path: Path) -> Any:
        self._count += 1
        if self._count > MOST_VALUES:
            raise _TooMuchError
        nothing = isinstance(node, ScalarNode) and node.value == "" and node.style is None
        # an empty value stands nowhere: YAML places it at the next token, which may be lines away
        self._document.values[path] = self._document.keys.get(path, _position(node)) if nothing else _position(node)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            self._fault(node, path, "an alias refers to the value it is part of")
            return None
        if len(path) > DEEPEST:
            self._fault(node, path[:3], f"nested too deeply (more than {DEEPEST} levels)")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self._build(item, (*path, number)) for number, item in enumerate(node.value)]
            assert isinstance(node, MappingNode)
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        own: dict[str, Position] = {}
        for key_node, value_node, merged in self._pairs(node, path):
            if not isinstance(key_node, ScalarNode):
                self._fault(key_node, path, "a key must be a word, not a list or a mapping")
                continue
            key, here = str(key_node.value), _position(key_node)
            if merged and key in own:
                continue
            if not merged and key in own:
                self._fault(key_node, (*path, key), f"the key stands twice; the first is in line {own[key].line}")
                continue
            if not merged:
                own[key] = here
            self._document.keys[(*path, key)] = here
            result[key] = self._build(value_node, (*path, key))
        return result

    def _pairs(self, node: MappingNode, path: Path) -> Iterator[tuple[Node, Node, bool]]:
        """The entries of a mapping, its own ones first and then those that ``<<`` brings in."""
        brought: list[tuple[Node, Node]] = []
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                yield key_node, value_node, False
                continue
            sources = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            for source in sources:
                if not isinstance(source, MappingNode) or source is node or id(source) in self._open:
                    self._fault(value_node, path, "<< needs an alias of a mapping")
                elif any(key.tag == _MERGE for key, _ in source.value):
                    self._fault(value_node, path, "<< may not bring in a mapping that uses << itself")
                else:
                    brought.extend(source.value)
        for key_node, value_node in brought:
            yield key_node, value_node, True

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        kind, text = str(node.tag).removeprefix("tag:yaml.org,2002:"), str(node.value)
        if kind in ("str", "timestamp", "merge", "value"):
            return text  # a date is read by the key that wants one
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        number = _number(kind, text)
        if number is None:
            self._fault(node, path, f"cannot read {text[:40]!r} as !{kind}")
        return number


def _number(kind: str, text: str) -> WrittenInt | WrittenFloat | None:
    plain = text.replace("_", "")
    if kind == "int" and len(plain) <= 400:
        base = 10 if _INT.fullmatch(plain) else 8 if _OCTAL.fullmatch(plain) else 16 if _HEX.fullmatch(plain) else 0
        if base:
            whole = WrittenInt(int(plain if base == 10 else plain[2:], base))
            whole.written = text
            return whole
    # infinity and "not a number" are YAML, and no plan has a use for them
    if kind == "float" and _FLOAT.fullmatch(plain) and math.isfinite(float(plain)):
        number = WrittenFloat(plain)
        number.written = text
        return number
    return None


def _position(node: Node) -> Position:
    return Position(line=node.start_mark.line + 1, column=node.start_mark.column + 1)
