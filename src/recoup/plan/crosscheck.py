"""What no single key can say alone: names that must exist elsewhere, keys that exclude each other, cycles.

These look at the values as they were read, not at the finished model, so that they are reported together with all
other faults. They skip whatever has the wrong shape: that is reported already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recoup.plan.document import Path
from recoup.plan.template import Template, is_only_references, url_password
from recoup.plan.urls import SCHEMES, has_address_shape
from recoup.plan.wording import suggest

Found = tuple[Path, str]

_KEY_SOURCES = ("env", "file", "command", "credential")
_METHODS = ("get", "post", "put", "patch", "delete")
_ACTS = (*_METHODS, "sql", "command")
_WAYS = ("postgres_role", "redis_user", "generate", "manual", "recoup_key")
_CHECKS = ("at_least", "at_most", "equals")
_FOR_URL_ONLY = ("region", "endpoint", "credentials", "lock", "storage_class")


def cross_check(value: Any) -> Iterator[Found]:
    """Given the whole file's value, yield each fault as (path, what)."""
    root = _mapping(value)
    services = _mapping(root.get("services"))
    tiers = list(_mapping(root.get("tiers")))
    for name, service in _entries(services):
        yield from _service(("services", name), service, tiers, list(services), has_compose="compose" in root)
    yield from _cycles(services)
    for name, repository in _entries(root.get("repositories")):
        yield from _repository(("repositories", name), repository)
    key = _mapping(root.get("key"))
    if key or root.get("key") == {}:
        yield from _exactly_one(("key",), key, _KEY_SOURCES)
    compose = _mapping(root.get("compose"))
    if compose.get("file") is not None and compose.get("files"):
        yield ("compose", "files"), "file and files exclude each other; list all of them under files"
    yield from _flows(_mapping(root.get("drill")).get("flows"), services)
    yield from _people(root)
    yield from _pings(root.get("pings"), list(services))
    for name, secret in _entries(root.get("secrets")):
        yield from _secret(("secrets", name), secret, list(services))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _entries(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, entry in _mapping(value).items():
        if isinstance(entry, dict):
            yield name, entry


def _exactly_one(path: Path, value: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Found]:
    given = [name for name in names if value.get(name) is not None]
    if not given:
        yield path, f"one of these is needed: {', '.join(names)}"
    for extra in given[1:]:
        yield (*path, extra), f"{given[0]} and {extra} exclude each other"


def _service(
    path: Path, service: Mapping[str, Any], tiers: list[str], services: list[str], *, has_compose: bool
) -> Iterator[Found]:
    tier = service.get("tier")
    if isinstance(tier, str) and tier not in tiers:
        yield (*path, "tier"), f"there is no tier {tier!r}{suggest(tier, tiers) or ' (tiers: is empty)'}"
    for number, other in enumerate(_list(service.get("after"))):
        if other == path[1]:
            yield (*path, "after", number), "a service cannot come after itself"
        elif isinstance(other, str) and other not in services:
            yield (*path, "after", number), f"there is no service {other!r}{suggest(other, services)}"
    engine = service.get("engine")
    if engine == "postgres" and service.get("incremental") is not None and service.get("base") is None:
        yield (*path, "incremental"), "incremental backups build on a base backup; base says when one is taken"
    if engine in ("postgres", "redis"):
        yield from _server(path, service, SCHEMES[engine], has_compose=has_compose)
    elif engine == "compose" and not has_compose:
        yield path, "engine compose needs the plan's compose: section"
    elif engine == "files":
        if "every" in service and "daily" in service:
            yield (*path, "daily"), "every and daily exclude each other"
        if not service.get("paths") and not service.get("git"):
            yield path, "nothing to protect: paths or git is needed (example: paths: [uploads])"
    for number, check in enumerate(_list(service.get("checks")) if engine != "files" else ()):
        if isinstance(check, dict) and all(check.get(name) is None for name in _CHECKS):
            yield (*path, "checks", number), f"nothing is expected: one of {', '.join(_CHECKS)} is needed"


def _server(path: Path, service: Mapping[str, Any], schemes: tuple[str, ...], *, has_compose: bool) -> Iterator[Found]:
    url, compose = service.get("url"), service.get("compose")
    if url is not None and compose is not None:
        yield (*path, "url"), "url and compose exclude each other"
    if url is None and compose is None:
        yield path, f"where is it? compose: SERVICE or url: {schemes[0]}… is needed"
    if compose is not None and not has_compose:
        yield (*path, "compose"), "the plan has no compose: section (example: compose: {file: compose.yaml})"
    if isinstance(url, str) and not url.startswith(schemes) and not _is_reference(url):
        yield (*path, "url"), f"not an address of this engine (it begins with {' or '.join(schemes)})"
    elif isinstance(url, str) and not _is_reference(url) and not has_address_shape(url):
        yield (*path, "url"), f"not an address of a server (write {schemes[0]}user@host:port/…)"
    if url is not None:
        for name in ("user", "password", "database"):
            if name in service:
                yield (*path, name), f"{name} is a part of the url; it stands alone only with compose"
    if isinstance(url, str) and (password := url_password(url)) is not None and not is_only_references(password):
        yield (*path, "url"), "a password may not stand in a plan; write a reference such as ${DATABASE_PASSWORD}"
    yield from _must_refer((*path, "password"), service.get("password"), "${DATABASE_PASSWORD}")


def _is_reference(text: str) -> bool:
    try:
        return text.startswith("${") and bool(Template.parse(text).variables)
    except ValueError:
        return True  # said already


def _must_refer(path: Path, value: Any, example: str) -> Iterator[Found]:
    if isinstance(value, str) and value and not is_only_references(value):
        yield path, f"a secret may not stand in a plan; write a reference such as {example}"


def _cycles(services: Mapping[str, Any]) -> Iterator[Found]:
    """Each cycle of ``after`` once, at the entry that closes it."""
    after = {name: [o for o in _list(entry.get("after")) if isinstance(o, str)] for name, entry in _entries(services)}
    done: set[str] = set()
    for start in after:
        trail: list[str] = []
        stack: list[tuple[str, int]] = [(start, 0)] if start not in done else []
        while stack:
            name, number = stack.pop()
            if number == 0:
                trail.append(name)
            if number == len(after[name]):
                done.add(trail.pop())
                continue
            stack.append((name, number + 1))
            following = after[name][number]
            if following in trail and following != name:
                loop = [*trail[trail.index(following) :], following]
                yield ("services", name, "after", number), f"the order goes in a circle: {' → '.join(loop)}"
            elif following in after and following not in done and following not in trail:
                stack.append((following, 0))


def _repository(path: Path, repository: Mapping[str, Any]) -> Iterator[Found]:
    yield from _exactly_one(path, repository, ("path", "url"))
    kinds = _list(repository.get("copy"))
    if "incremental" in kinds and "base" not in kinds:
        yield (*path, "copy"), "incremental backups can only be restored with their base backup; add base"
    if "url" not in repository:
        for name in _FOR_URL_ONLY:
            if name in repository:
                yield (*path, name), f"{name} is for repositories with a url; a folder has none"
    credentials = _mapping(repository.get("credentials"))
    for name in ("access_key", "secret_key"):
        yield from _must_refer((*path, "credentials", name), credentials.get(name), f"${{S3_{name.upper()}}}")


def _flows(flows: Any, services: Mapping[str, Any]) -> Iterator[Found]:
    for number, flow in enumerate(_list(flows)):
        for place, step in enumerate(_list(_mapping(flow).get("steps"))):
            if isinstance(step, dict):
                yield from _flow_step(("drill", "flows", number, "steps", place), step, services)


def _flow_step(path: Path, step: Mapping[str, Any], services: Mapping[str, Any]) -> Iterator[Found]:
    yield from _exactly_one(path, step, _ACTS)
    engines = {name: entry.get("engine") for name, entry in _entries(services)}
    act = next((name for name in _ACTS if step.get(name) is not None), None)
    service = step.get("service")
    if isinstance(service, str) and service not in engines:
        yield (*path, "service"), f"there is no service {service!r}{suggest(service, list(engines))}"
    elif act == "sql" and isinstance(service, str) and engines[service] != "postgres":
        yield (*path, "service"), "sql is for a PostgreSQL service"
    elif act == "sql" and service is None and list(engines.values()).count("postgres") != 1:
        yield path, "service says which PostgreSQL the sql is for; there is not exactly one"
    elif act == "command" and service is None:
        yield path, "service says where the command runs"
    expect = _mapping(step.get("expect"))
    for name, acts in (("status", _METHODS), ("exit", ("command",)), ("json", (*_METHODS, "command"))):
        if act is not None and expect.get(name) is not None and act not in acts:
            yield (*path, "expect", name), f"{name} is not for {act}"
    for name in ("headers", "json"):
        if act in ("sql", "command") and step.get(name):
            yield (*path, name), f"{name} is for requests, not for {act}"


def _people(root: Mapping[str, Any]) -> Iterator[Found]:
    team, channels = list(_mapping(root.get("team"))), list(_mapping(root.get("channels")))
    for role, member in _entries(root.get("team")):
        deputy = member.get("deputy")
        if isinstance(deputy, str) and deputy not in team:
            yield ("team", role, "deputy"), f"there is no role {deputy!r} in the team{suggest(deputy, team)}"
    for number, channel in enumerate(_list(_mapping(root.get("alarms")).get("to"))):
        if isinstance(channel, str) and channel not in channels:
            yield ("alarms", "to", number), f"there is no channel {channel!r}{suggest(channel, channels)}"
    for when, notice in _entries(root.get("communication")):
        for key in ("notify", "to"):
            for number, channel in enumerate(_list(notice.get(key))):
                if isinstance(channel, str) and channel not in channels:
                    what = f"there is no channel {channel!r}{suggest(channel, channels)}"
                    yield ("communication", when, key, number), what


def _pings(pings: Any, services: list[str]) -> Iterator[Found]:
    for name in _mapping(pings):
        if name != "backup" and name not in services:
            yield ("pings", name), f"neither backup nor a service{suggest(str(name), ['backup', *services])}"


def _secret(path: Path, secret: Mapping[str, Any], services: list[str]) -> Iterator[Found]:
    yield from _exactly_one(path, secret, _WAYS)
    if ("env" in secret) != ("in" in secret):
        yield path, "env and in belong together: the variable, and the file that holds it"
    for number, name in enumerate(_list(secret.get("restart"))):
        if isinstance(name, str) and name not in services:
            yield (*path, "restart", number), f"there is no service {name!r}{suggest(name, services)}"
