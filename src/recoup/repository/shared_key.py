"""What may be known of a key that was split. The recovery kit has it, and needs nothing of how shares are made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedKey:
    """Which key was split, and how. Nothing of it opens anything."""

    key: str  #: the fingerprint
    set: str
    needed: int
    count: int
    holders: tuple[str, ...] = ()  #: who has the shares, in the order of their numbers; empty when nobody was named

    @property
    def command(self) -> str:
        """What brings shares together that are typed."""
        return f"recoup key combine --key-id {self.key} --output recoup.key"
