"""The order in which services start and stop: pure functions over "who needs whom"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from recoup.kernel.errors import UsageError


class CycleError(UsageError):
    """Services wait for each other in a circle; there is no order in which they could start."""


def start_order(after: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Given each service with those it comes after, return an order in which each comes after its own.

    Where they leave a choice, the mapping's order decides. Names that are no key are passed over: they are somebody
    else's. Raise ``CycleError`` naming the circle.
    """
    ordered: list[str] = []
    done: set[str] = set()
    for name in after:
        _visit(name, after, done, ordered)
    return tuple(ordered)


def _visit(name: str, after: Mapping[str, Sequence[str]], done: set[str], ordered: list[str]) -> None:
    # An explicit path: it is also what names the circle.
    path: list[tuple[str, int]] = [(name, 0)]
    while path:
        current, index = path[-1]
        needed = [other for other in after[current] if other in after]
        if current in done or index == len(needed):
            path.pop()
            if current not in done:
                done.add(current)
                ordered.append(current)
            continue
        path[-1] = (current, index + 1)
        following = needed[index]
        on_path = [step for step, _ in path]
        if following in on_path:
            circle = [*on_path[on_path.index(following) :], following]
            raise CycleError(
                f"services wait for each other: {' → '.join(circle)}", hint="Remove one of them from an after: list."
            )
        if following not in done:
            path.append((following, 0))


def stop_order(after: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The reverse of ``start_order``: each service stops before those it needs."""
    return tuple(reversed(start_order(after)))


def dependants(names: Iterable[str], after: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Everything that needs one of ``names``, directly or not, in stop order; the names themselves are not in it.

    These must be stopped before one of ``names`` is restored, and started after it.
    """
    wanted = set(names)
    found: set[str] = set()
    for name in start_order(after):
        if any(other in wanted or other in found for other in after[name]):
            found.add(name)
    return tuple(name for name in stop_order(after) if name in found and name not in wanted)
