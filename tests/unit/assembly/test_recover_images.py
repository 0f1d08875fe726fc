"""The step that gets the images: every way is tried, and the image is known by any name that means exactly it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recoup.assembly import recorded_images
from recoup.assembly.protect.kept_images import KeptImage
from recoup.assembly.recorded_images import RecordedImage
from recoup.assembly.recover import images as recover_images
from recoup.assembly.recover.images import _get
from recoup.engines.compose.docker import ComposeSource
from recoup.engines.compose.engine_facts import load_images
from recoup.kernel.errors import DamageError, EngineError, InterruptedRunError, RecoupError, WrongKeyError

CONFIG = "sha256:" + "c" * 64
MANIFEST = "sha256:" + "d" * 64
FIRST, SECOND = "one.example/api@sha256:" + "1" * 64, "two.example/api@sha256:" + "2" * 64
API = RecordedImage(service="api", image="api:1", image_id=CONFIG, digests=(FIRST, SECOND))


@dataclass
class MadeUp:
    """An engine that knows images by ``names``, and ways to it: what each brings, or the failure that it ends in."""

    names: dict[str, str] = field(default_factory=dict)
    pulls: Mapping[str, Mapping[str, str] | RecoupError] = field(default_factory=dict)
    load: Mapping[str, str] | RecoupError | None = None
    loaded: tuple[str, ...] = ()
    tried: list[str] = field(default_factory=list)

    def image_id(self, _: ComposeSource, reference: str) -> str | None:
        return self.names.get(reference)

    def pull(self, _: ComposeSource, reference: str) -> None:
        self.tried.append(reference)
        self._bring(self.pulls[reference])

    def load_images(self, _: ComposeSource, pieces: Iterable[bytes]) -> tuple[str, ...]:
        self.tried.append("kept")
        assert list(pieces) == [b"tar"]
        assert self.load is not None
        self._bring(self.load)
        return self.loaded

    def tag(self, _: ComposeSource, identity: str, name: str) -> None:
        self.names[name] = identity

    def _bring(self, what: Mapping[str, str] | RecoupError) -> None:
        if isinstance(what, RecoupError):
            raise what
        self.names.update(what)

    @property
    def kept(self) -> Mapping[str, KeptImage]:
        if self.load is None:
            return {}
        found = SimpleNamespace(found=SimpleNamespace(manifest=SimpleNamespace(id="K1")), pieces=lambda: iter([b"tar"]))
        return {CONFIG: cast("Any", found)}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., MadeUp]:
    """Makes the engine that is asked from now on."""

    def make(**parts: Any) -> MadeUp:
        made = MadeUp(**parts)
        monkeypatch.setattr(recorded_images, "image_id", made.image_id)
        for name in ("image_id", "pull", "load_images", "tag"):
            monkeypatch.setattr(recover_images, name, getattr(made, name))
        return made

    return make


def test_a_damaged_kept_image_and_a_registry_that_refuses_do_not_stop_the_next_way(
    engine: Callable[..., MadeUp],
) -> None:
    there = engine(
        load=DamageError("the object is damaged"),
        pulls={FIRST: EngineError("no basic auth"), SECOND: {SECOND: CONFIG, CONFIG: CONFIG}},
    )
    assert _get(API, there.kept) == f"came from its registry as {SECOND}"
    assert there.tried == ["kept", FIRST, SECOND]
    assert there.names["api:1"] == CONFIG


def test_when_no_way_worked_the_last_failure_is_told(engine: Callable[..., MadeUp]) -> None:
    there = engine(
        load=EngineError("cannot load"), pulls={FIRST: EngineError("no route"), SECOND: EngineError("unauthorized")}
    )
    with pytest.raises(EngineError, match="unauthorized"):
        _get(API, there.kept)
    assert there.tried == ["kept", FIRST, SECOND]


@pytest.mark.parametrize("failure", [InterruptedRunError("stopped"), WrongKeyError("another key")])
def test_an_interruption_and_a_wrong_key_are_no_reason_to_try_the_next_way(
    engine: Callable[..., MadeUp], failure: RecoupError
) -> None:
    there = engine(load=failure, pulls={FIRST: {FIRST: CONFIG}})
    with pytest.raises(type(failure)):
        _get(API, there.kept)
    assert there.tried == ["kept"]


def test_an_engine_that_calls_images_by_their_manifests_has_the_image_that_was_recorded_by_its_configuration(
    engine: Callable[..., MadeUp],
) -> None:
    there = engine(pulls={FIRST: {FIRST: MANIFEST, MANIFEST: MANIFEST}})
    assert _get(API, {}) == f"came from its registry as {FIRST}"
    assert there.names["api:1"] == MANIFEST
    assert _get(API, {}) == "was here already"
    assert there.tried == [FIRST], "nothing is got twice"


@pytest.mark.parametrize("said", [MANIFEST, "api:kept"])
def test_a_kept_image_is_the_one_that_the_engine_says_it_loaded(engine: Callable[..., MadeUp], said: str) -> None:
    built = RecordedImage(service="api", image="api:1", image_id=CONFIG, digests=())
    there = engine(load={said: MANIFEST}, loaded=(said,))
    assert _get(built, there.kept) == "was kept in K1"
    assert there.names["api:1"] == MANIFEST


def test_an_image_that_nobody_kept_or_offers_is_named(engine: Callable[..., MadeUp]) -> None:
    engine(names={"api:1": MANIFEST})
    built = RecordedImage(service="api", image="api:1", image_id=CONFIG, digests=())
    with pytest.raises(EngineError, match="api:1 was built there or is in no registry, and was not kept"):
        _get(built, {})


def test_what_docker_load_says_names_the_images_and_a_failure_is_told_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker"
    program.write_text(
        f"#!/bin/sh\ncat > {tmp_path}/got\necho 'Loaded image ID: {CONFIG}'\necho 'Loaded image: api:1'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    source = ComposeSource(files=())
    assert load_images(source, [b"a ", b"tar"]) == (CONFIG, "api:1")
    assert (tmp_path / "got").read_bytes() == b"a tar"
    program.write_text("#!/bin/sh\necho 'invalid tar header' >&2\nexit 1\n")
    with pytest.raises(EngineError, match="invalid tar header"):
        load_images(source, [b"x" * 100_000] * 5)
