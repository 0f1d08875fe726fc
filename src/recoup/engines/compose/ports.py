"""Who has the port that a container cannot get, since the engine does not say it."""

from __future__ import annotations

import re
from typing import Final

from recoup.engines.compose.docker import ComposeSource, call
from recoup.kernel.errors import EngineError

#: What the engine says when its own table of ports has it. When a program of the machine has it, the words are others.
_ALLOCATED: Final = re.compile(r"Bind for \S*:(\d+) failed: port is already allocated")


def with_who_has_the_port(source: ComposeSource, failure: EngineError) -> EngineError:
    """The same failure, and when it is for a port that the engine has given away, with what frees it.

    An engine that was cut off while it started a container may keep the port of that start without any container having
    it (moby issue 20486). Nothing but another start of the engine frees it then, and that is for people to decide: it
    starts everything else of the machine again, too.
    """
    found = _ALLOCATED.search(failure.message)
    if found is None:
        return failure
    port = found[1]
    asked = source.docker("ps", "--filter", f"publish={port}", "--format", "{{.Names}}")
    names = call(asked, doing="list who has the port", expect=None).stdout.decode().split()
    if names:
        hint = f"{', '.join(names)} has port {port}: docker stop {' '.join(names)}."
    else:
        hint = (
            f"No container has port {port}: the engine kept it from a start that was cut off. Start the engine again, "
            "which starts every container of this machine again: systemctl restart docker."
        )
    return EngineError(failure.message, hint=hint)
