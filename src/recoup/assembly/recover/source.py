"""The step that gets the stack's source: the kept bundle first, else the forge, at the commit that production ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recoup.assembly.access import Found
from recoup.assembly.drill.members import newest
from recoup.assembly.recover.context import Recovery
from recoup.assembly.restore.place_files import Placing, place_newest
from recoup.engines.files.git_clone import clone_into, stands_at, update_submodules
from recoup.kernel.errors import EngineError, RecoupError, UncheckedError
from recoup.kernel.finding import Finding, Verdict
from recoup.plan.services import FilesService
from recoup.recovery.step import Done, Step


def source(recovery: Recovery, step: Step) -> Done:  # noqa: ARG001
    """Check the recorded commit out where it was.

    A bundle that was kept is production's own state, with commits that were never pushed and changes that were never
    committed, and no forge has to answer for it. Without one the forge is asked. Raise ``EngineError`` when it does not
    answer, ``UncheckedError`` when nobody knows where the source comes from.
    """
    states = list(_git_states(recovery))
    bundled = next((one for one in states if one[1].get("bundled")), None)
    if bundled is not None:
        found, state = bundled
        service = found.manifest.service
        placed = place_newest(placing(recovery), service)
        state = placed.found.manifest.facts.get("git") or state
        how = f"from the kept bundle of {placed.found.manifest.id}"
    else:
        state = states[0][1] if states else {}
        how = _from_forge(recovery, state)
    commit, folder = state.get("commit"), recovery.system.folder / str(state.get("path", "."))
    findings = [*_checked_out(recovery, state), *_submodules(folder)] if commit else [_not_recorded(how)]
    return Done(findings=tuple(findings), detail=how, data={"commit": commit})


def placing(recovery: Recovery) -> Placing:
    """How this run puts copies of files in place.

    On a blank machine nothing may be in the way. Where the application was lost, what is left of it is set aside.
    """
    wish = recovery.wish
    return Placing(
        opened=recovery.opened,
        folder=recovery.system.folder,
        run=recovery.run,
        force=wish.force or wish.situation == "application-loss",
        on_progress=recovery.voice.on_progress,
    )


def _git_states(recovery: Recovery) -> Iterator[tuple[Found, Mapping[str, Any]]]:
    """The newest Git state of each file set that has one."""
    catalog = recovery.opened.catalog()
    for name, service in recovery.system.plan.services.items():
        if isinstance(service, FilesService):
            found = newest(recovery.opened, catalog, name, ("files",), None)
            if found is not None and found.manifest.facts.get("git"):
                yield found, found.manifest.facts["git"]


def _from_forge(recovery: Recovery, state: Mapping[str, Any]) -> str:
    compose = recovery.system.plan.compose
    planned = None if compose is None else compose.source
    origin = planned or next((str(remote[1]) for remote in state.get("remotes") or ()), None)
    if origin is None:
        raise UncheckedError(
            "nobody wrote down where the source of this stack comes from",
            hint="Put it into the folder by hand and leave this step out: --skip source --because 'by hand'. In the "
            "plan, say compose: {source: ADDRESS}, or git: . in a service with engine: files.",
        )
    folder = recovery.system.folder / str(state.get("path", "."))
    commit, branch = state.get("commit"), state.get("branch")
    if commit and stands_at(folder, str(commit)):
        return f"commit {commit} was there already"
    try:
        came = clone_into(origin, folder, commit=commit, branch=branch)
    except EngineError as failure:
        raise EngineError(
            failure.message,
            hint=failure.hint
            or "No bundle of it was kept. When the forge answers again, the same command goes on; or put the source "
            f"into {folder} by hand, and --skip source --because 'by hand'.",
        ) from failure
    return f"cloned {origin} at {came}"


def _checked_out(recovery: Recovery, state: Mapping[str, Any]) -> list[Finding]:
    commit, folder = str(state["commit"]), recovery.system.folder / str(state.get("path", "."))
    good = stands_at(folder, commit)
    return [
        Finding(
            check="the recorded commit is checked out",
            subject=str(folder),
            verdict=Verdict.OK if good else Verdict.UNKNOWN,
            detail=f"{commit}" + (f" on {state['branch']}" if state.get("branch") else ""),
            hint=None if good else f"Somebody changed it here. See: git -C {folder} status.",
        )
    ]


def _not_recorded(how: str) -> Finding:
    return Finding(
        check="the recorded commit is checked out",
        subject="the source",
        verdict=Verdict.UNKNOWN,
        detail=f"no copy says which commit production ran; {how}",
        hint="Say git: . in a service with engine: files, so that the next copy knows.",
    )


def _submodules(place: Path) -> list[Finding]:
    if not (place / ".gitmodules").is_file():
        return []
    try:
        update_submodules(place)
        verdict, detail, hint = Verdict.OK, "at their recorded commits", None
    except RecoupError as failure:
        verdict, detail = Verdict.UNKNOWN, failure.message
        hint = f"When their forge answers: git -C {place} submodule update --init --recursive."
    return [Finding(check="submodules are there", subject=str(place), verdict=verdict, detail=detail, hint=hint)]
