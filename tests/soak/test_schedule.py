"""A failure of the soak can be repeated: its seed says what is broken when."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.soak.schedule import Target, faults


@given(seed=st.integers(min_value=0, max_value=1 << 32), seconds=st.floats(min_value=5, max_value=300))
def test_the_same_seed_gives_the_same_faults_which_end_in_time_and_never_meet_their_like(
    seed: int, seconds: float
) -> None:
    planned = faults(seed, seconds)
    assert planned == faults(seed, seconds)
    assert all(one.at + one.seconds <= seconds for one in planned)
    for target in Target:
        of_it = [one for one in planned if one.target is target]
        assert all(a.at + a.seconds < b.at for a, b in itertools.pairwise(of_it))
