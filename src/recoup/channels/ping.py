"""Dead-man pings: a service elsewhere that alarms when nothing is heard. healthchecks, and Uptime Kuma's push monitors.

healthchecks (its "Pinging API" page): ``URL/start``, ``URL`` for success, ``URL/fail``; the body is kept with the ping,
``rid`` pairs a start with its end. Uptime Kuma ("Push" monitors): ``GET URL?status=up|down&msg=…&ping=MS``.
"""

from __future__ import annotations

import json
from typing import Final, Literal
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from recoup.channels.message import Delivered, server_of
from recoup.kernel import clock
from recoup.kernel.secret import Secret

Event = Literal["start", "success", "fail"]

_SECONDS: Final = 5.0
_TRIES: Final = 3
_BODY_BYTES: Final = 10_000
_ANSWER_BYTES: Final = 4096


def ping(address: Secret, event: Event, *, text: str = "", run_id: str = "", seconds: float | None = None) -> Delivered:
    """Send one ping: tried three times, at most half a minute in all. Never raises for a failure.

    ``run_id`` is a UUID that pairs a start with its end. ``text`` says what happened.
    """
    parts = urlsplit(address.reveal())
    kuma = "/api/push/" in parts.path
    if kuma and event == "start":
        return Delivered()  # it knows no starts
    if kuma:
        method, url, body = _kuma(parts, event, text, seconds)
    else:
        method, url, body = _healthchecks(parts, event, text, run_id)
    outcome = Delivered()
    for attempt in range(_TRIES):
        if attempt:
            clock.pause(0.5 * attempt)
        outcome, final = _ask(address, method, url, body)
        if final:
            break
    return outcome


def _ask(address: Secret, method: str, url: str, body: bytes | None) -> tuple[Delivered, bool]:
    """One request, and whether its answer is final. urllib3's own retries would log the whole address."""
    import urllib3

    timeout, headers = urllib3.Timeout(connect=_SECONDS, read=_SECONDS), {"User-Agent": "recoup"}
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    try:
        with (
            urllib3.ProxyManager(proxy, timeout=timeout, retries=False)
            if proxy
            else urllib3.PoolManager(timeout=timeout, retries=False)
        ) as pool:
            answer = pool.request(method, url, body=body, headers=headers, redirect=False, preload_content=False)
            said = answer.read(_ANSWER_BYTES, decode_content=True)
            answer.close()
    except (urllib3.exceptions.HTTPError, ValueError) as failure:
        # Its text may hold the whole address; the kind of the failure says enough.
        return Delivered(error=f"{server_of(address)} could not be reached ({type(failure).__name__})"), False
    return _judged(server_of(address), answer.status, said), answer.status not in (429, 500, 502, 503, 504)


def _healthchecks(parts: SplitResult, event: Event, text: str, run_id: str) -> tuple[str, str, bytes | None]:
    ending = {"start": "/start", "success": "", "fail": "/fail"}[event]
    more = "&".join(filter(None, (parts.query, urlencode({"rid": run_id}) if run_id else "")))
    url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + ending, more, ""))
    return "POST", url, text.encode()[:_BODY_BYTES]


def _kuma(parts: SplitResult, event: Event, text: str, seconds: float | None) -> tuple[str, str, bytes | None]:
    # What people copy from its page ends in ?status=up&msg=OK&ping= already.
    words = {"status": "down" if event == "fail" else "up", "msg": text[:200] or "OK"}
    if seconds is not None:
        words["ping"] = str(round(seconds * 1000))
    return "GET", urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(words), "")), None


def _judged(server: str, status: int, said: bytes) -> Delivered:
    if not 200 <= status < 300:
        return Delivered(error=f"{server} answered {status}")
    text = said.decode(errors="replace").strip()
    if text.startswith("OK ("):  # healthchecks: "OK (not found)", "OK (rate limited)"
        return Delivered(error=f"{server} answered {text[:60]!r}")
    try:
        document = json.loads(text)
    except ValueError:
        return Delivered()
    if isinstance(document, dict) and document.get("ok") is False:
        return Delivered(error=f"{server} answered that it is not ok")
    return Delivered()
