"""How a one-off container ends: in its own words, and with what to do about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

from recoup.engines.compose.one_off import finish
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Child, Command, Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A program that has failed with these words."""

    said: str

    def wait(self, timeout_seconds: float | None = None) -> Completed:
        return Completed(command=Command(argv=("docker",)), exit_status=2, stdout=b"", stderr=self.said)


@pytest.mark.parametrize(
    ("said", "room"),
    [
        ("tar: base/1/1259: Cannot write: No space left on device", True),
        ("cat: write error: Disk quota exceeded", True),
        ("tar: This does not look like a tar archive", False),
    ],
)
def test_a_disk_that_was_full_is_answered_with_what_to_do(said: str, room: bool) -> None:
    with pytest.raises(EngineError) as failed:
        finish(cast(Child, Ended(said=said)))
    assert said in failed.value.message
    assert ("Make room on the disk of the volume" in (failed.value.hint or "")) is room
