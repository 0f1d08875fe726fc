"""Finds, reads and checks a plan file. All faults are reported at once, each as ``file:line:column: path: what``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from recoup.kernel.errors import PlanError
from recoup.plan.crosscheck import cross_check
from recoup.plan.document import LARGEST_BYTES, Document, Fault, Position, parse
from recoup.plan.document import Path as Place
from recoup.plan.model import Plan
from recoup.plan.resolver import Resolver
from recoup.plan.wording import faults_of

FILE_NAME = "recoup.yaml"
_HINT = "Correct {places} and run `recoup plan check`; docs/reference/plan.md describes every key."


class PlanFaultsError(PlanError):
    """The plan was read and is wrong. ``faults`` has them one by one, in the order of the file."""

    def __init__(self, file: str, faults: tuple[Fault, ...]) -> None:
        places = "this place" if len(faults) == 1 else f"these {len(faults)} places"
        super().__init__("\n".join(f"{file}:{fault}" for fault in faults), hint=_HINT.format(places=places))
        self.file = file
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPlan:
    """A plan and where it came from. ``folder`` is what its relative paths are taken from."""

    plan: Plan
    file: Path
    text: str = field(repr=False)
    document: Document = field(repr=False)

    @property
    def folder(self) -> Path:
        """The folder of the plan file."""
        return self.file.parent

    def resolver(self, environment: Mapping[str, str] | None = None) -> Resolver:
        """What looks up the plan's references; by default in this process's environment, then in the env files."""
        env_files = self.plan.compose.env_files if self.plan.compose else ()
        return Resolver(folder=self.folder, env_files=env_files, environment=environment)

    def fault(self, place: Place, what: str) -> PlanFaultsError:
        """The error to raise for a key that is well formed but wrong for what was found outside the plan."""
        fault = Fault(position=self.document.position(place), path=place, what=what)
        return PlanFaultsError(_shown(self.file), (fault,))


def find(explicit: Path | None = None, *, environment: Mapping[str, str] | None = None) -> Path:
    """The plan file: ``explicit``, else ``$RECOUP_FILE``, else ``recoup.yaml`` here or in a parent folder.

    Raise ``PlanError`` when there is none. A named file is not checked to exist; reading it tells.
    """
    if explicit is not None:
        return explicit
    named = (os.environ if environment is None else environment).get("RECOUP_FILE")
    if named:
        return Path(named)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).exists():
            return folder / FILE_NAME
    raise PlanError(
        f"there is no {FILE_NAME} in {here} or in a folder above it",
        hint="Write one with `recoup init`, or name it with -f FILE or RECOUP_FILE.",
    )


def load(file: Path, *, text_file: Path | None = None) -> LoadedPlan:
    """Read the plan file. Raise ``PlanError`` that lists everything that is wrong with it.

    With ``text_file`` the text is taken from there, and the plan is still ``file``'s: its folder, its name.
    """
    text = _read(text_file or file)
    document = parse(text)
    plan = _validated(document, _shown(file))
    return LoadedPlan(plan=plan, file=Path(os.path.abspath(file)), text=text, document=document)  # noqa: PTH100


def parse_plan(text: str, file: str = FILE_NAME) -> Plan:
    """Given the text of a plan, return it. Raise ``PlanError``; ``file`` is only used in messages."""
    return _validated(parse(text), file)


def _shown(file: Path) -> str:
    """The file's name as short as it can be said from here."""
    absolute = Path(os.path.abspath(file))  # noqa: PTH100 - the name as given, links and all
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _read(file: Path) -> str:
    try:
        if file.is_dir():
            raise PlanError(f"{file} is a folder, not a plan", hint=f"Name the file in it: -f {file / FILE_NAME}.")
        with file.open("rb") as handle:
            content = handle.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise PlanError(f"there is no plan {file}", hint="Write one with `recoup init`, or correct the name.") from None
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise PlanError(
            f"cannot read the plan {file}: {reason}", hint="Run as a user who may read it, or correct the name."
        ) from failure
    if len(content) > LARGEST_BYTES:
        raise PlanError(f"{file} is larger than 1 MiB; this is not a plan", hint="Correct the name after -f.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        before = content[: wrong.start]
        position = Position(line=before.count(b"\n") + 1, column=len(before) - (before.rfind(b"\n") + 1) + 1)
        what = f"not UTF-8 (byte 0x{content[wrong.start]:02x}); save the file as UTF-8 text"
        raise PlanFaultsError(_shown(file), (Fault(position=position, path=(), what=what),)) from None
    return text


def _validated(document: Document, file: str) -> Plan:
    faults = list(document.faults)
    value = document.value
    if document.value is None and not faults:
        faults.append(Fault(position=Position(line=1, column=1), path=(), what="the file holds no plan"))
    elif value is not None and not isinstance(value, dict):
        what = "a plan is a mapping that begins with recoup: 1"
        faults.append(Fault(position=document.position(()), path=(), what=what))
    if isinstance(value, dict):
        # x-… keys are where anchors are kept, as in Compose files
        kept = {key: entry for key, entry in value.items() if not key.startswith("x-")}
        checked = [Fault(position=document.position(path), path=path, what=what) for path, what in cross_check(kept)]
        try:
            plan = Plan.model_validate(kept)
        except ValidationError as error:
            faults.extend(faults_of(error, document))
        else:
            if not faults and not checked:
                return plan
        said = {fault.path for fault in faults}
        faults.extend(fault for fault in checked if fault.path not in said)
    raise PlanFaultsError(file, tuple(sorted(faults, key=lambda fault: (fault.position, fault.path != (), str(fault)))))
