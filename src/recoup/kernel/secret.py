"""A value that must never be printed."""

from __future__ import annotations


class Secret:
    """Wraps a secret text. ``str``, ``repr`` and formatting show stars; only ``reveal`` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself. Call this only at the edge that hands it to the outside."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(("recoup.Secret", self._text))
