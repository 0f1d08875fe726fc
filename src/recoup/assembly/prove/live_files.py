"""Bringing a copy of files to life in a sandbox, with the checks that the plan has for it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from recoup.assembly.access import Found, Readable
from recoup.engines.engine import CopyReader
from recoup.engines.files.live import FilesCheck, FilesLive, open_files_live
from recoup.engines.sandbox import Sandbox
from recoup.plan.services import FilesService


def files_live(
    opened: Readable, found: Found, reader: CopyReader, sandbox: Sandbox
) -> AbstractContextManager[FilesLive]:
    """The copy ``found``, to be restored into ``sandbox``. Without a plan it is asked nothing."""
    described = None if opened.system is None else opened.system.plan.services.get(found.manifest.service)
    checks = described.checks if isinstance(described, FilesService) else ()
    asked = [FilesCheck(file=one.file, name=one.name, at_least=one.at_least, contains=one.contains) for one in checks]
    return open_files_live(sandbox, reader, checks=asked)
