"""What the pages say is there: links lead somewhere, files and tests exist, commands and options are the program's."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

import click
import pytest
import typer

from recoup.cli.app import build
from recoup.cli.reference import commands
from recoup.kernel.errors import Exit
from recoup.plan.load import load
from tests.architecture.documents import Page, command_lines, pages, read_page
from tests.architecture.sources import PROGRAM, ROOT, text_of, tracked

_MADE = ("docs/reference/",)
_each_page = pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)


@_each_page
def test_every_link_leads_somewhere(page: Page) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        path = Path(os.path.normpath(page.path.parent / name)) if name else page.path
        if not path.exists() or not path.is_relative_to(ROOT):
            wrong.append(target)
        elif anchor and path.suffix == ".md" and anchor not in read_page(path).anchors():
            wrong.append(f"{target}: no such heading")
    assert not wrong


@_each_page
def test_every_file_that_is_named_exists(page: Page) -> None:
    modules = {path.name for path in PROGRAM.rglob("*.py")} | {path.name for path in (ROOT / "tests").rglob("*.py")}
    wrong = []
    for span in page.spans():
        if re.match(r"(src|tests|docs|deploy|bench|scripts)/[\w./*-]*$", span) and not list(
            ROOT.glob(span.rstrip("/"))
        ):
            wrong.append(span)
        if re.fullmatch(r"\w+\.py", span) and span not in modules:
            wrong.append(span)
        if re.fullmatch(r"(\w+/)+\w+\.(py|sh)", span) and not any(
            (folder / span).is_file() for folder in (ROOT, PROGRAM)
        ):
            wrong.append(span)
    assert not wrong


@_each_page
def test_every_test_that_is_named_exists(page: Page) -> None:
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = {span for span in page.spans() if re.fullmatch(r"test_\w+", span)}
    assert {name for name in named if f"def {name}(" not in written} == set()


@_each_page
def test_every_command_that_is_shown_can_be_read_by_the_program(page: Page) -> None:
    wrong = []
    for words in command_lines(page):
        try:
            _parse(words)
        except (click.ClickException, typer.BadParameter, ValueError) as failure:
            wrong.append(f"recoup {' '.join(words)}: {getattr(failure, 'message', failure)}")
        except Exception as failure:  # noqa: BLE001 - Typer carries its own click, with errors of its own
            wrong.append(f"recoup {' '.join(words)}: {type(failure).__name__} {getattr(failure, 'message', failure)}")
    assert not wrong


def _parse(words: list[str]) -> None:
    # Options that print and end are run here, so they are looked for by their name only.
    if words in (["--version"], ["--help"], ["-h"]):
        return
    command = typer.main.get_command(build())
    context = command.make_context("recoup", list(words))
    while isinstance(getattr(command, "commands", None), dict):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[attr-defined]
        context = command.make_context(name, rest, parent=context)


@_each_page
def test_every_command_named_in_a_sentence_exists_with_its_options(page: Page) -> None:
    known = {name: command for name, command, _ in commands()}
    groups = {name.rpartition(" ")[0] for name in known}
    wrong = []
    for span in page.spans():
        words = span.split()
        if words[:1] != ["recoup"] or len(words) < 2 or "|" in span:
            continue
        name = next((" ".join(words[:length]) for length in (3, 2) if " ".join(words[:length]) in known), None)
        if name is None:
            if span not in groups and not words[1].startswith("-"):
                wrong.append(span)
            continue
        options = {option for parameter in known[name].params for option in parameter.opts} | {"-h", "--help"}
        wrong += [f"{span}: {word}" for word in words if word.startswith("-") and len(word) > 1 and word not in options]
    assert not wrong


def test_the_commands_that_are_shown_are_found() -> None:
    """The tests above would pass on pages in which they see nothing."""
    readme = next(page for page in pages() if page.name == "README.md")
    shown = list(command_lines(readme))
    assert ["check"] in shown
    assert ["backup"] in shown
    assert any(words[:2] == ["restore", "latest"] and "--into" in words for words in shown)
    with pytest.raises(Exception, match="No such option"):
        _parse(["backup", "--no-such-option"])
    with pytest.raises(Exception, match="No such command"):
        _parse(["key", "no-such-command"])


def test_every_command_is_told_of_outside_of_the_reference() -> None:
    written = "\n".join(page.text for page in pages() if not page.name.startswith(_MADE))
    several = re.findall(r"(recoup \w+) ([a-z-]+(?:\|[a-z-]+)+)", written)  # recoup key generate|show-id|check
    written += "\n".join(f"{group} {name}" for group, names in several for name in names.split("|"))
    assert {name for name, _, _ in commands() if not re.search(rf"{name}\b", written)} == set()


def test_every_exit_code_is_told_of_where_people_look() -> None:
    for name in ("README.md", "docs/how-to/troubleshoot.md"):
        page = next(one for one in pages() if one.name == name)
        told = {int(code) for code in re.findall(r"^\| (\d+) \|", page.prose, re.MULTILINE)}
        assert told == {int(code) for code in Exit}, name


def test_every_variable_that_is_named_is_read_somewhere() -> None:
    read = "\n".join(
        text_of(path) or ""
        for path in tracked()
        if path.suffix in {".py", ".sh"} or path.parent.name in {"deploy", "scripts", ".ci"}
    )
    named = {name for page in pages() for name in re.findall(r"\bRECOUP_[A-Z_]+\b", page.text)}
    assert {name for name in named if name not in read} == set()


def test_every_whole_plan_that_is_shown_is_a_plan(tmp_path: Path) -> None:
    found = 0
    for page in pages():
        for language, body in page.blocks:
            if language == "yaml" and body.startswith("recoup: 1"):
                found += 1
                (tmp_path / "recoup.yaml").write_text(body)
                load(tmp_path / "recoup.yaml")
    assert found


def test_no_line_is_wider_than_a_page() -> None:
    """Prose is read in terminals and in diffs. Tables, links and what programs print cannot be broken."""
    wrong = []
    for page in pages():
        for number, line in enumerate(page.prose.splitlines(), 1):
            if len(line) > 120 and "|" not in line and "](" not in line and not page.name.startswith(_MADE):
                wrong.append(f"{page.name}:{number}")
    assert not wrong
