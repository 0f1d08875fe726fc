"""What is printed: aligned, unwrapped, free of what a terminal would obey."""

from __future__ import annotations

import json

import pytest

from recoup.cli.output import Output, clean, format_table
from recoup.engines.engine import Progress


def test_a_table_is_aligned_with_numbers_to_the_right_and_never_wrapped() -> None:
    text = format_table(("name", "size"), [("a", 5), ("long " * 40, 12345)])
    first, second, third = text.splitlines()
    assert first.startswith("name ")
    assert second.endswith("    5")
    assert third.endswith("12345")
    assert len(third) > 200


def test_an_empty_table_shows_its_headings() -> None:
    assert format_table(("name", "size"), []) == "name  size\n"


def test_control_characters_of_names_are_made_visible() -> None:
    assert clean("a\x1b[31mb\nc\x07") == "a\\x1b[31mb\\nc\\x07"
    assert "\x1b" not in format_table(("x",), [("\x1b[2J",)])


def test_json_output_is_one_document_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True)
    output.line("not shown")
    output.table(("a",), [("b",)])
    output.document("list", {"entries": ["ä"]})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"schema": "recoup.list/1", "entries": ["ä"]}
    assert shown.isascii()


def test_plain_output_prints_no_json_and_quiet_no_remarks(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.document("list", {})
    output.note("a remark")
    output.line("a result")
    assert capsys.readouterr() == ("a result\n", "")


def test_progress_away_from_a_terminal_does_not_flood_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress() as listener:
        for done in range(1000):
            listener(Progress(what="base.tar", done_bytes=done, total_bytes=1000))
    assert len(capsys.readouterr().err.splitlines()) <= 1
