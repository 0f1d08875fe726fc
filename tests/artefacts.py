"""What a test made that people may want to look at, such as screenshots: kept where they find it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).resolve().parent.parent / "build" / "test-artefacts"


def keep(file: Path) -> Path:
    """Copy ``file`` to where artefacts are kept: ``$RECOUP_TEST_ARTEFACTS``, else ``build/test-artefacts``."""
    folder = Path(os.environ.get("RECOUP_TEST_ARTEFACTS") or _FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(file, folder / file.name))
