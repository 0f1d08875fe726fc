"""What the program says to type can be typed: each command in its texts exists, with the options that stand there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from recoup.cli.reference import commands
from tests.architecture.sources import nodes, place

#: A command in a text ends with its quotation or its sentence.
_COMMAND = re.compile(r"\brecoup [a-z](?:[^`;\n.)]|\.(?! |$))*")


def _texts() -> Iterator[tuple[str, str]]:
    """Every text of the program, with where it is; what is filled in when it is said is an X."""
    parts = {id(part) for _, node in nodes(ast.JoinedStr) for part in ast.walk(node) if part is not node}
    for name, node in nodes(ast.JoinedStr, ast.Constant):
        if isinstance(node, ast.JoinedStr):
            said = (one.value if isinstance(one, ast.Constant) else "X" for one in node.values)
            yield place(name, node), "".join(str(one) for one in said)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield place(name, node), node.value


def _commands() -> Iterator[tuple[str, str]]:
    for where, text in _texts():
        yield from ((where, found[0].strip()) for found in _COMMAND.finditer(text))


def test_every_command_that_the_program_says_to_type_exists_with_its_options() -> None:
    known = {
        tuple(name.split()): {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        for name, command, _ in commands()
    }
    wrong, seen = [], 0
    for where, command in _commands():
        words = command.split()
        options = next((known[name] for n in (3, 2) if (name := tuple(words[:n])) in known), None)
        if options is None:
            continue  # a sentence about the program, or the name of a connection
        seen += 1
        given = re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", command)
        wrong += [f"{where}: {command}: {one}" for one in given if one not in options | {"-h", "--help"}]
    assert seen > 100, "it would pass where it sees nothing"
    assert not wrong
