"""A drill does not write to production, by whatever name production is given to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from recoup.kernel.errors import RefusedError
from recoup.recovery.destination import Identity, Production, Sandbox, require_sandbox


@pytest.fixture
def production(tmp_path: Path) -> Production:
    (tmp_path / "production").mkdir()
    return Production(
        identity=Identity(
            projects=frozenset({"shop"}),
            volumes=frozenset({"shop_data"}),
            containers=frozenset({"c0ffee"}),
            folders=frozenset({tmp_path / "production"}),
            clusters=frozenset({"7000000000000000001"}),
        )
    )


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    (tmp_path / "sandbox").mkdir()
    return Sandbox(id="s", folder=tmp_path / "sandbox", project="recoup-drill-s")


def test_what_is_the_sandboxs_own_is_fine(sandbox: Sandbox, production: Production) -> None:
    target = Identity(
        projects=frozenset({"recoup-drill-s"}),
        volumes=frozenset({"recoup-drill-s_data"}),
        folders=frozenset({sandbox.folder / "files"}),
    )
    require_sandbox(sandbox, target, production)


@pytest.mark.parametrize(
    "target",
    [
        Identity(projects=frozenset({"shop"})),
        Identity(projects=frozenset({"somebody-elses"})),
        Identity(volumes=frozenset({"shop_data"})),
        Identity(containers=frozenset({"c0ffee"})),
        Identity(clusters=frozenset({"7000000000000000001"})),
    ],
)
def test_anything_of_productions_is_refused(sandbox: Sandbox, production: Production, target: Identity) -> None:
    with pytest.raises(RefusedError, match="does not write to"):
        require_sandbox(sandbox, target, production)


def test_a_link_into_production_is_seen_through(sandbox: Sandbox, production: Production) -> None:
    link = sandbox.folder / "files"
    link.symlink_to(sandbox.folder.parent / "production")
    with pytest.raises(RefusedError, match="the folder"):
        require_sandbox(sandbox, Identity(folders=frozenset({link})), production)


def test_a_folder_outside_of_the_sandbox_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    target = Identity(folders=frozenset({tmp_path / "elsewhere"}))
    with pytest.raises(RefusedError, match="outside of its sandbox"):
        require_sandbox(sandbox, target, Production(identity=Identity()))
    target = Identity(folders=frozenset({sandbox.folder / ".." / "elsewhere"}))
    with pytest.raises(RefusedError, match="outside of its sandbox"):
        require_sandbox(sandbox, target, Production(identity=Identity()))


def test_production_itself_is_no_destination_of_a_drill(production: Production) -> None:
    with pytest.raises(RefusedError, match="only be given a sandbox"):
        require_sandbox(production, Identity(), production)  # type: ignore[arg-type]
