"""Messages to people, through Apprise: e-mail, Slack, ntfy, a webhook, and what else it knows.

Apprise is loaded when the first message is sent. An address is a secret from here to the library, and nothing that the
library says is repeated before it was looked through for parts of the address.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

from recoup.channels.message import Delivered, Message, server_of, without_secrets
from recoup.kernel.secret import Secret

#: Apprise's own time-outs are 4 s to connect and 4 s between two bytes; a server that drips is left behind after this.
_LONGEST_SECONDS: Final = 45.0


#: What was sent to in this process: a thread that was left behind may still say something about its address.
_USED: Final[set[Secret]] = set()


def send(addresses: Sequence[Secret], message: Message, *, longest_seconds: float = _LONGEST_SECONDS) -> Delivered:
    """Send to every address, one after the other. Taken only when each of them took it. Never raises for a failure."""
    errors: list[str] = []
    for address in addresses:
        _USED.add(address)
        answer: list[Delivered] = []
        # A daemon thread: what hangs in a foreign library must hold up neither the next message nor the end.
        thread = threading.Thread(target=_try, args=(address, message, answer), daemon=True)
        thread.start()
        thread.join(longest_seconds)
        if not answer:
            errors.append(f"{server_of(address)} did not answer within {longest_seconds:.0f} s")
        elif answer[0].error is not None:
            errors.append(answer[0].error)
    return Delivered(error="; ".join(errors) or None)


def check(address: Secret) -> str | None:
    """What is wrong with an address, without asking anybody; None when Apprise can read it."""
    import apprise

    with _listening():
        readable = apprise.Apprise.instantiate(address.reveal(), suppress_exceptions=True) is not None
    return None if readable else f"{server_of(address)} is not an address that Apprise can read"


def _try(address: Secret, message: Message, answer: list[Delivered]) -> None:
    outcome = Delivered(error=f"{server_of(address)} could not be sent to: the library broke off")
    try:
        outcome = _send_one(address, message)
    finally:
        answer.append(outcome)


def _send_one(address: Secret, message: Message) -> Delivered:
    import apprise

    asset = apprise.AppriseAsset(app_id="Recoup", app_desc="Recoup", secure_logging=True, async_mode=False)
    moods = {
        "failure": apprise.NotifyType.FAILURE,
        "warning": apprise.NotifyType.WARNING,
        "success": apprise.NotifyType.SUCCESS,
        "info": apprise.NotifyType.INFO,
    }
    with _listening() as said:
        target = apprise.Apprise(asset=asset)
        if not target.add(address.reveal()):
            return Delivered(error=f"{server_of(address)} is not an address that Apprise can read")
        taken = target.notify(
            body=message.body,
            title=message.title,
            notify_type=moods[message.mood],
            body_format=apprise.NotifyFormat.TEXT,
        )
    if taken:
        return Delivered()
    reasons = (without_secrets(text, _USED) for text in said.texts)
    reason = next((text for text in reasons if text is not None), "it did not say why")
    return Delivered(error=f"{server_of(address)} did not take it: {reason}")


class _listening(logging.Filter):  # noqa: N801 - used as a with statement
    """Collects what Apprise logs, and keeps it out of every log: it shows whole addresses and tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def __enter__(self) -> _listening:
        logging.getLogger("apprise").addFilter(self)
        # Below Apprise, the path of every request is told to whoever wants details. Nobody does.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.WARNING)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("apprise").removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a line that may say why a message was not taken; let none pass."""
        if record.levelno >= logging.WARNING and len(self.texts) < 20:
            self.texts.append(" ".join(record.getMessage().split())[:300])
        return False
