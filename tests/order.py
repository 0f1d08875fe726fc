"""In which order the files of the tests are run by several workers: the longest first, so that all end together.

``slowest.txt`` has the seconds of each file that takes long. It is made anew from a run's report:

    python -m pytest -n 3 --dist loadfile --junitxml report.xml tests; python -m tests.order report.xml
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from functools import lru_cache
from pathlib import Path

LIST = Path(__file__).with_name("slowest.txt")
_WORTH_SECONDS = 5.0


@lru_cache
def seconds() -> dict[str, float]:
    """How long a file's tests took when that was recorded, by its path from the root. Quick ones are not there."""
    lines = (line.split() for line in LIST.read_text().splitlines())
    return {path: float(number) for number, path in lines}


def record(report: Path) -> None:
    """Write the list anew."""
    spent: Counter[str] = Counter()
    for case in ET.parse(report).iter("testcase"):
        spent[case.attrib["classname"].replace(".", "/") + ".py"] += float(case.attrib["time"])  # type: ignore[assignment]
    lines = [f"{number:.0f} {path}\n" for path, number in spent.most_common() if number >= _WORTH_SECONDS]
    LIST.write_text("".join(lines))


if __name__ == "__main__":
    record(Path(sys.argv[1]))
