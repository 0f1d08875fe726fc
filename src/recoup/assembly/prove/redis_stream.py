"""The command stream before a Redis copy, proven by that copy: for the grade *same* of ``redis_live``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

from recoup.assembly.access import Found, Readable
from recoup.assembly.protect.redis_inventory import StreamHoldings, read_holdings
from recoup.assembly.prove.redis_scratch import Replayer
from recoup.assembly.restore.redis_moment import databases_to_load, pieces_ahead
from recoup.engines.redis.command_log import read_segment
from recoup.engines.redis.replay import CommandCut, Scratch
from recoup.engines.redis.stream_proof import prove_stream
from recoup.engines.redis.stream_windows import RdbBase, StreamChoice, lead_to
from recoup.engines.sandbox import Sandbox
from recoup.kernel.finding import Finding
from recoup.repository.copy_reader import ArtefactReader


def cross_check(
    opened: Readable, found: Found, sandbox: Sandbox, find: Callable[[], Replayer]
) -> Callable[[], Sequence[Finding]] | None:
    """How the stream before ``found`` is proven by it; None for a copy that lies on no stream, or records no sums.

    The call gives no finding when no earlier copy leads to this one. It raises as ``prove_stream``, and
    ``StorageError`` when a repository does not answer.
    """
    manifest = found.manifest
    line, offset = manifest.facts.get("replid"), manifest.facts.get("offset")
    if not isinstance(line, str) or not isinstance(offset, int) or manifest.fingerprint is None:
        return None

    def check() -> Sequence[Finding]:
        holdings = read_holdings(opened.repositories, manifest.service, opened.state_folder)
        later = next((one for one in holdings.bases if one.id == manifest.id), None)
        choice = None if later is None else lead_to(later, holdings.bases, holdings.inventory)
        if later is None or choice is None:
            return []
        return _prove(opened, found, sandbox, find(), holdings, later, choice)

    return check


def _prove(
    opened: Readable,
    found: Found,
    sandbox: Sandbox,
    replayer: Replayer,
    holdings: StreamHoldings,
    later: RdbBase,
    choice: StreamChoice,
) -> list[Finding]:
    earlier = opened.find(choice.base.id, service=found.manifest.service, kinds=("rdb",))
    count = len(choice.pieces)
    scratch = Scratch(sandbox.child("redis-stream"), replayer.program, inside=sandbox.command, owner=sandbox.user)
    return prove_stream(
        scratch,
        replayer.replay,
        ArtefactReader(earlier.manifest, earlier.holders),
        _commands(holdings, choice, later),
        ArtefactReader(found.manifest, found.holders),
        databases=databases_to_load(found.manifest.facts),
        named=f"{choice.base.id} and {count} segment{'s' if count != 1 else ''} of the command stream",
    )


def _commands(holdings: StreamHoldings, choice: StreamChoice, later: RdbBase) -> Iterator[bytes]:
    # By the place alone: the clock of the commands is the server's, and says nothing here.
    cut = CommandCut(after=choice.base.offset, until_ms=sys.maxsize, until_offset=later.offset)
    for piece, data, _ in pieces_ahead(holdings, choice):
        yield from cut.pass_on(read_segment([data]), piece.end)
        if cut.ended:
            return
