"""Recognising a production stack in its Compose file. Pure: a project goes in, guesses with their reasons come out.

A guess is only as good as its reason, so each carries it; ``recoup init`` writes them beside the guesses, for a person
to agree with or to correct.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from recoup.engines.compose.accounts import option, redis_words, setting
from recoup.engines.compose.project import ComposeService, Mount, Project
from recoup.inventory.image import ImageName, is_postgres, is_redis, parse_image, version_in
from recoup.inventory.order import CycleError, start_order
from recoup.inventory.system import (
    Application,
    FileSet,
    FromFile,
    FromVariable,
    InTheFile,
    Inventory,
    NoPassword,
    Password,
    Postgres,
    Redis,
    Service,
    Unprotected,
)

_URL = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::(\d+))?(/[^\s'\"|;&)]*)?")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)")
_REDIS_PROGRAM = re.compile(r"(?:^|[\s/'\"])(redis-server|valkey-server|keydb-server)(?=$|[\s'\"])")
# Parts of the host that are lent to containers, and are no data of theirs.
_LENT = ("/var/run", "/run", "/proc", "/sys", "/dev", "/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group")


def recognise(project: Project, *, profiles: Collection[str] = ()) -> Inventory:
    """Given a project, return what it seems to consist of.

    Services that run only under a profile are passed over, unless it is one of ``profiles``.
    """
    production = {
        name: service
        for name, service in project.services.items()
        if not service.profiles or any(profile in profiles for profile in service.profiles)
    }
    passed_over = tuple(
        (name, f"runs only under the profile {', '.join(service.profiles)}")
        for name, service in project.services.items()
        if name not in production
    )
    wanted = {
        name: tuple(one.service for one in service.depends_on if one.service in production)
        for name, service in production.items()
    }
    services = [_service(project, production[name], wanted[name]) for name in start_order(wanted)]
    sets, unprotected = _files(project, production, services)
    data = [service for service in services if isinstance(service.kind, Postgres | Redis)]
    others = [service for service in services if not isinstance(service.kind, Postgres | Redis)]
    names = {service.name for service in services}
    sets = [_renamed(found, names) for found in sets]
    try:
        # Data first, then files, then what uses them: the order in which one reads a plan.
        ordered = _in_order([*data, *sets, *others])
    except CycleError:
        ordered = services + sets
    return Inventory(
        system=project.name,
        services=tuple(ordered),
        unprotected=tuple(unprotected),
        passed_over=passed_over,
        warnings=project.warnings,
    )


def _in_order(services: list[Service]) -> list[Service]:
    by_name = {service.name: service for service in services}
    return [by_name[name] for name in start_order({service.name: service.after for service in services})]


def _renamed(found: Service, taken: set[str]) -> Service:
    if found.name not in taken:
        return found
    return Service(name=f"{found.name}-files", kind=found.kind, after=found.after, reasons=found.reasons)


def _service(project: Project, service: ComposeService, after: tuple[str, ...]) -> Service:
    image = parse_image(service.image) if service.image else None
    reason = _why_postgres(service, image)
    if reason is not None:
        return _postgres(project, service, image, after, reason)
    reason = _why_redis(service, image)
    if reason is not None:
        return _redis(project, service, image, after, reason)
    health, reasons = _health(service)
    return Service(
        name=service.name,
        compose=service.name,
        after=after,
        kind=Application(health=health, has_healthcheck=service.healthcheck is not None),
        reasons=(*reasons, *_why_after(service, after)),
    )


def _why_after(service: ComposeService, after: tuple[str, ...]) -> tuple[str, ...]:
    return (f"its depends_on names {', '.join(after)}",) if after and service.depends_on else ()


def _why_postgres(service: ComposeService, image: ImageName | None) -> str | None:
    if image is not None and is_postgres(image):
        return f"its image is {service.image}"
    # An application is given POSTGRES_PASSWORD as well; a server also has a place for the data or the program.
    given = [name for name in service.environment if name in _POSTGRES_SETTINGS]
    if not given:
        return None
    words = " ".join((*(service.entrypoint or ()), *(service.command or ())))
    if any(_is_below(mount.target, folder) for mount in service.mounts for folder in _POSTGRES_FOLDERS):
        return f"it has {', '.join(sorted(given))} and a volume where PostgreSQL keeps its data"
    if re.search(r"(^|[\s/])postgres(\s|$)", words):
        return f"it has {', '.join(sorted(given))} and its command runs postgres"
    return None


_POSTGRES_SETTINGS = (
    *("POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE", "POSTGRES_USER", "POSTGRES_DB", "PGDATA"),
    *("POSTGRESQL_PASSWORD", "POSTGRESQL_USERNAME", "POSTGRESQL_DATABASE", "POSTGRES_HOST_AUTH_METHOD"),
)
_POSTGRES_FOLDERS = ("/var/lib/postgresql", "/bitnami/postgresql", "/home/postgres/pgdata")


def _why_redis(service: ComposeService, image: ImageName | None) -> str | None:
    words = " ".join((*(service.entrypoint or ()), *(service.command or ())))
    if "sentinel" in words:
        return None
    program = _REDIS_PROGRAM.search(words)
    if image is not None and is_redis(image):
        return f"its image is {service.image}"
    return f"its command runs {program[1]}" if program is not None else None


def _postgres(
    project: Project, service: ComposeService, image: ImageName | None, after: tuple[str, ...], reason: str
) -> Service:
    bitnami = any(name.startswith("POSTGRESQL_") for name in service.environment)
    user = setting(service, "POSTGRES_USER", "POSTGRESQL_USERNAME") or "postgres"
    database = setting(service, "POSTGRES_DB", "POSTGRESQL_DATABASE") or user
    default = "/bitnami/postgresql/data" if bitnami else "/var/lib/postgresql/data"
    folder = setting(service, "PGDATA", "POSTGRESQL_DATA_DIR") or default
    data = _data(project, service, folder)
    if data is None and "PGDATA" not in service.environment:
        # From version 18 the official image keeps its data a level lower, and the volume is the folder above.
        above = [mount.target for mount in service.mounts if mount.target in _POSTGRES_FOLDERS]
        data = _data(project, service, above[0]) if above else None
    names = ("POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD")
    return Service(
        name=service.name,
        compose=service.name,
        after=after,
        kind=Postgres(
            version=version_in(image) if image is not None else None,
            user=user,
            databases=(database,),
            password=_password(service, names),
            data_folder=folder,
            data=data,
        ),
        reasons=(
            f"PostgreSQL, because {reason}",
            f"the user {user} and the database {database} are those of its environment"
            if setting(service, "POSTGRES_USER", "POSTGRES_DB", "POSTGRESQL_USERNAME", "POSTGRESQL_DATABASE")
            else "the user and the database are the image's defaults",
            *_why_after(service, after),
            *_no_volume(data),
        ),
    )


def _redis(
    project: Project, service: ComposeService, image: ImageName | None, after: tuple[str, ...], reason: str
) -> Service:
    bitnami = image is not None and image.publisher.startswith("bitnami")
    words = redis_words(service)
    folder = option(words, "--dir") or ("/bitnami/redis/data" if bitnami else "/data")
    data = _data(project, service, folder)
    password = _redis_password(service, words)
    appends = option(words, "--appendonly") or setting(service, "REDIS_AOF_ENABLED", "VALKEY_AOF_ENABLED")
    append_only = True if bitnami and appends is None else None if appends is None else appends == "yes"
    says = {True: "it is append-only", False: "it is not append-only", None: "its command does not say appendonly"}
    return Service(
        name=service.name,
        compose=service.name,
        after=after,
        kind=Redis(
            version=version_in(image) if image is not None else None,
            password=password,
            append_only=append_only,
            data_folder=folder,
            data=data,
        ),
        reasons=(f"Redis, because {reason}", says[append_only], *_why_after(service, after), *_no_volume(data)),
    )


def _redis_password(service: ComposeService, words: list[str]) -> Password:
    if option(words, "--requirepass"):
        extra = setting(service, "REDIS_ARGS", "REDIS_EXTRA_FLAGS", "VALKEY_EXTRA_FLAGS")
        written = service.written_command or extra or ""
        match = re.search(r"--requirepass[\s=]+(\S+)", written)
        variable = _VARIABLE.match(match[1].strip("'\"").replace("$$", "$")) if match else None
        return FromVariable(variable=variable[1]) if variable else InTheFile()
    return _password(service, ("REDIS_PASSWORD", "VALKEY_PASSWORD"))


def _password(service: ComposeService, names: tuple[str, ...]) -> Password:
    for name in names:
        file = setting(service, f"{name}_FILE")
        if file is not None:
            return FromFile(container_path=file, host_path=service.secret_files.get(file))
        if setting(service, name) is None:
            continue
        written = service.written_environment.get(name)
        if written is None or written == "":
            return FromVariable(variable=name)  # of an env file, or handed through
        variable = _VARIABLE.fullmatch(written) or re.fullmatch(r"\$\{([A-Za-z_]\w*)[^}]*\}", written)
        return FromVariable(variable=variable[1]) if variable else InTheFile()
    return NoPassword()


def _is_below(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def _data(project: Project, service: ComposeService, folder: str) -> str | None:
    """What is mounted at a folder of a container, or nearest above it: a volume's name, or a path of the host."""
    above = [mount for mount in service.mounts if mount.kind in ("volume", "bind") and _is_below(folder, mount.target)]
    if not above:
        return None
    nearest = max(above, key=lambda mount: len(mount.target))
    return _name(project, nearest) or None


