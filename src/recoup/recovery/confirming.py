"""Is what is seen what was declared? Most alarms at night need no restore, so a run asks before it stops anything.

What fits is *ok*, and says what is hurt. Where nothing is wrong, or something else is, the step fails and names it;
who knows better leaves the step out. What could not be looked at is unknown, and the run goes on: a server that is
gone cannot be asked. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.diagnosis import Diagnosis, Seen, diagnose

CHECK: Final = "what is seen fits the situation that was declared"
SKIP: Final = "When you know better: --skip confirm --because '…'."
_MOST: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hurt:
    """An object that is damaged: a table, an index, a page, a file. ``index``: it is one, and nothing else is."""

    service: str
    what: str
    said: str = ""
    index: bool = False

    def __str__(self) -> str:
        return f"{self.what} ({self.said})" if self.said else self.what


def confirm(
    situation: str, seen: Sequence[Seen], hurt: Sequence[Hurt] = (), *, services: Sequence[str] = ()
) -> Finding:
    """Hold what was seen, and the objects that a closer look named, against the declared ``situation``.

    ``services`` are those that the run was told to bring back; then only they count.
    """
    mine = [one for one in seen if not services or one.service in services or situation not in _FITS]
    fits = _FITS.get(situation)
    fitting = [one for one in mine if fits is not None and fits(one)]
    named = [one for one in hurt if not services or one.service in services or situation == "application-loss"]
    if fitting or named:
        return _ok(situation, fitting, named)
    found = diagnose(seen)
    # Whether a server that is reached by an address is stopped or damaged cannot be told from here.
    silent = [one for one in mine if one.answers is False and one.state is None and one.engine in ("postgres", "redis")]
    if silent:
        why = "; ".join(f"{one.service}: {one.detail}" for one in silent)
        return _finding(situation, Verdict.UNKNOWN, f"it does not answer, and why cannot be seen from here: {why}")
    open_ = [one for one in mine if one.verdict is Verdict.UNKNOWN]
    if found.situation == "unknown" or (open_ and found.situation == "nothing"):
        why = "; ".join(f"{one.service}: {'; '.join(one.unasked) or one.detail}" for one in open_) or found.because[0]
        return _finding(situation, Verdict.UNKNOWN, f"not everything could be looked at: {why}", hint=SKIP)
    if found.situation == "nothing":
        return _finding(
            situation, Verdict.FAILED, "nothing is wrong that could be seen: every service answers, with the data that "
            "were copied", hint=f"Nothing was stopped or replaced. {SKIP}",
        )  # fmt: skip
    return _finding(situation, Verdict.FAILED, _otherwise(found), hint=_instead(found))


def _ok(situation: str, fitting: Sequence[Seen], named: Sequence[Hurt]) -> Finding:
    said = [f"{one.service}: {_symptom(one)}" for one in fitting]
    objects = [str(one) for one in named[:_MOST]]
    more = f" and {len(named) - _MOST} more" if len(named) > _MOST else ""
    detail = "; ".join(said)
    if objects:
        detail = "; ".join(filter(None, (detail, f"hurt: {'; '.join(objects)}{more}")))
    if named and all(one.index for one in named) and not any(one.damage or one.answers is False for one in fitting):
        detail += ". Only indexes are hurt: REINDEX makes them anew from their tables, and loses nothing"
    return _finding(situation, Verdict.OK, detail)


def _symptom(one: Seen) -> str:
    return "; ".join((*one.damage, *one.wrong)) or one.detail or f"its data are {one.data}"


def _otherwise(found: Diagnosis) -> str:
    return f"it looks like {_WORDS.get(found.situation, found.situation)}: {'; '.join(found.because)}"


def _instead(found: Diagnosis) -> str:
    type_ = f"Type: {found.advice[0].command}. " if found.advice else ""
    return f"Nothing was stopped or replaced. {type_}{SKIP}"


_WORDS: Final = {"stopped": "a service that is stopped, with its data in place"}


def _corrupt(one: Seen) -> bool:
    broken = one.answers is False and one.data == "there" and one.state in ("restarting", "dead", "running")
    return one.engine == "postgres" and (bool(one.damage) or broken or one.data in ("emptied", "missing"))


def _redis_lost(one: Seen) -> bool:
    broken = one.answers is False and one.state in ("restarting", "dead", "running")
    return one.engine == "redis" and (bool(one.damage) or broken or one.data in ("emptied", "missing"))


def _application_lost(one: Seen) -> bool:
    return one.engine in ("application", "files") and one.answers is False


#: For each situation, what of a service speaks for it.
_FITS: Final[Mapping[str, Callable[[Seen], bool]]] = {
    "database-corruption": _corrupt,
    "redis-loss": _redis_lost,
    "application-loss": _application_lost,
}


def _finding(situation: str, verdict: Verdict, detail: str, *, hint: str | None = None) -> Finding:
    return Finding(check=CHECK, subject=situation, verdict=verdict, detail=detail, hint=hint)
