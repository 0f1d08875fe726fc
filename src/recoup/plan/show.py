"""The effective plan: everything that holds, defaults included, without anything that could be a secret."""

from __future__ import annotations

import io
import re
from typing import Any

from ruamel.yaml import YAML

from recoup.plan.document import Path
from recoup.plan.model import Plan
from recoup.plan.template import is_only_references, redact

HIDDEN = "***"

_TELLING = re.compile(r"passw|secret|token|authorization|cookie|api.?key|access.?key|credential", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def as_data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values, exactly; it loads again. May hold secrets that were written where they should not be."""
    return plan.model_dump(mode="json", by_alias=True, exclude_none=True)


def redacted(plan: Plan) -> dict[str, Any]:
    """As ``as_data``, with stars for what is or could be a secret. References stay: they are none."""
    result = _hide(as_data(plan), ())
    assert isinstance(result, dict)
    return result


def to_yaml(data: dict[str, Any]) -> str:
    """JSON values as YAML 1.2 text."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 1000
    yaml.allow_unicode = True
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def _hide(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        return {name: _hide(entry, (*path, name)) for name, entry in value.items()}
    if path == ("key", "command"):
        # arguments may hold anything; the program says enough
        return [value[0], HIDDEN] if isinstance(value, list) else f"{str(value).split(maxsplit=1)[0]} {HIDDEN}"
    if isinstance(value, list):
        return [_hide(entry, (*path, number)) for number, entry in enumerate(value)]
    if not isinstance(value, str):
        return HIDDEN if _is_telling(path) and not isinstance(value, bool) else value
    if path[:1] == ("channels",) and (scheme := _SCHEME.match(value)):
        # an Apprise address is its token: slack://A/B/C
        rest = value[scheme.end() :]
        return value if is_only_references(rest) else f"{scheme[0]}{HIDDEN}"
    if _is_telling(path):
        return value if is_only_references(value.removeprefix("Bearer ").removeprefix("Basic ")) else HIDDEN
    return redact(value)


def _is_telling(path: Path) -> bool:
    """Whether the name under which a value stands says that it is a secret."""
    if path[:1] not in (("services",), ("repositories",), ("drill",)) or len(path) < 3:
        return False  # under secrets: there are only names of secrets
    if path[0] == "drill" and any(part in ("expect", "save") for part in path):
        return False
    return any(isinstance(part, str) and _TELLING.search(part) for part in path[2:] if part != "credentials")
