"""What goes out, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from recoup.kernel.secret import Secret

_WITH_HOST: Final = frozenset({"http", "https", "json", "jsons", "xml", "xmls", "form", "forms"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message for people: plain text. ``mood`` chooses a colour where there are some."""

    title: str
    body: str
    mood: Literal["failure", "warning", "success", "info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Whether it was taken. ``error`` says why not, without any secret; None when it was."""

    error: str | None = None


def server_of(address: Secret) -> str:
    """Whose address it is, as far as that is no secret: the host of a web address, the scheme of any other.

    With many services of Apprise, what stands in the place of the host is a token.
    """
    try:
        parts = urlsplit(address.reveal())
    except ValueError:
        return "an address that cannot be read"
    return str(parts.hostname) if parts.scheme in _WITH_HOST and parts.hostname else f"{parts.scheme}:"


def without_secrets(text: str, addresses: Iterable[Secret]) -> str | None:
    """``text`` when it shows no part of the addresses beyond their scheme and host, else None.

    Libraries repeat addresses in what they say; a part of four characters or more is taken for a secret.
    """
    lowered = text.lower()
    for address in addresses:
        rest = address.reveal().partition("://")[2] or address.reveal().partition(":")[2]
        words = {rest, unquote(rest)}
        for separator in "/?&=:@,;#+ ":
            words = {part for word in words for part in word.split(separator)}
        hosts = {server_of(address).lower()}
        if any(len(word) >= 4 and word.lower() in lowered for word in words if word.lower() not in hosts):
            return None
    return text
