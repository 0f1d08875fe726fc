"""Writes the reference pages from the program itself: ``python -m recoup.cli.reference``.

Commands come from the application, the plan's keys from its model, the exit codes from the errors, so that no page can
say what is not so. A test compares the pages with what this makes.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from recoup.cli.app import build
from recoup.cli.output import write_out
from recoup.kernel import errors
from recoup.plan import schema

_MADE = "<!-- Made by `python -m recoup.cli.reference`. Edit the program, not this page. -->"


def pages() -> dict[str, str]:
    """Every made file: its path in the repository, and its text."""
    return {
        "docs/reference/commands.md": _commands_page(),
        "docs/reference/plan.md": _plan_page(),
        "docs/reference/exit-codes.md": _exit_codes_page(),
        f"src/recoup/plan/{schema.FILE_NAME}": schema.to_text(schema.build()),
    }


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Every command as (full name, command, its context), groups after what is in them excluded."""
    root = typer.main.get_command(build())
    yield from _walk(root, root.make_context("recoup", [], resilient_parsing=True))


def _walk(command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    if not names:
        yield context.command_path, command, context
    for name in names:
        child = command.get_command(context, name)
        if not child.hidden:
            yield from _walk(child, child.make_context(name, [], parent=context, resilient_parsing=True))


def _commands_page() -> str:
    lines = [
        "# Commands",
        "",
        _MADE,
        "",
        "Every command takes `-h`. Options that mean the same have the same name everywhere: `-f FILE` names the plan,",
        "`--json` prints one document with a `schema` field, `--plan` (or `--dry-run`) shows and changes nothing.",
        "[Exit codes](exit-codes.md) say how it ended.",
        "",
    ]
    for name, command, context in commands():
        lines += [f"## {name}", "", *_prose(command.help or ""), ""]
        lines += ["```text", _usage(command, context), "```", ""]
        rows = [row for row in (_parameter(one, context) for one in command.params) if row is not None]
        if rows:
            lines += ["| | |", "| --- | --- |", *(f"| `{names}` | {text} |" for names, text in rows), ""]
        examples = [line.strip() for line in (command.epilog or "").split("Examples:", 1)[-1].strip().splitlines()]
        lines += ["```sh", *examples, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _usage(command: Any, context: Any) -> str:
    return f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"


def _prose(text: str) -> list[str]:
    return inspect.cleandoc(text).replace("\b\n", "").splitlines()


def _parameter(parameter: Any, context: Any) -> tuple[str, str] | None:
    record = parameter.get_help_record(context)
    if record is None or "--help" in parameter.opts:
        return None
    names, text = record
    return names.replace("|", "\\|"), " ".join((text or "").split()).replace("|", "\\|")


def _plan_page() -> str:
    made = schema.build()
    definitions: dict[str, Any] = made["$defs"]
    lines = [
        "# The plan: recoup.yaml",
        "",
        _MADE,
        "",
        "YAML 1.2. Unknown keys are refused; all faults are reported at once as `file:line:column: path: what`.",
        "Keys that begin with `x-` are free, for anchors. `${VAR}` and `${VAR:-default}` are references, looked up",
        "when they are used: in the environment, then in `compose.env_files`; `$$` is a dollar sign. In the user and",
        "password of an address, a variable holds the plain text. Durations are `15m`, `24h`, `7d`, `2 weeks`.",
        "Schedules are `daily 02:00`, `weekdays 22:30`, `sunday 03:00`, `first monday 04:00`, `monthly 03:00`,",
        "`every 6h`, or cron with five fields. Relative paths begin at the plan's folder.",
        "",
        "`recoup plan schema` prints the JSON Schema; this line at the top of a plan makes editors use it:",
        "",
        "```yaml",
        schema.EDITOR_LINE,
        "```",
        "",
        *_keys("The file", made),
    ]
    for name, definition in definitions.items():
        if definition.get("properties"):
            lines += ["", *_keys(_TITLES[name], definition)]
    return "\n".join(lines).rstrip() + "\n"


_TITLES = {
    "Agreement": "`plan`",
    "Alarms": "`alarms`",
    "Budget": "`verify.budget`",
    "Check": "`services.NAME.checks`",
    "Communication": "`communication`",
    "Compose": "`compose`",
    "ComposeService": "`services.NAME` with `engine: compose`",
    "Credentials": "`repositories.NAME.credentials`",
    "Drill": "`drill`",
    "Expectation": "`drill.flows.steps.expect`",
    "FilesCheck": "`services.NAME.checks` with `engine: files`",
    "FilesService": "`services.NAME` with `engine: files`",
    "Flow": "`drill.flows`",
    "FlowStep": "`drill.flows.steps`",
    "Key": "`key`",
    "Member": "`team.ROLE`",
    "Notice": "`communication.NAME`",
    "PostgresService": "`services.NAME` with `engine: postgres`",
    "Recovery": "`recovery`",
    "RedisCheck": "`services.NAME.checks` with `engine: redis`",
    "RedisService": "`services.NAME` with `engine: redis`",
    "RepositoryPlan": "`repositories.NAME`",
    "Retention": "`retention`",
    "RotatedSecret": "`secrets.NAME`",
    "Tier": "`tiers.NAME`",
    "Vendor": "`vendors.NAME`",
    "Verify": "`verify`",
}


def _keys(title: str, definition: dict[str, Any]) -> Iterator[str]:
    required = set(definition.get("required", ()))
    yield f"## {title}"
    yield ""
    if definition.get("description"):
        yield " ".join(definition["description"].split())
        yield ""
    yield "| key | value | |"
    yield "| --- | --- | --- |"
    for key, described in definition["properties"].items():
        needed = " **Needed.**" if key in required else _default(described)
        text = f"{described.get('description', '')}{needed}".replace("|", "\\|")
        yield f"| `{key}` | {_kind(described)} | {text} |"


def _default(described: dict[str, Any]) -> str:
    default = described.get("default")
    if default in (None, [], {}) or isinstance(default, dict):
        return ""
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    return f" Default: `{shown}`."


def _kind(described: dict[str, Any]) -> str:
    if "$ref" in described:
        return _TITLES.get(described["$ref"].rsplit("/", 1)[1], "mapping")
    if "discriminator" in described:
        return "service"
    for several in ("anyOf", "oneOf"):
        if several in described:
            kinds = [_kind(one) for one in described[several] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "const" in described:
        return f"`{str(described['const']).lower()}`"
    if "enum" in described:
        return ", ".join(f"`{one}`" for one in described["enum"])
    match described.get("type"):
        case "array":
            return f"list of {_kind(described.get('items', {}))}"
        case "object":
            inner: Any = described.get("additionalProperties") or next(
                iter(described.get("patternProperties", {}).values()), {}
            )
            return f"mapping of names to {_kind(inner)}" if isinstance(inner, dict) and inner else "mapping"
        case "string":
            examples = described.get("examples")
            return f"such as `{examples[0]}`" if examples else "text"
        case "integer":
            return "whole number"
        case "number":
            return "number"
        case "boolean":
            return "`true` or `false`"
    return "any"


def _exit_codes_page() -> str:
    meanings = _exit_meanings()
    kinds: dict[errors.Exit, list[type[errors.RecoupError]]] = {}
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, errors.RecoupError):
            kinds.setdefault(kind.exit_code, []).append(kind)
    lines = [
        "# Exit codes",
        "",
        _MADE,
        "",
        "They are stable, and they tell the truth: 0 means that what was asked for was done and proven. A script needs",
        "nothing else. With `--json`, an error is one document of the schema `recoup.error/1` with the same code, a",
        "message, a hint and, for a plan, every fault with line and column.",
        "",
        "| code | meaning | errors |",
        "| --- | --- | --- |",
    ]
    for code in errors.Exit:
        names = ", ".join(f"`{kind.__name__}`" for kind in kinds.get(code, []))
        lines.append(f"| {int(code)} | {meanings[code.name]} | {names} |")
    lines += ["", "## Errors", ""]
    for kind in (kind for group in kinds.values() for kind in group):
        lines.append(
            f"- `{kind.__name__}` ({int(kind.exit_code)}): {' '.join((kind.__doc__ or '').split()).replace('``', '`')}"
        )
    return "\n".join(lines) + "\n"


def _exit_meanings() -> dict[str, str]:
    """The ``#:`` remark after each member of ``Exit``: the one place where the meanings are written."""
    source = inspect.getsource(errors.Exit)
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.ClassDef)
    rows = source.splitlines()
    return {
        node.targets[0].id: rows[node.lineno - 1].split("#:", 1)[1].strip()
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def main(root: Path) -> None:
    """Write the pages below ``root``, the folder of the repository."""
    for name, text in pages().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        write_out(f"wrote {path}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
