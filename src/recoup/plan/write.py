"""The text of a first ``recoup.yaml``, with comments that explain each guess. Secrets are references, never values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from recoup.plan.document import parse
from recoup.plan.guess import GuessedService, Inventory
from recoup.plan.load import parse_plan
from recoup.plan.schema import EDITOR_LINE, FILE_NAME
from recoup.plan.template import redact

_PLAIN = re.compile(r"[A-Za-z0-9_./$-]([A-Za-z0-9_./$ -]*[A-Za-z0-9_./$-])?")
_WIDTH = 110
_DATA = ("postgres", "redis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user chose for the plan. An address is a folder or ``s3://bucket/folder``; the first is primary."""

    repositories: Sequence[str] = ("backups",)
    key_file: str = "recoup.key"


def plan_text(inventory: Inventory, choices: Choices) -> str:
    """Given what was found and chosen, return the text of a plan that loads.

    Raise ``PlanError`` when it would not load: a Compose name or an address that no plan may hold.
    """
    names = _names(inventory.services)
    lines = [
        f"# For completion in an editor: `recoup plan schema -o {FILE_NAME}`, and as the first line here:",
        f"# {EDITOR_LINE}",
        *_comment("The disaster recovery plan. Every guess says why; correct what is wrong, then run `recoup check`."),
        *_comment("docs/reference/plan.md describes every key. Secrets stand here as ${VARIABLE}, never as values."),
        "recoup: 1",
        f"system: {scalar(_one_line(inventory.system) or 'unnamed system')}",
        "",
        *_compose(inventory),
        *_tiers(),
        *_services(inventory, names),
        *_repositories(choices),
        f"key: {{file: {template(choices.key_file)}}}   # keep a copy elsewhere: without it no backup can be read",
        "",
        *_rest(),
    ]
    text = "\n".join(lines) + "\n"
    parse_plan(text, "the new plan")
    return text


def scalar(text: str) -> str:
    """``text`` as a YAML value that is read back as exactly this text."""
    if _PLAIN.fullmatch(text) and parse(text).value == text:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    # YAML takes JSON's escapes; what may not stand in a YAML file raw is escaped as well
    return "".join(c if c.isprintable() else _escape(c) for c in quoted)


def template(literal: str) -> str:
    """A literal text for a key that reads references: a dollar sign is doubled."""
    return scalar(literal.replace("$", "$$"))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _comment(text: str, indent: int = 0) -> Iterator[str]:
    """``text`` as comment lines, wrapped, without anything that could end the comment."""
    printable = "".join(c if c.isprintable() else " " for c in redact(text))
    line = ""
    for word in printable.split():
        if line and indent + len(line) + len(word) + 3 > _WIDTH:
            yield f"{' ' * indent}# {line}"
            line = word
        else:
            line = f"{line} {word}" if line else word
    if line:
        yield f"{' ' * indent}# {line}"


def _flow(values: Iterable[str]) -> str:
    return f"[{', '.join(values)}]"


def _names(services: Sequence[GuessedService]) -> dict[str, str]:
    """The plan's name for each guessed one: safe in object keys, each once."""
    names: dict[str, str] = {}
    for service in services:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", service.name).lstrip(".-")[:60] or "service"
        taken, number = set(names.values()), 2
        candidate = safe
        while candidate in taken:
            candidate, number = f"{safe[:57]}-{number}", number + 1
        names[service.name] = candidate
    return names


def _ordered(services: Sequence[GuessedService]) -> list[GuessedService]:
    """What holds data first, then each after what it needs; otherwise as they were given."""
    rest = sorted(services, key=lambda service: ("postgres", "redis", "files", "compose").index(service.engine))
    ordered: list[GuessedService] = []
    while rest:
        waiting = {service.name for service in rest}
        ready = next((one for one in rest if not (set(one.after) - {one.name}) & waiting), rest[0])
        rest.remove(ready)
        ordered.append(ready)
    return ordered


