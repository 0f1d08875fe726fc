"""The contracts that hold the dependency rule do hold it: each catches a violation planted for it."""

import os
import shutil
import sys
import tomllib
from pathlib import Path

from recoup.kernel.process import Command, Completed, run

_ROOT = Path(__file__).parents[2]

# contract -> (file that must not import it, import)
_PLANTED = {
    "imports point from the command line down to the kernel": ("kernel/units.py", "import recoup.repository"),
    "the plan is a description: it knows nothing that acts": ("plan/__init__.py", "import recoup.storage"),
    "engines do not know each other": ("engines/redis/__init__.py", "import recoup.engines.postgres"),
    "stores do not know each other": ("storage/local.py", "import recoup.storage.s3"),
    "only assembly and the demo choose concrete engines": ("backup/__init__.py", "import recoup.engines.files"),
    "only assembly and the demo choose concrete stores": ("repository/__init__.py", "import recoup.storage.local"),
    "only kernel/process.py starts processes": ("verification/__init__.py", "import subprocess"),
}


def _lint(folder: Path) -> Completed:
    return run(
        Command(
            argv=[str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
            folder=folder,
            # The tree to look at is the one in the folder, not the installed one.
            environment={"PYTHONPATH": str(folder / "src"), "NO_COLOR": "1", "COLUMNS": "200"},
            timeout_seconds=120,
        ),
        expect=None,
    )


def test_a_violation_of_every_contract_is_caught(tmp_path: Path) -> None:
    contracts = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in contracts} == set(_PLANTED)
    shutil.copytree(_ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_ROOT / "pyproject.toml", tmp_path)
    for file, line in _PLANTED.values():
        with open(tmp_path / "src" / "recoup" / file, "a") as handle:
            handle.write(f"\n{line}{os.linesep}")
    completed = _lint(tmp_path)
    assert completed.exit_status == 1
    said = completed.stdout.decode()
    for contract in _PLANTED:
        assert f"{contract} BROKEN" in said, said
