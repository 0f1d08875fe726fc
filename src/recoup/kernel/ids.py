"""Identifiers: sortable by time, safe in file names and object keys, short enough to read over the telephone."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

# Crockford's base 32 without i, l, o, u: nothing that is read wrongly at 3 a.m.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_SHAPE = re.compile(r"\d{8}-\d{6}-[0-9a-hjkmnp-tv-z]{6}")


def new_id(instant: datetime) -> str:
    """Given an aware instant, return ``YYYYMMDD-HHMMSS-xxxxxx`` (UTC, then 30 random bits)."""
    tail = "".join(secrets.choice(_ALPHABET) for _ in range(6))
    return f"{stamp(instant)}-{tail}"


def stamp(instant: datetime) -> str:
    """Given an aware instant, return ``YYYYMMDD-HHMMSS`` in UTC."""
    if instant.tzinfo is None:
        raise ValueError("an instant without a zone cannot be an identifier")
    return instant.astimezone(UTC).strftime("%Y%m%d-%H%M%S")


def is_id(text: str) -> bool:
    """Whether ``text`` has the exact shape of an identifier made here."""
    return _SHAPE.fullmatch(text) is not None
