"""How many rows each table of a copy has, by its fingerprint. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def row_counts(fingerprint: Mapping[str, Any]) -> dict[str, int | None]:
    """``{'shop "public"."orders"': 1200}`` for a fingerprint of databases; None for what could not be counted.

    Foreign tables and unlogged ones are left out: what they hold is not part of a copy. Materialized views and the
    tables of extensions are counted like all others.
    """
    counts: dict[str, int | None] = {}
    for database, found in fingerprint.get("databases", {}).items():
        for name, entry in found["tables"].items():
            if "not_compared" not in entry and not entry.get("unlogged"):
                counts[f"{database} {name}"] = entry.get("rows")
    return counts
