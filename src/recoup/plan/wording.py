"""Says what pydantic found in words of the plan: ``missing``, ``unknown key (did you mean …?)``, with an example."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from recoup.plan.document import Document, Fault, Path
from recoup.plan.model import Plan
from recoup.plan.services import ENGINES
from recoup.plan.template import redact

_WANTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_EXAMPLES: dict[str, str] = {
    "recoup": "recoup: 1",
    "system": "system: Shop production",
    "services": "services: {postgres: {engine: postgres, compose: postgres, base: daily 02:00}}",
    "repositories": "repositories: {local: {path: /var/backups/recoup}}",
    "key": "key: {file: recoup.key}",
    "tiers": "tiers: {critical: {rto: 4h, rpo: 24h}}",
    "rto": "rto: 4h",
    "rpo": "rpo: 24h",
    "engine": "engine: postgres",
    "sql": 'sql: "select count(*) from users"',
}


def faults_of(error: ValidationError, document: Document) -> Iterator[Fault]:
    """Given what pydantic found, yield each fault once, with its place in the text."""
    seen: set[tuple[Path, str]] = set()
    found = error.errors(include_url=False)
    places = [_path(details)[0] for details in found]
    wanted: dict[Path, list[str]] = {}
    for details, path in zip(found, places, strict=True):
        if details["type"] in _WANTED:
            wanted.setdefault(path, []).append(_WANTED[details["type"]])
    for details in found:
        path, of_key = _path(details)
        if details["type"] == "too_short" and any(len(p) > len(path) and p[: len(path)] == path for p in places):
            continue  # its entries are there, and wrong
        what = _wanted(wanted[path], details) if details["type"] in _WANTED else _what(details, path, document)
        at = path[:-1] if details["type"] == "missing" else path
        fault = Fault(position=document.position(at, of_key=of_key), path=path, what=what)
        # a value that fits none of several kinds is reported once for each kind
        where = (path, "" if details["type"] in _WANTED else what)
        if where not in seen:
            seen.add(where)
            yield fault


def suggest(word: str, known: Sequence[str]) -> str:
    """`` (did you mean "base"?)``, or the list of what is known when nothing is near, or nothing when that is long."""
    near = difflib.get_close_matches(word.lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    if near:
        return f' (did you mean "{next(name for name in known if name.lower() == near[0])}"?)'
    return f" (known: {', '.join(known)})" if 0 < len(known) <= 16 else ""


def _path(details: ErrorDetails) -> tuple[Path, bool]:
    """The place in the file that pydantic's ``loc`` means, and whether the key itself is at fault."""
    path = list(details["loc"])
    if details["type"] == "union_tag_invalid":
        path.append("engine")
    of_key = details["type"] in ("extra_forbidden", "missing")
    if path[:1] == ["services"] and len(path) > 2 and path[2] in ENGINES:
        del path[2]  # the branch of the union, which the file does not show
    if path and path[-1] == "[key]":
        return tuple(path[:-1]), True
    real: list[str | int] = []
    for part in path:
        if isinstance(part, str) and (part in _UNION_LABELS or "[" in part):
            break
        real.append(part)
    return tuple(real), of_key


# pydantic appends the name of the branch for unions of plain kinds
_UNION_LABELS = frozenset({"str", "int", "float", "bool", "constrained-str", "tuple"})


def _what(details: ErrorDetails, path: Path, document: Document) -> str:
    kind, context = details["type"], details.get("ctx", {})
    name = str(path[-1]) if path else ""
    if kind == "missing":
        example = _EXAMPLES.get(name)
        return "missing" + (f" (example: {example})" if example else "")
    if kind == "extra_forbidden":
        return f"unknown key{suggest(name, known_keys(path[:-1], document.value))}"
    if kind == "union_tag_not_found":
        return f"needs an engine: {', '.join(ENGINES)}" if _is_mapping(details) else _wanted(["a mapping"], details)
    if kind == "union_tag_invalid":
        return f"unknown engine {_shown(context.get('tag'))}{suggest(str(context.get('tag')), ENGINES)}"
    if kind == "literal_error":
        if path == ("recoup",):
            return f"this Recoup knows version 1 of the plan, not {_shown(details['input'])}"
        allowed = [part.strip(" '") for part in str(context["expected"]).replace(" or ", ",").split(",")]
        known = suggest(str(details["input"]), allowed) if len(allowed) > 1 else ""
        return f"{_shown(details['input'])} is not one of: {', '.join(allowed)}" + (known if "did you" in known else "")
    if kind == "value_error":
        return str(context.get("error", details["msg"]))
    return _about_size(kind, context, details)


def _about_size(kind: str, context: dict[str, Any], details: ErrorDetails) -> str:
    match kind:
        case "greater_than_equal":
            return f"must be {context['ge']} or more, not {_shown(details['input'])}"
        case "less_than_equal":
            return f"must be {context['le']} or less, not {_shown(details['input'])}"
        case "too_short":
            return "at least one entry is needed"
        case "string_too_short":
            return "may not be empty"
        case "string_too_long":
            return f"too long (at most {context['max_length']} characters)"
        case "string_pattern_mismatch":
            return "not a name: letters, digits and ._- only, beginning with a letter, a digit or _"
    message = details["msg"]
    return message[:1].lower() + message[1:]


def _is_mapping(details: ErrorDetails) -> bool:
    return isinstance(details["input"], dict)


def _wanted(kinds: list[str], details: ErrorDetails) -> str:
    value = details["input"]
    named = [kind for kind in dict.fromkeys(kinds) if kind != "a whole number" or "a number" not in kinds]
    what = f"{' or '.join(named)} is needed, not {_shown(value)}"
    if named == ["a text"] and isinstance(value, bool):
        return f'{what} (put it in quotes: "{str(value).lower()}")'
    if named == ["a list"] and isinstance(value, str):
        return f"{what} (write [{redact(value)}])" if len(value) < 60 else what
    return what


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = redact(str(getattr(value, "written", value)))
    return repr(text if len(text) <= 60 else text[:57] + "...") if isinstance(value, str) else text[:60]


@cache
def _schema() -> dict[str, Any]:
    return Plan.model_json_schema(by_alias=True)


def known_keys(path: Path, value: Any) -> list[str]:
    """The keys a mapping at ``path`` may have. ``value`` is the whole file, which tells a service's engine."""
    at: Any = _schema()
    for part in path:
        at = _deref(at, value)
        if isinstance(part, int):
            at = at.get("items", {})
        else:
            # a mapping with names of one's own has its values under patternProperties
            own: Any = at.get("additionalProperties") or next(iter(at.get("patternProperties", {}).values()), {})
            at = at.get("properties", {}).get(part) or own
        value = _step(value, part)
        if at is False or at is True:
            at = {}
    return sorted(_deref(at, value).get("properties", {}))


def _step(value: Any, part: str | int) -> Any:
    if isinstance(value, dict) and isinstance(part, str):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _deref(schema: Any, value: Any) -> dict[str, Any]:
    while True:
        if "$ref" in schema:
            schema = _schema()["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        elif "discriminator" in schema:
            engine = value.get("engine") if isinstance(value, dict) else None
            schema = {"$ref": schema["discriminator"]["mapping"].get(engine, "#/$defs/ComposeService")}
        elif "anyOf" in schema:
            schema = next((one for one in schema["anyOf"] if one.get("type") != "null"), {})
        else:
            return dict(schema)
