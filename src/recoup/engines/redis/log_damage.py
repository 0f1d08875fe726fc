"""What a Redis that does not start says of its data, in the last lines of its log. Pure.

The words are those of the server's own messages (src/rdb.c, src/aof.c): damage, and not a wrong setting or too little
memory.
"""

from __future__ import annotations

import re
from typing import Final

from recoup.engines.log_words import lines_with

_DAMAGE: Final = re.compile(
    r"Bad file format reading the append only file|Unexpected end of file reading the append only file"
    r"|Wrong signature trying to load DB from file|Short read or OOM loading DB|Internal error in RDB reading"
    r"|Wrong RDB checksum|RDB CRC error|Terminating server after rdb file reading failure"
    r"|Fatal error loading the DB(?!.*Permission denied)|Invalid AOF manifest file format"
    r"|The AOF manifest file .* format is invalid|Error reading the (?:RDB preamble of the )?AOF file"
)
_WELL: Final = "Ready to accept connections"
_HEAD: Final = re.compile(r"^\d+:\w .*?(?=[#*.-] )")


def damage_in_log(log: str) -> tuple[str, ...]:
    """The last few lines that speak of damage, the newest last. Empty when none does."""
    return lines_with(_DAMAGE, log, after=_WELL, head=_HEAD)