def _name(project: Project, mount: Mount) -> str:
    if mount.kind == "volume" and mount.source in project.volumes:
        return project.volumes[mount.source].name
    return mount.source


def _no_volume(data: str | None) -> tuple[str, ...]:
    return () if data is not None else ("its data lie in no named volume: they go when the container is removed",)


def _health(service: ComposeService) -> tuple[str | None, tuple[str, ...]]:
    text = " ".join(service.healthcheck or ())
    match = _URL.search(text)
    if match is None:
        if service.healthcheck is not None:
            return None, ("its container's own health check says when it is well",)
        return None, ("it has no health check: running is all that can be seen",)
    inside = int(match[1] or (443 if match[0].startswith("https") else 80))
    scheme, path = match[0].partition("://")[0], match[2] or "/"
    for port in service.ports:
        if port.target == inside and port.published is not None and port.protocol == "tcp":
            host = f"[{port.nearby}]" if ":" in port.nearby else port.nearby
            return f"{scheme}://{host}:{port.published}{path}", (
                "its health check asks this path, and the port is published",
            )
    return None, (f"its health check asks port {inside}, which is not published: its container says when it is well",)


def _files(
    project: Project, production: Mapping[str, ComposeService], services: list[Service]
) -> tuple[list[Service], list[Unprotected]]:
    """File sets worth copying, and what holds data and is in none."""
    folder = project.source.folder
    protected = {one.kind.data for one in services if isinstance(one.kind, Postgres | Redis) and one.kind.data}
    configuration = [
        _relative(str(file.absolute()), folder) for file in (*project.source.files, *project.source.env_files)
    ]
    for service in production.values():
        configuration += [_relative(path, folder) for path in service.env_files]
        configuration += [_relative(path, folder) for path in service.secret_files.values()]
    logs: list[str] = []
    uploads: list[str] = []
    volumes: dict[str, list[str]] = {}
    for service in production.values():
        for mount in service.mounts:
            name = _name(project, mount)
            if mount.kind == "volume" and name not in protected:
                volumes.setdefault(name or f"an anonymous volume at {mount.target}", []).append(service.name)
            elif mount.kind == "bind" and name not in protected and not _is_lent(mount.source):
                where = _kind_of_bind(mount)
                chosen = {"configuration": configuration, "logs": logs, "uploads": uploads}[where]
                chosen.append(_relative(mount.source, folder))
    unprotected = [
        Unprotected(what=name, used_by=tuple(dict.fromkeys(used)), why="a volume that no engine of Recoup reads")
        for name, used in volumes.items()
    ]
    found = [
        Service(
            name="configuration",
            kind=FileSet(paths=_unique(configuration)),
            reasons=("the Compose files, their env files and secrets, and what is mounted read-only",),
        )
    ]
    if uploads:
        reason = "folders of the host that services write to"
        found.append(Service(name="files", kind=FileSet(paths=_unique(uploads)), reasons=(reason,)))
    if logs:
        found.append(
            Service(name="logs", kind=FileSet(paths=_unique(logs)), reasons=("mounted folders named like logs",))
        )
    return found, unprotected


def _kind_of_bind(mount: Mount) -> str:
    parts = {part.lower() for path in (mount.source, mount.target) for part in PurePosixPath(path).parts}
    if parts & {"log", "logs"}:
        return "logs"
    return "configuration" if mount.read_only or PurePosixPath(mount.source).suffix else "uploads"


def _is_lent(source: str) -> bool:
    return source == "/" or any(_is_below(source, folder) for folder in _LENT)


def _relative(path: str, folder: Path) -> str:
    absolute = folder / path
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)


def _unique(paths: list[str]) -> tuple[str, ...]:
    """Each once, and none that lies inside another."""
    once = list(dict.fromkeys(paths))
    return tuple(
        path for path in once if not any(other != path and PurePosixPath(path).is_relative_to(other) for other in once)
    )
