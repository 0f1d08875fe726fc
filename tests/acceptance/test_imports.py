"""What a call loads: questions that a repository answers must not pay for drivers of servers and stores."""

from __future__ import annotations

import subprocess
import sys

from tests.acceptance.workplace import Workplace

#: Each takes 10 to 100 ms to load, of the 500 ms that an answer may take.
_DRIVERS = ("psycopg", "redis", "boto3", "botocore", "rich", "asyncio", "apprise", "prometheus_client", "typst")
_QUESTIONS = (
    ["list"],
    ["list", "--json"],
    ["show", "latest"],
    ["status"],
    ["windows"],
    ["verify", "latest", "--grade", "stored"],
    ["prune", "--plan"],
    ["sync", "--plan"],
)
_PROGRAM = f"""
import sys
from recoup.cli.main import main
for question in {_QUESTIONS!r}:
    code = main(question)
    loaded = sorted(set({_DRIVERS!r}) & set(sys.modules))
    if loaded or code not in (0, 3):
        sys.exit(f"{{question}} ended with {{code}}, loaded: {{loaded}}")
"""


def test_no_driver_is_loaded_to_answer_what_the_repository_knows(work: Workplace) -> None:
    work.services["uploads"] = "{engine: files, paths: [recoup.yaml], keep: 30d}"
    work.services["postgres"] = "{engine: postgres, url: 'postgresql://shop@127.0.0.1:9/shop', databases: [shop]}"
    work.services["redis"] = "{engine: redis, url: 'redis://127.0.0.1:9/0'}"
    work.repositories["second"] = "{path: second}"
    work.write_plan()
    work.backup("uploads")
    asked = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=work.folder,
        env={"RECOUP_STATE": str(work.state)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert asked.returncode == 0, asked.stderr
