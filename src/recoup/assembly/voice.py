"""Whom a drill or a recovery talks to while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recoup.engines.engine import ProgressListener
from recoup.recovery.step import Step

#: Asks a person to do a step: true when it was done, false when it could not be, None when nobody answered.
Ask = Callable[[Step], bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Whom a run talks to. ``ask`` None: nobody can be asked."""

    say: Callable[[str], None]
    on_progress: ProgressListener
    ask: Ask | None = None
