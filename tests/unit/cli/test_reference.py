"""The reference pages are what the program says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from recoup.cli.reference import commands, pages

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", list(pages()))
def test_a_made_page_is_current(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == pages()[name], "run: python -m recoup.cli.reference"


def test_every_command_has_help_and_examples_that_call_it() -> None:
    found = list(commands())
    assert {"recoup init", "recoup key check", "recoup plan show"} <= {name for name, _, _ in found}
    for name, command, _ in found:
        assert command.help, f"{name} has no help"
        assert command.short_help, f"{name} has no short help"
        lines = [line.strip() for line in (command.epilog or "").split("Examples:", 1)[-1].splitlines() if line.strip()]
        assert lines, f"{name} has no examples"
        for line in lines:
            assert line.startswith(name), f"an example of {name} calls something else: {line}"


def test_every_option_is_explained_and_the_shared_ones_are_the_same_everywhere() -> None:
    for name, command, context in commands():
        for parameter in command.params:
            record = parameter.get_help_record(context)
            assert record is None or record[1], f"{name} {parameter.name} has no help"
            if "--json" in parameter.opts:
                assert parameter.help == "Print one JSON document with a schema field."


def test_every_example_in_the_help_is_one_that_the_program_can_read() -> None:
    import shlex

    for name, command, context in commands():
        for line in (command.epilog or "").split("Examples:", 1)[-1].strip().splitlines():
            words = shlex.split(line, comments=True)
            rest = words[len(name.split()) :]
            rest = rest[: rest.index(">")] if ">" in rest else rest
            command.make_context(command.name, rest, parent=context.parent, resilient_parsing=False).close()
