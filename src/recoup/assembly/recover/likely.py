"""How long the recovery that a diagnosis suggests is likely to take, by what was rehearsed and done before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from recoup.assembly.recover.context import RecoverWish
from recoup.assembly.recover.forecast import expect
from recoup.assembly.recover.run import show_steps
from recoup.kernel.errors import RecoupError
from recoup.recovery.diagnosis import Diagnosis


def with_likely(found: Diagnosis, file: Path | None) -> Diagnosis:
    """The diagnosis with the likely time of its run; as it was when that has none, or it is not known. Never raises."""
    if found.recover is None:
        return found
    wish = RecoverWish(situation=found.recover.situation, file=file, services=found.recover.services)
    try:
        opened, system, steps = show_steps(wish)
        outlook = expect(opened, system, wish.situation, steps).outlook
    except RecoupError:
        return found  # what is in its way is said by the run itself
    if outlook.healthy is None:
        return found
    return replace(found, likely=outlook.healthy.p50, unmeasured=len(outlook.unknown))
