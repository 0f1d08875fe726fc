"""Putting an RDB into a running Redis whose files cannot be reached: Recoup plays its master.

The target is told ``REPLICAOF`` this process, gets the RDB as a full synchronisation, and is told ``REPLICAOF NO
ONE`` when it has loaded it. It receives the whole file before it drops its old data; it writes its dump file and its
append-only log by itself, with its own settings. Until the last piece of the RDB has been checked, that piece is not
sent, so a damaged copy never replaces anything.

The data are served on the address from which this machine reaches the target, for this one transfer, behind a random
password. The target's own ``masteruser`` and ``masterauth`` are kept inside the temporary values, so that a run after
a ``kill -9`` finds them there, ends the leftover replication, and puts them back.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from recoup.engines.engine import CopyReader, Progress, ProgressListener, Sink
from recoup.engines.redis.address import RedisAddress, parse_address
from recoup.engines.redis.connection import (
    Connection,
    RefusedByServerError,
    connect,
    read_info,
    read_keyspace,
    read_settings,
)
from recoup.engines.redis.master import Master
from recoup.engines.redis.seal import require_loadable
from recoup.engines.redis.snapshot import STREAM, take_rdb
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, RecoupError, RefusedError
from recoup.kernel.secret import Secret

_MARK = "recoup-restore:"
_POLL_SECONDS = 0.2
_SILENCE_SECONDS = 600.0  #: how long loading or rewriting may show no progress
_DETACH_SECONDS = 60.0
_DISKLESS_LOAD = "repl-diskless-load"
_SETTINGS = ("masteruser", "masterauth", _DISKLESS_LOAD, "tls-replication", "databases", "appendonly")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredServer:
    """What was done. ``keys`` is counted in the target after the restore, by database."""

    keys: dict[int, int]
    replaced_keys: dict[int, int]
    aof_rewritten: bool


def restore_rdb_to_server(
    reader: CopyReader,
    url: Secret | str,
    *,
    force: bool = False,
    safety: Sink | None = None,
    listen: str | None = None,
    on_progress: ProgressListener = lambda _: None,
) -> RestoredServer:
    """Replace the whole data set of a running Redis by the copy.

    ``safety`` receives an RDB of what is replaced and is required with ``force`` when there is anything. ``listen``
    is the local address to serve on, where the target cannot use the one this machine reaches it from.

    Raise ``RefusedError`` for a target that has keys (without ``force``), is a replica, has replicas, is a cluster's,
    is too old for the copy, or has too few databases; ``DamageError`` when the copy is damaged; ``EngineError`` when
    the server fails. Before the last bytes are sent nothing is changed in the target.
    """
    address = parse_address(url)
    with connect(address, database=0) as target:
        settings = _end_leftover(target)
        info = read_info(target, "server", "replication", "persistence", "keyspace")
        old_keys = read_keyspace(info)
        _require_restorable(target, reader, info, settings)
        if old_keys:
            _require_account(target, old_keys, force=force, safety=safety)
            assert safety is not None
            take_rdb(url, safety, on_progress=on_progress)
        host = listen if listen is not None else target.local_host()
        _require_private_path(address, host)
        user, password = _marked(settings)
        with Master(host, user=user, password=password) as master, _as_replica(target, master, settings, password):
            master.serve(reader, on_progress)
            _wait_until_loaded(target, master)
        rewritten = _wait_until_persisted(target, settings)
        new_keys = read_keyspace(read_info(target, "keyspace"))
    on_progress(Progress(what=STREAM, done_bytes=master.sent_bytes, total_bytes=master.sent_bytes))
    return RestoredServer(keys=new_keys, replaced_keys=old_keys, aof_rewritten=rewritten)


def _marked(settings: dict[str, str]) -> tuple[str, Secret]:
    """The temporary ``masteruser`` and ``masterauth``, each with what it stands in for at its end."""
    user = f"{_MARK}{settings.get(_DISKLESS_LOAD, 'disabled')}:{settings.get('masteruser', '')}"
    return user, Secret(f"{_MARK}{secrets.token_hex(24)}:{settings.get('masterauth', '')}")


def _end_leftover(target: Connection) -> dict[str, str]:
    """Return the target's settings; where a run that was killed left its own behind, put the target's back first."""
    settings = read_settings(target, *_SETTINGS)
    left_behind = False
    if settings.get("masteruser", "").startswith(_MARK):
        _, settings[_DISKLESS_LOAD], settings["masteruser"] = settings["masteruser"].split(":", 2)
        left_behind = True
    if settings.get("masterauth", "").startswith(_MARK):
        _, _, settings["masterauth"] = settings["masterauth"].split(":", 2)
        left_behind = True
    if left_behind:
        target.command("REPLICAOF", "NO", "ONE")
        _put_back(target, settings)
    return settings


def _put_back(target: Connection, settings: dict[str, str]) -> None:
    for name in ("masteruser", "masterauth", _DISKLESS_LOAD):
        if name in settings:
            target.command("CONFIG", "SET", name, Secret(settings[name]))


def _require_restorable(target: Connection, reader: CopyReader, info: dict[str, str], settings: dict[str, str]) -> None:
    if info.get("redis_mode") == "cluster":
        raise RefusedError(
            f"{target.address} is a node of a Redis Cluster", hint="Restore into a single server, and import from it."
        )
    if info.get("role") != "master":
        raise RefusedError(
            f"{target.address} is a replica of {info.get('master_host')}:{info.get('master_port')}",
            hint="Restore into its master, or end the replication with REPLICAOF NO ONE first.",
        )
    if int(info.get("connected_slaves", "0")):
        raise RefusedError(
            f"{target.address} has {info['connected_slaves']} replicas, which would lose their data with it",
            hint="Detach them first (REPLICAOF NO ONE on each), and attach them again after the restore.",
        )
    if settings.get("tls-replication") == "yes":
        raise RefusedError(
            f"{target.address} replicates over TLS only",
            hint="Stop the server and restore into its data folder instead.",
        )
    head = b"".join(reader.read(STREAM, 0, 9))
    if head[:5] == b"REDIS" and head[5:].isdigit():  # anything else is found damaged when it is served
        require_loadable(int(head[5:]), info.get("redis_version", ""))
    have = int(settings.get("databases", "16"))
    keys = reader.facts.get("keys")
    of_source = int(reader.facts.get("settings", {}).get("databases", "0"))
    needed = max((int(database) + 1 for database in keys), default=0) if isinstance(keys, dict) else of_source
    if needed > have:  # the server would end itself while loading
        raise RefusedError(
            f"the copy needs {needed} databases, {target.address} has {have}",
            hint=f"Set databases {needed} in its configuration and restart it.",
        )


def _require_account(target: Connection, keys: dict[int, int], *, force: bool, safety: Sink | None) -> None:
    held = ", ".join(f"{count} keys in database {database}" for database, count in sorted(keys.items()))
    if not force:
        raise RefusedError(
            f"{target.address} holds {held}",
            hint="With --force they are copied first and the backup takes their place.",
        )
    if safety is None:
        raise RefusedError(
            f"{target.address} holds {held}, and there is no place for a copy of them",
            hint="Name a repository or a folder that can take the copy of what is replaced.",
        )


def _require_private_path(address: RedisAddress, host: str) -> None:
    """The transfer itself is not encrypted; where the operator asked for TLS it may not cross a network."""
    if address.tls is not None and not ipaddress.ip_address(host).is_loopback:
        raise RefusedError(
            f"the data would go to {address} without TLS",
            hint="Stop the server and restore into its data folder, or restore from the server's own machine.",
        )


@contextlib.contextmanager
def _as_replica(target: Connection, master: Master, settings: dict[str, str], password: Secret) -> Iterator[None]:
    """Make the target a replica of ``master``; on leaving it is its own master again, with its own settings."""
    try:
        # The password first: a target that is left in between must not offer its own to anyone.
        target.command("CONFIG", "SET", "masterauth", password)
        target.command("CONFIG", "SET", "masteruser", master.user)
        if settings.get(_DISKLESS_LOAD, "disabled") != "disabled":
            target.command("CONFIG", "SET", _DISKLESS_LOAD, "disabled")  # else old data go before new have come
        target.command("REPLICAOF", master.host, master.port)
        yield
    except BaseException as failure:
        try:
            _detach(target.address, settings)
        except EngineError as second:
            why = failure.message if isinstance(failure, RecoupError) else type(failure).__name__
            raise EngineError(
                f"{why}; and {target.address} could not be made its own master again: {second.message}",
                hint="The same command does so when the server answers; by hand: REPLICAOF NO ONE.",
            ) from failure
        raise
    _detach(target.address, settings)


def _detach(address: RedisAddress, settings: dict[str, str]) -> None:
    """On a fresh connection (the failure may have been that of the first), waiting for a server that still loads."""
    deadline = clock.monotonic() + _DETACH_SECONDS
    while True:
        try:
            with connect(address, database=0) as fresh:
                fresh.command("REPLICAOF", "NO", "ONE")
                _put_back(fresh, settings)
                return
        except RefusedByServerError as refusal:
            if not refusal.may_retry or clock.monotonic() > deadline:
                raise
        clock.pause(_POLL_SECONDS)


def _wait_until_loaded(target: Connection, master: Master) -> None:
    progress, since = "", clock.monotonic()
    while True:
        info = read_info(target, "replication", "persistence")
        if (
            info.get("master_link_status") == "up"
            and info.get("master_sync_in_progress") == "0"
            and info.get("loading", "0") == "0"
        ):
            return
        now = info.get("loading_loaded_bytes", "") + info.get("master_sync_left_bytes", "")
        if now != progress:
            progress, since = now, clock.monotonic()
        if clock.monotonic() - since > _SILENCE_SECONDS:
            raise EngineError(f"{target.address} has made no progress for {_SILENCE_SECONDS:g} s while loading")
        if not master.still_served():
            raise EngineError(
                f"{target.address} gave up loading the copy",
                hint="Look at the log of the Redis server: memory, disk space or a module may be missing.",
            )
        clock.pause(_POLL_SECONDS)


def _wait_until_persisted(target: Connection, settings: dict[str, str]) -> bool:
    """Wait until a crash of the target could not bring its old data back. Whether it rewrote an append-only log."""
    logged = settings.get("appendonly") == "yes"
    progress, since = "", clock.monotonic()
    while logged:
        info = read_info(target, "persistence")
        busy = info.get("aof_rewrite_in_progress") == "1" or info.get("aof_rewrite_scheduled") == "1"
        if not busy and info.get("aof_last_bgrewrite_status") != "ok":
            raise EngineError(
                f"{target.address} holds the restored data but could not rewrite its append-only log",
                hint="Free space in its data folder, then run BGREWRITEAOF; until then a restart brings old data back.",
            )
        if not busy and info.get("aof_enabled") == "1":
            return True
        now = info.get("current_save_keys_processed", "") + info.get("aof_current_rewrite_time_sec", "")
        if now != progress:
            progress, since = now, clock.monotonic()
        if clock.monotonic() - since > _SILENCE_SECONDS:
            raise EngineError(f"{target.address} has not rewritten its append-only log in {_SILENCE_SECONDS:g} s")
        clock.pause(_POLL_SECONDS)
    return False
