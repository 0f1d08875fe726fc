"""The engines' own checks of what is inside a copy, by the kind of the copy."""

from __future__ import annotations

from collections.abc import Sequence

from recoup.engines.engine import CopyReader
from recoup.kernel.finding import Finding, Verdict
from recoup.verification.verify import ContentCheck


def check_content(kind: str) -> ContentCheck:
    """The check for copies of ``kind``; for a kind this version does not know, one that answers *unknown*.

    Each engine is loaded only when it is needed: a command that checks one kind does not wait for the others.
    """
    match kind:
        case "base" | "incremental":
            from recoup.engines.postgres.base_check import check_base_copy

            return check_base_copy
        case "dump":
            from recoup.engines.postgres.dump_check import check_dump_copy

            return check_dump_copy
        case "rdb":
            from recoup.engines.redis.check_copy import check_rdb_copy

            return check_rdb_copy
        case "files":
            from recoup.engines.files.check import check_files_copy

            return check_files_copy
        case "images":
            from recoup.engines.compose.image_archive import check_images_copy

            return check_images_copy
    return _unknown_kind


def _unknown_kind(_reader: CopyReader) -> Sequence[Finding]:
    return [
        Finding(
            check="the content is what it says",
            subject="the copy",
            verdict=Verdict.UNKNOWN,
            detail="this Recoup does not know copies of this kind",
            hint="Use the version of Recoup that wrote it.",
        )
    ]
