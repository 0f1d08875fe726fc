"""What a server that does not start says of its data, in the last lines of its log. Pure.

The words are those of the server's own messages (src/backend/access/transam/xlogrecovery.c, xlog.c,
src/backend/storage/page, src/common/controldata_utils.c, src/backend/utils/init/miscinit.c). A full disk, a wrong
setting, missing rights or another major version are no damage and are not among them.
"""

from __future__ import annotations

import re
from typing import Final

from recoup.engines.log_words import lines_with

_DAMAGE: Final = re.compile(
    r"invalid page in block|could not locate a valid checkpoint record|could not locate required checkpoint record"
    r"|invalid (?:primary )?checkpoint record|incorrect checksum in control file|invalid checksum in control file"
    r"|calculated CRC checksum does not match|WAL contains references to invalid pages|could not read blocks?? "
    r"|could not open file \"(?:global/pg_control|base/|global/)[^\"]*\": No such file"
    r"|is not a valid data directory|missing chunk number|page verification failed"
    r"|could not access status of transaction|invalid contents|contains invalid data|database system is corrupt"
)
_WELL: Final = "database system is ready to accept connections"
_HEAD: Final = re.compile(r"^.*?(?=(?:PANIC|FATAL|ERROR|WARNING|LOG): )")


def damage_in_log(log: str) -> tuple[str, ...]:
    """The last few lines that speak of damage, the newest last. Empty when none does."""
    return lines_with(_DAMAGE, log, after=_WELL, head=_HEAD)
