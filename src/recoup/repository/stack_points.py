"""Stack recovery points: one label over copies of all services, so that they go back together.

A point is an artefact of kind ``stack`` without streams. Its manifest names its members and depends on their copies,
so that whoever prunes keeps them together. It is written last, when every member is stored and proven; there is none
otherwise. ``docs/repository-format.md`` has the fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any, Final, Literal, get_args

from recoup.engines.engine import CopyFacts
from recoup.kernel import clock, ids
from recoup.kernel.errors import DamageError, RefusedError, UnknownFormatError, UsageError
from recoup.repository.catalog import REPLACED, STACK, Catalog
from recoup.repository.copy_writer import ArtefactWriter, Header, Outcome
from recoup.repository.manifest import Manifest
from recoup.repository.repository import Repository

VERSION: Final = 1
_MILLISECOND: Final = timedelta(milliseconds=1)
#: A name is the label of the copies and a restore point of PostgreSQL, whose names have at most 63 bytes
#: (MAXFNAMELEN, src/include/access/xlog_internal.h).
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")
_RESERVED: Final = ("latest", REPLACED)

#: ``copy``: the state is the copy itself. ``wal``, ``stream``: it is a position in the log that follows the copy.
Way = Literal["copy", "wal", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackMember:
    """One service of a point.

    ``moment`` is when its state was fixed at the latest, ``earliest`` when at the earliest, by the clock of the machine
    that took it. ``position`` says which state it is in the engine's own terms: LSN, replication offset, commit.
    """

    service: str
    kind: str  #: of the copy: ``base``, ``rdb`` or ``files``
    artefact: str  #: the id of the copy
    way: Way
    moment: datetime
    position: Mapping[str, Any]
    earliest: datetime | None = None  #: None in points of before that was noted: as ``moment``


@dataclass(frozen=True, slots=True, kw_only=True)
class StackPoint:
    """A stack recovery point. ``members`` are in the order of recovery."""

    id: str
    name: str
    begun: datetime
    ended: datetime
    members: tuple[StackMember, ...]
    images: tuple[Mapping[str, Any], ...] = ()  #: which image each service ran
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def apart(self) -> timedelta | None:
        """How far apart the states of the databases are at most; None when there are not two."""
        return apart(self.members)


def apart(members: Sequence[StackMember]) -> timedelta | None:
    """The most that can lie between the first and the last of the databases' states; None when there are not two.

    In whole milliseconds, rounded up. Files do not count: they are read over a while.
    """
    spans = [(one.earliest or one.moment, one.moment) for one in members if one.kind != "files"]
    if len(spans) < 2:
        return None
    most = max(latest - earliest for (earliest, _), (_, latest) in permutations(spans, 2))
    return -(-most // _MILLISECOND) * _MILLISECOND


def check_name(name: str) -> str:
    """Given a name for a point, return it. Raise ``UsageError`` when it cannot be one."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a stack point", hint="Use at most 63 letters, digits, '.', '_' and '-'."
        )
    if name in _RESERVED or ids.is_id(name):
        raise UsageError(f"{name!r} means something else already", hint="Choose another name.")
    return name


def refuse_taken(name: str, catalog: Catalog) -> None:
    """Raise ``RefusedError`` when there is a point of this name already."""
    for entry in catalog.entries:
        if entry.kind == STACK and entry.label == name:
            raise RefusedError(
                f"there is a stack point {name!r} already, of {entry.begun_text}",
                hint="Choose another name; a point is never changed.",
            )


def write_point(
    members: Sequence[StackMember],
    repositories: Sequence[Repository],
    header: Header,
    *,
    images: Sequence[Mapping[str, Any]],
    left_out: Sequence[tuple[str, str]],
) -> Outcome:
    """Write the point ``header.label`` into every repository that is given. Raise as ``ArtefactWriter.finish``."""
    facts: dict[str, Any] = {
        "recoup_stack": VERSION,
        "members": [_member_document(one) for one in members],
        "images": [dict(one) for one in images],
    }
    distance = apart(members)
    if distance is not None:
        facts["apart_ms"] = distance // _MILLISECOND
    with ArtefactWriter(header, repositories) as writer:
        depends_on = tuple(dict.fromkeys(one.artefact for one in members))
        return writer.finish(CopyFacts(facts=facts, left_out=tuple(left_out), depends_on=depends_on))


def header_of(name: str, system: str, begun: datetime) -> Header:
    """The header of a point that is being taken."""
    return Header(
        id=ids.new_id(begun), system=system, service=STACK, engine="recoup", kind=STACK, label=name, begun=begun
    )


def read_point(manifest: Manifest) -> StackPoint:
    """Given an authentic manifest of kind ``stack``, return the point.

    Raise ``UnknownFormatError`` when a newer Recoup wrote it, ``DamageError`` when it lacks what it must have.
    """
    version = manifest.facts.get("recoup_stack")
    if version != VERSION:
        raise UnknownFormatError(
            f"the stack point {manifest.id} has version {version!r}; this Recoup knows version {VERSION}",
            hint="Use the Recoup that wrote it, or a newer one; its members can be restored one by one.",
        )
    try:
        members = _members(manifest)
        return StackPoint(
            id=manifest.id,
            name=str(manifest.label),
            begun=manifest.begun,
            ended=manifest.ended,
            members=members,
            images=tuple(dict(one) for one in manifest.facts["images"]),
            left_out=manifest.left_out,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as wrong:
        raise DamageError(
            f"the stack point {manifest.id} is authentic but is not what Recoup writes: {wrong}"
        ) from wrong


def _member_document(member: StackMember) -> dict[str, Any]:
    return {
        "service": member.service,
        "kind": member.kind,
        "artefact": member.artefact,
        "way": member.way,
        "moment": clock.to_text(member.moment),
        "earliest": clock.to_text(member.earliest or member.moment),
        "position": dict(member.position),
    }


def _members(manifest: Manifest) -> tuple[StackMember, ...]:
    members = tuple(_member(one) for one in manifest.facts["members"])
    if not members or set(manifest.depends_on) != {one.artefact for one in members}:
        raise ValueError("its members are not what it depends on")
    return members


def _member(document: Mapping[str, Any]) -> StackMember:
    way, artefact, earliest = document["way"], document["artefact"], document.get("earliest")
    if way not in get_args(Way) or not ids.is_id(artefact):
        raise ValueError(f"{artefact!r} by {way!r}")
    return StackMember(
        service=str(document["service"]),
        kind=str(document["kind"]),
        artefact=artefact,
        way=way,
        moment=clock.from_text(document["moment"]),
        earliest=None if earliest is None else clock.from_text(earliest),
        position=dict(document["position"]),
    )
