"""The recovery kit: what must be at hand, away from this machine, to bring the system back on a new one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from recoup import __version__
from recoup.plan.load import LoadedPlan, load
from recoup.plan.services import FilesService, PostgresService, RedisService
from recoup.repository.seal import Key


def kit_document(plan_file: Path, key: Key) -> dict[str, Any]:
    """The kit as data: repositories, the key's fingerprint, and the commands for a new machine."""
    loaded = load(plan_file)
    addresses = _addresses(loaded)
    return {
        "system": loaded.plan.system,
        "repositories": addresses,
        "only_on_this_machine": not any(address.startswith("s3://") for address in addresses.values()),
        "key": key.id[:16],
        "commands": _commands(addresses, loaded),
        "afterwards": _afterwards(loaded),
    }


def kit_text(plan_file: Path, key: Key) -> str:
    """The kit as a page to print and keep."""
    kit = kit_document(plan_file, key)
    width = max(len(name) for name in kit["repositories"])
    lines = [
        f"RECOVERY KIT of {kit['system']} - print it and keep it away from this machine",
        "",
        "  Repositories (the first is the primary):",
        *(f"    {name.ljust(width)}  {address}" for name, address in kit["repositories"].items()),
        f"  Key fingerprint:  {kit['key']}",
        "",
        "  On a new machine:",
        *(f"    {command}" for command in kit["commands"]),
        *(["  Then, with the key beside the plan that was restored:"] if kit["afterwards"] else []),
        *(f"    {command}" for command in kit["afterwards"]),
        "",
        "Keep the key file elsewhere too, in a password manager or on paper: whoever loses it loses every backup.",
    ]
    if kit["only_on_this_machine"]:
        lines.append("No repository is off this machine: losing it loses the backups. Add an S3 bucket to the plan.")
    return "\n".join(lines)


def _addresses(loaded: LoadedPlan) -> dict[str, str]:
    resolver = loaded.resolver()
    found = {}
    for name, repository in loaded.plan.repositories.items():
        if repository.path is not None:
            path = repository.path
            found[name] = str(path) if path.variables else str(resolver.path(path))
        else:
            found[name] = str(repository.url)
    return found


def _commands(addresses: dict[str, str], loaded: LoadedPlan) -> list[str]:
    # An address that a new machine can reach is worth more than the primary one.
    remote = next((one for one in addresses.values() if one.startswith("s3://")), None)
    address = shlex.quote(remote or next(iter(addresses.values())))
    services = [name for name, service in loaded.plan.services.items() if isinstance(service, FilesService)]
    first = services[0] if services else next(iter(loaded.plan.services))
    return [
        f"pipx install /PATH/TO/recoup    # its checkout, or the wheel built from it: {__version__} or newer",
        "install -m 600 /PATH/TO/YOUR/COPY/OF/recoup.key recoup.key",
        f"recoup restore latest --service {first} --from {address} --key-file recoup.key --destination restored",
    ]


def _afterwards(loaded: LoadedPlan) -> list[str]:
    # The kind is written out: the newest copy of a PostgreSQL may be a dump, which needs a server that runs already.
    commands = []
    for name, service in loaded.plan.services.items():
        if isinstance(service, PostgresService):
            kind = "base" if service.compose is not None else "dump"  # by its address, only a dump can be put in place
            commands.append(f"recoup restore latest --service {name} --kind {kind}")
        elif isinstance(service, RedisService):
            commands.append(f"recoup restore latest --service {name}")
    return commands
