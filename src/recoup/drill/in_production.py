"""Which of the plan's flows are done in production, after a recovery. Pure.

In a sandbox a flow may sign up users and order things; in production that would be a user nobody knows and an order
that somebody ships. So a flow is done there when it only reads, or when the plan says that it may be.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from recoup.drill.flows import FlowSpec, Lookup
from recoup.kernel.errors import UncheckedError

#: A GET asks for nothing but an answer (RFC 9110, section 9.2.1); ``sql`` is asked read-only in production.
_READING: Final = ("get", "sql")
HINT: Final = "If it harms nobody there, write `production: true` in the flow; else do it by hand, and say so."


def why_not(flow: FlowSpec) -> str | None:
    """Why a flow is not done in production; None when it is."""
    if flow.production is not None:
        return None if flow.production else "the plan says that it is for drills"
    more = [one for one in flow.steps if one.act not in _READING]
    return f"it does more than read ({more[0].shown})" if more else None


def lookup_for(flow: FlowSpec, secrets: Collection[str], lookup: Lookup) -> Lookup:
    """How the variables of a flow are looked up in production, where ``secrets`` stand for others than in a drill.

    What a drill has of its own is not asked for there unless the plan says that the flow may be done: its lookup then
    raises ``UncheckedError``.
    """

    def look(name: str) -> str | None:
        if name in secrets and flow.production is None:
            raise UncheckedError(f"the variable {name} stands for something else in a drill", hint=HINT)
        return lookup(name)

    return look if secrets else lookup
