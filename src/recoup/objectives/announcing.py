"""What is told of alarms, and when: a first notice, repeats while it lasts, and one word when it is over.

A pure state machine. All that is to be said at one time goes into one message, and messages keep a distance, so that a
night in which everything fails does not bury the one who is called. What comes and goes counts as one episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from recoup.objectives.alarms import Alarm, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient the sender is. At most one message goes out in each ``distance``."""

    every: timedelta  #: a repeat while a condition lasts
    settle: timedelta = timedelta(minutes=10)  #: a condition must be gone this long to be over
    distance: timedelta = timedelta(minutes=5)
    retry: timedelta = timedelta(minutes=1)  #: after a message that nobody took; doubles
    longest_retry: timedelta = timedelta(minutes=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One condition, from its first appearance until it was over for good."""

    alarm: Alarm  #: as it was when last seen
    first_seen: datetime
    gone_since: datetime | None = None
    told: datetime | None = None  #: when it was last in a message
    told_severity: Severity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the sender remembers. ``failures``: messages in a row that nobody took."""

    episodes: Mapping[str, Episode] = field(default_factory=dict)
    last_message: datetime | None = None
    last_attempt: datetime | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. What began is new or has become worse; what lasts was told before; what ended is over."""

    began: tuple[Episode, ...] = ()
    lasts: tuple[Episode, ...] = ()
    ended: tuple[Episode, ...] = ()


def observe(known: Known, alarms: Sequence[Alarm], now: datetime, policy: Policy) -> Known:
    """Bring what is remembered up to date with the conditions of ``now``."""
    present = {one.key: one for one in alarms}
    episodes: dict[str, Episode] = {}
    for key, episode in known.episodes.items():
        if key in present:
            episodes[key] = replace(episode, alarm=present.pop(key), gone_since=None)
        else:
            gone = episode.gone_since or now
            if episode.told is not None or now - gone < policy.settle:
                episodes[key] = replace(episode, gone_since=gone)
    for key, alarm in present.items():
        episodes[key] = Episode(alarm=alarm, first_seen=now)
    return replace(known, episodes=episodes)


def due(known: Known, now: datetime, policy: Policy) -> Message | None:
    """The message to send now, or None. ``known`` was brought up to date just now."""
    if known.last_message is not None and now - known.last_message < policy.distance:
        return None
    if known.failures and known.last_attempt is not None:
        wait = min(policy.retry * 2 ** min(known.failures - 1, 10), policy.longest_retry)
        if now - known.last_attempt < wait:
            return None
    began: list[Episode] = []
    lasts: list[Episode] = []
    ended: list[Episode] = []
    for episode in known.episodes.values():
        if episode.gone_since is not None:
            if episode.told is not None and now - episode.gone_since >= policy.settle:
                ended.append(episode)
        elif episode.told is None:
            if now - episode.first_seen >= episode.alarm.hold:
                began.append(episode)
        elif _worse(episode):
            began.append(episode)
        elif now - episode.told >= policy.every:
            lasts.append(episode)
    if not (began or lasts or ended):
        return None
    # One message says it all: what would be repeated soon is repeated with it.
    soon = (
        one
        for one in known.episodes.values()
        if one.told is not None
        and one.gone_since is None
        and one not in began
        and one not in lasts
        and now - one.told >= policy.every * 3 / 4
    )
    return Message(began=tuple(began), lasts=(*lasts, *soon), ended=tuple(ended))


def sent(known: Known, message: Message, now: datetime) -> Known:
    """What is remembered after somebody took the message."""
    episodes = dict(known.episodes)
    for episode in (*message.began, *message.lasts):
        episodes[episode.alarm.key] = replace(episode, told=now, told_severity=episode.alarm.severity)
    for episode in message.ended:
        del episodes[episode.alarm.key]
    return Known(episodes=episodes, last_message=now, last_attempt=now, failures=0)


def not_sent(known: Known, now: datetime) -> Known:
    """What is remembered after nobody took the message: it is tried again, less and less often."""
    return replace(known, last_attempt=now, failures=known.failures + 1)


def _worse(episode: Episode) -> bool:
    return episode.alarm.severity == "critical" and episode.told_severity == "warning"
