"""The step that gets the images that production ran: those that are here, those that were kept, those of a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from recoup.assembly.drill.leftovers import ENGINE
from recoup.assembly.protect.kept_images import KeptImage, kept_images
from recoup.assembly.recorded_images import RecordedImage, recorded_images
from recoup.assembly.recover.context import Recovery
from recoup.assembly.stack import open_stack
from recoup.engines.compose.engine_facts import image_id, load_images, pull, tag
from recoup.kernel.errors import EngineError, InterruptedRunError, RecoupError, UsageError, WrongKeyError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.step import Done, Step

#: Gets an image; the names that the engine says it has it by now, where it says them.
Fetch = Callable[[], tuple[str, ...]]

_BUILT = "is built here, from the source of the recorded commit"


def images(recovery: Recovery, step: Step) -> Done:  # noqa: ARG001
    """Have every recorded image on this machine, under the name that the Compose file calls it.

    A kept image comes before the registry's: it is in the repository that is being read anyway. Raise ``EngineError``
    that names every image which nobody has.
    """
    recorded, kept, built = recorded_images(recovery.opened), kept_images(recovery.opened), _built_here(recovery)
    how: dict[str, str] = {}
    lacking: dict[str, RecoupError] = {}
    for name, image in recorded.items():
        recovery.voice.say(f"the image of {name}: {image.image}")
        try:
            how[name] = _get(image, kept)
        except RecoupError as failure:
            if name in built:
                how[name] = _BUILT
            else:
                lacking[name] = failure
    if lacking:
        raise _cannot(recorded, lacking)
    return Done(
        findings=tuple(_finding(recorded[name], way) for name, way in how.items()),
        detail="; ".join(f"{name} {way}" for name, way in how.items()) or "none were recorded",
        data={"images": {name: recorded[name].image_id for name in how}},
    )


def _get(image: RecordedImage, kept: Mapping[str, KeptImage]) -> str:
    """Have one image here; where it came from. Raise what the last way ended in when nobody has it."""
    last: RecoupError | None = None
    for way, fetch in _ways(image, kept):
        try:
            loaded = fetch()
        except (InterruptedRunError, WrongKeyError):
            raise
        except RecoupError as failure:  # a damaged copy, a registry that refuses: the next one may have it
            last = failure
            continue
        found = image.here() or next((one for name in loaded if (one := image_id(ENGINE, name)) is not None), None)
        if found is not None:
            _name(image, found)
            return way
    raise last or EngineError(
        f"{image.image or image.image_id} was built there or is in no registry, and was not kept"
        if not image.digests
        else f"{image.digests[0]} is another image now"
    )


def _ways(image: RecordedImage, kept: Mapping[str, KeptImage]) -> list[tuple[str, Fetch]]:
    """Where an image may come from, and how, the surest first."""
    here: tuple[str, Fetch] = ("was here already", lambda: ())
    found, mine = kept.get(image.image_id), list[tuple[str, Fetch]]()
    if found is not None:
        mine.append((f"was kept in {found.found.manifest.id}", lambda: load_images(ENGINE, found.pieces())))
    theirs = [(f"came from its registry as {one}", partial(_pull, one)) for one in image.digests]
    return [here, *mine, *theirs]


def _pull(digest: str) -> tuple[str, ...]:
    pull(ENGINE, digest)
    return (digest,)


def _name(image: RecordedImage, found: str) -> None:
    """Let the name in the Compose file mean this image, as it did there."""
    nameable = image.image and "@" not in image.image and not image.image.startswith("sha256:")
    if nameable and image_id(ENGINE, image.image) != found:
        tag(ENGINE, found, image.image)


def _built_here(recovery: Recovery) -> frozenset[str]:
    """The services whose Compose file says how their image is built."""
    try:
        project = open_stack(recovery.system).project
    except (EngineError, UsageError):
        return frozenset()
    return frozenset(name for name, one in project.services.items() if one.build is not None)


def _cannot(recorded: Mapping[str, RecordedImage], lacking: Mapping[str, RecoupError]) -> EngineError:
    said = "; ".join(f"{name}: {failure.message}" for name, failure in lacking.items())
    wanted = " ".join(dict.fromkeys(recorded[name].image or recorded[name].image_id for name in lacking))
    return EngineError(
        f"no image for {', '.join(lacking)}: {said}",
        hint=f"Sign in to the registry (docker login), or bring them from another machine (docker save {wanted} | ssh "
        "THIS docker load); then the same command goes on. The next time: compose: {keep_images: true} in the plan.",
    )


def _finding(image: RecordedImage, way: str) -> Finding:
    return Finding(
        check="the image is the one that production ran",
        subject=image.service,
        verdict=Verdict.OK,
        detail=f"{image.image or image.image_id}: {way}",
        not_checked="that it is the same bytes as before" if way == _BUILT else "",
    )
