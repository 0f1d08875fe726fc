"""The address for a replication connection, also where the plan only names a Compose service."""

from __future__ import annotations

from urllib.parse import quote

from psycopg.conninfo import make_conninfo

from recoup.assembly.postgres import PostgresPlace
from recoup.assembly.system import System
from recoup.engines.compose.accounts import postgres_password
from recoup.engines.compose.client import ComposeProject
from recoup.engines.postgres.connection_errors import UnreachableError, parse_connection
from recoup.engines.postgres.wire import Wire, connect
from recoup.kernel.errors import EngineError
from recoup.kernel.secret import Secret


def replication_url(system: System, place: PostgresPlace) -> Secret:
    """Where to stream from: the plan's ``url``, or the container's address in its Docker network.

    The official images allow passwords from every address of that network, for replication through a database's name
    too. Raise ``EngineError`` when the container has no address that this machine could reach.
    """
    if place.url is not None:
        return place.url
    assert place.stack is not None, "a place has an address or a stack"
    resolver, service = system.resolver, place.service
    assert service.compose is not None, "a stack is opened for a Compose service"
    inside = place.stack.project.service(service.compose)
    given = {key: value.reveal() for key, value in inside.environment.items()}
    user = resolver.text(service.user) if service.user else given.get("POSTGRES_USER", "postgres")
    database = resolver.text(service.database) if service.database else given.get("POSTGRES_DB", user)
    host = container_address(place.stack.client, service.compose)
    password = (
        resolver.resolve(service.password)
        if service.password
        else postgres_password(inside, place.stack.client.runner(service.compose))
    )
    port = given.get("PGPORT", "5432")
    word = f":{quote(password.reveal(), safe='')}" if password else ""
    where = f"[{host}]" if ":" in host else host
    return Secret(f"postgresql://{quote(user, safe='')}{word}@{where}:{port}/{quote(database, safe='')}")


def open_stream(url: Secret, *, application_name: str, options: str = "") -> Wire:
    """A replication connection for a long stay. Raises as ``wire.connect`` does.

    Where ``pg_hba.conf`` allows replication only through a database, it is ``postgres`` if possible: a connection keeps
    its database from being dropped or renamed, which a restore of that database must be able to do.
    """
    keywords = parse_connection(url)
    if keywords.get("dbname") not in (None, "postgres"):
        elsewhere = Secret(make_conninfo(**{**keywords, "dbname": "postgres"}))
        try:
            return connect(elsewhere, application_name=application_name, options=options)
        except UnreachableError:
            raise
        except EngineError:
            pass  # no such database, or not for this role: then through the one that the address names
    return connect(url, application_name=application_name, options=options)


def container_address(project: ComposeProject, service: str) -> str:
    """The IP address of the running container of a service, as this machine reaches it. Raise ``EngineError``."""
    running = [container for container in project.of_service(service) if container.running]
    if not running:
        raise EngineError(
            f"the Compose service {service} is not running", hint=f"Start it: docker compose start {service}."
        )
    for container in running:
        if container.addresses:
            return container.addresses[0]
    raise EngineError(
        f"the container {running[0].name} has no address of its own, so its WAL cannot be streamed",
        hint="Publish its port on the loopback (127.0.0.1:5432:5432) and give the plan url: instead of compose:.",
    )
