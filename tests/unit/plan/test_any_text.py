"""Whatever a file holds, reading it gives a plan or a PlanError, never anything else."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from recoup.kernel.errors import PlanError
from recoup.plan.load import parse_plan
from recoup.plan.show import as_data, redacted, to_yaml

EXAMPLE = Path(__file__).with_name("example.yaml").read_text()
LINES = EXAMPLE.splitlines()

# Characters and words that YAML gives a meaning, so that random texts are not all one plain scalar.
YAML_TEXT = st.lists(
    st.sampled_from(
        [
            *"-?:,[]{}#&*!|>'\"%@`~ \n\t\\\ufeff\x85\u2028\0",
            "\n  ",
            ": ",
            "- ",
            "&a ",
            "*a",
            "<<: ",
            "!!",
            "!!int ",
            "%YAML 1.1\n",
            "---\n",
            "...\n",
            "services",
            "recoup: 1\n",
            "null",
            "0x",
            "1e999",
            "0o9",
            ".nan",
            "2026-01-01",
            "${A}",
            "${",
            "|2\n",
        ]
    ),
    max_size=30,
).map("".join)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["postgres", "daily 02:00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["engine", "url", "path"]), inner, max_size=3)
    ),
    max_leaves=8,
)
SECTIONS = st.sampled_from(
    [
        "recoup",
        "system",
        "timezone",
        "plan",
        "compose",
        "tiers",
        "services",
        "repositories",
        "key",
        "retention",
        "verify",
        "drill",
        "team",
        "vendors",
        "channels",
        "communication",
        "secrets",
        "x-own",
        "other",
    ]
)


def read(text: str) -> None:
    try:
        plan = parse_plan(text)
    except PlanError:
        return
    assert parse_plan(to_yaml(as_data(plan))) == plan
    redacted(plan)


@settings(max_examples=250, deadline=None)
@given(st.text() | YAML_TEXT)
@example("!!set {a}")
@example("%TAG ! x\n---\na")
@example("!<x> {a: !!python/object:os.system x}")
@example("a: !!binary x")
@example("? |\n")
@example("key: 1_000_")
@example("x: " + "9" * 5000)
@example("- &a [*a, *a]")
@example("{<<: 1}")
@example("<<: [[a]]")
def test_any_text(text: str) -> None:
    read(text)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(SECTIONS, VALUES, max_size=5))
def test_any_values_under_the_sections_of_a_plan(values: dict[str, object]) -> None:
    read(to_yaml(values))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(EXAMPLE)), st.integers(0, 40), st.text(max_size=6) | YAML_TEXT)
def test_the_example_with_any_piece_of_it_replaced(start: int, length: int, piece: str) -> None:
    read(EXAMPLE[:start] + piece + EXAMPLE[start + length :])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(range(len(LINES))), min_size=1, max_size=8))
def test_the_example_without_any_of_its_lines(dropped: list[int]) -> None:
    read("\n".join(line for number, line in enumerate(LINES) if number not in dropped))
