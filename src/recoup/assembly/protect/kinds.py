"""Which kinds of copies there are of each kind of service. A file of its own: to know it, no engine need be loaded."""

from __future__ import annotations

from typing import Final

from recoup.plan.services import ComposeService, FilesService, PostgresService, RedisService

KINDS: Final[dict[type, tuple[str, ...]]] = {
    PostgresService: ("base", "incremental", "dump"),
    RedisService: ("rdb",),
    FilesService: ("files",),
    ComposeService: (),
}
