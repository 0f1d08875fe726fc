"""What the streams of a base backup are called. Nothing else is imported by whoever needs only the names."""

from __future__ import annotations

from typing import Final

BASE_ARCHIVE: Final = "base.tar"  #: the main data directory
MANIFEST_STREAM: Final = "backup_manifest"  #: the server's own list of files
