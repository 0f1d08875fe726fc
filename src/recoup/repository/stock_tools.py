"""``RESTORE.md`` and ``restore.sh``: what a repository carries so that it can be restored without Recoup."""

from __future__ import annotations

from importlib import resources

from recoup.repository import layout
from recoup.repository.seal import Key


def files(key: Key) -> dict[str, bytes]:
    """Given the repository's key, return the texts by object key. They name the key's fingerprint, never the key."""
    folder = resources.files("recoup.repository") / "stock"
    texts = {}
    for name in (layout.RESTORE_GUIDE, layout.RESTORE_SCRIPT):
        text = (folder / name).read_text(encoding="utf-8")
        text = text.replace("@KEY_SHORT@", key.id[:16]).replace("@ITERATIONS@", str(key.iterations))
        texts[name] = text.encode()
    return texts
