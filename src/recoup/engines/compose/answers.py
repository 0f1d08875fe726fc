"""Waiting until something answers, with a limit."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from recoup.kernel.clock import monotonic, pause
from recoup.kernel.errors import EngineError, UsageError

_READ_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a health check said: whether it is well, and a few words to show."""

    well: bool
    said: str


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A health page that redirects (to a login, to another host) has not said that the service is well."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


# Proxies of the environment are for the world outside, not for a service on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


def ask(url: str, *, timeout_seconds: float = 5.0) -> Answer:
    """Ask an ``http`` or ``https`` address once. Well means status 200 to 299. Never raises for a bad answer.

    Raise ``UsageError`` for an address of another kind.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"not an http address: {url}", hint="Write http://HOST:PORT/PATH.")
    try:
        with _OPENER.open(url, timeout=timeout_seconds) as response:
            response.read(_READ_BYTES)
            return Answer(well=200 <= response.status < 300, said=f"status {response.status}")
    except urllib.error.HTTPError as refusal:
        with refusal:
            body = refusal.read(200).decode(errors="replace").strip()
        return Answer(well=False, said=f"status {refusal.code}" + (f": {body}" if body else ""))
    except (OSError, http.client.HTTPException) as failure:
        reason = getattr(failure, "reason", failure)
        return Answer(well=False, said=f"no answer: {reason or type(failure).__name__}")


def wait_until_answers(
    check: str | Callable[[], Answer], *, seconds: float, every_seconds: float = 0.5, what: str | None = None
) -> float:
    """Ask until the answer is well; return how many seconds it took. At least one question is asked.

    ``check`` is an http address, or anything that gives an ``Answer``. Raise ``EngineError`` with the last answer when
    it is not well within ``seconds``.
    """
    begun = monotonic()
    subject = what or (check if isinstance(check, str) else "it")
    while True:
        left = begun + seconds - monotonic()
        answer = ask(check, timeout_seconds=max(0.5, min(5.0, left))) if isinstance(check, str) else check()
        if answer.well:
            return monotonic() - begun
        if monotonic() - begun + every_seconds > seconds:
            raise EngineError(f"{subject} is not well after {seconds:g} s: {answer.said}")
        pause(every_seconds)