def _compose(inventory: Inventory) -> Iterator[str]:
    if not (inventory.compose_files or inventory.env_files):
        return
    yield "compose:"
    if len(inventory.compose_files) == 1:
        yield f"  file: {template(inventory.compose_files[0])}"
    elif inventory.compose_files:
        yield f"  files: {_flow(map(template, inventory.compose_files))}"
    if inventory.env_files:
        yield f"  env_files: {_flow(map(template, inventory.env_files))}   # ${{VARIABLES}} are looked up here too"
    if inventory.profiles:
        yield f"  profiles: {_flow(map(scalar, inventory.profiles))}"
    if inventory.project is not None:
        yield f"  project: {scalar(inventory.project)}"
    if inventory.source is not None and "${" not in inventory.source:
        yield f"  source: {scalar(inventory.source)}   # where a new server gets it from"
    yield ""


def _tiers() -> Iterator[str]:
    yield "tiers:   # what was promised: time to recovery, data that may be lost. Put in your own numbers"
    yield "  critical: {rto: 4h, rpo: 24h}"
    yield "  standard: {rto: 8h, rpo: 24h}"
    yield ""


def _services(inventory: Inventory, names: dict[str, str]) -> Iterator[str]:
    yield "services:   # what is protected, in the order of recovery"
    yield from _comment(
        "base, dump, rdb and every say when a copy is due. `recoup daemon` takes them; keep it running.", 2
    )
    for service in _ordered(inventory.services):
        yield from _service(service, names)
    for left_out in inventory.unprotected:
        yield from _comment(f"NOT PROTECTED: {left_out}", 2)
    for note in inventory.notes:
        yield from _comment(note, 2)
    yield ""


def _service(service: GuessedService, names: dict[str, str]) -> Iterator[str]:
    yield f"  {scalar(names[service.name])}:"
    reasons = [*([f"image {service.image}"] if service.image else []), *service.reasons]
    if reasons:
        yield from _comment("; ".join(_one_line(reason) for reason in reasons), 4)
    yield f"    engine: {service.engine}"
    critical = service.engine in _DATA or service.name == "configuration" or service.health is not None
    yield f"    tier: {'critical' if critical else 'standard'}"
    if service.compose is not None and (service.engine in _DATA or service.compose != names[service.name]):
        yield f"    compose: {scalar(service.compose)}"
    if service.url_template is not None:
        yield f"    url: {scalar(service.url_template)}"
    if service.user_template is not None:
        yield f"    user: {scalar(service.user_template)}"
    if service.password_template is not None:
        yield f"    password: {scalar(service.password_template)}"
    if service.databases:
        yield f"    databases: {_flow(map(template, service.databases))}   # without this line, all of them"
    after = [names[other] for other in service.after if other in names and other != service.name]
    if after:
        yield f"    after: {_flow(map(scalar, after))}"
    if service.health is not None:
        yield f"    health: {scalar(service.health)}"
    yield from _copies(service)


def _copies(service: GuessedService) -> Iterator[str]:
    if service.engine == "postgres":
        yield "    base: daily 02:00   # the whole server, restored fastest"
        yield "    dump: daily 02:30   # each database, restored into any version"
        yield "    # wal: continuous   # any instant, and seconds lost instead of a day. First: recoup check --prepare"
    elif service.engine == "redis":
        yield "    rdb: daily 02:15"
        yield "    # stream: continuous   # the same for Redis"
    elif service.engine == "files":
        if service.paths:
            yield f"    paths: {_flow(map(template, service.paths))}"
        if service.git is not None:
            yield f"    git: {template(service.git)}   # its commit, a bundle of it, and what is not committed"
        yield "    every: 24h"


def _repositories(choices: Choices) -> Iterator[str]:
    yield "repositories:   # where copies live; the first is the primary"
    used: set[str] = set()
    for address in choices.repositories:
        remote = address.startswith("s3://")
        base = "offsite" if remote else "local"
        name, number = base, 2
        while name in used:
            name, number = f"{base}-{number}", number + 1
        used.add(name)
        yield f"  {name}: {{{'url' if remote else 'path'}: {template(address)}}}"
    if "offsite" not in used:
        yield "  # A copy on this server is lost with this server. Add a bucket; without credentials here, those of"
        yield "  # the environment, of ~/.aws or of the instance are used:"
        yield "  # offsite: {url: s3://BUCKET/FOLDER, region: ca-central-1}"
    yield ""


def _rest() -> Iterator[str]:
    yield "# How many copies are kept, 84 months being seven years; wal is how far back any instant can be reached."
    yield "retention: {daily: 30, weekly: 52, monthly: 84, wal: 7d}"
    yield ""
    yield "verify:"
    yield "  after_backup: intact   # every copy is read back and checked before it counts"
