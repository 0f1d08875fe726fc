"""The rows of the sample marketplace: invented, and the same for the same seed and instant."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST = _words(
    "Amélie Björn Chidi Dana Émile Fatima Grace Hiro Ines Jamal Kateryna Liam Mei Noor Olga Priya Quinn Rosa"
)
_LAST = _words("Abara Brown Chen Dubois Évora García Haddad Ivanova Jensen Kowalski Łuczak Müller Novák O'Brien Park")
_TRADES = _words("plumbing electrics painting roofing flooring carpentry cleaning gardening moving heating")
_CITIES = _words("Montréal Toronto Québec Halifax Ottawa Winnipeg Calgary Vancouver")
_WORDS = _words(
    "the kitchen tap leaks again please bring a ladder and two helpers we need it before the weekend thank you could "
    "you send a photo of the wall the old paint comes off in the hall — möglichst bald, merci d'avance ☺ 水道の修理"
)
# What separators, quotes and escapes do to naive dumps.
_AWKWARD = (
    "",
    "\\N",
    'say "hello"',
    "it's; DROP TABLE orders; --",
    "tab\there",
    "line\nbreak",
    "trailing space ",
    "\\.",
)
_STATUS = ("draft", "open", "open", "assigned", "in progress", "done", "done", "done", "done", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many rows of each kind. Messages and payments follow from the orders."""

    clients: int = 6_000
    contractors: int = 1_500
    orders: int = 12_000
    messages: int = 28_000
    contracts: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What later rows must know of an order."""

    id: int
    status: str
    price: Decimal
    created_at: datetime


class Rows:
    """Makes rows from a seed, up to an instant. Each method may be called once."""

    def __init__(self, *, seed: int, now: datetime, size: Size) -> None:
        self._random = random.Random(seed)  # noqa: S311 invented data, no secret
        self._now = now
        self._size = size

    def _past(self, days: float) -> datetime:
        return self._now - timedelta(seconds=round(self._random.random() * days * 86_400, 6))

    def _money(self, least: int, most: int) -> Decimal:
        return Decimal(self._random.randrange(least * 100, most * 100)).scaleb(-2)

    def _text(self, least: int, most: int) -> str:
        if self._random.random() < 0.01:
            return self._random.choice(_AWKWARD) + " "
        return " ".join(self._random.choices(_WORDS, k=self._random.randint(least, most)))

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    def clients(self) -> Iterator[tuple[Any, ...]]:
        """(id, public_id, name, email, phone, preferences, tags, balance, joined_at, deleted_at)."""
        choose = self._random.choice
        for number in range(1, self._size.clients + 1):
            joined = self._past(700)
            preferences = {
                "language": choose(("en", "fr", "uk", None)),
                "newsletter": number % 3 == 0,
                "address": {"city": choose(_CITIES), "unit": number % 40 or None},
                "limit": number / 7,
            }
            gone = joined + (self._now - joined) / 2 if number % 50 == 0 else None
            name = f"{choose(_FIRST)} {choose(_LAST)}"
            email = f"client{number}@example.{choose(('org', 'com', 'net'))}"
            phone = f"+1 555 {number % 10_000:04}" if number % 4 else None
            tags = self._random.sample(["vip", "new", "loyal", 'has "quotes"', "a,b", ""], k=number % 4)
            balance = self._money(-50, 500)
            yield number, self._uuid(), name, email, phone, preferences, tags, balance, joined, gone

    def contractors(self) -> Iterator[tuple[Any, ...]]:
        """(company, email, trades, hourly_rate, rating, available, home, licence, verified, network)."""
        choose = self._random.choice
        for number in range(1, self._size.contractors + 1):
            begin = self._now + timedelta(days=self._random.randint(-20, 20))
            available = f"[{begin.isoformat()},{(begin + timedelta(days=9)).isoformat()})" if number % 5 else "empty"
            yield (
                f"{choose(_LAST)} & {choose(('Sons', 'Daughters', 'Söhne', 'Fils'))} {number}",
                f"office{number}@contractor{number}.example",
                self._random.sample(_TRADES, k=self._random.randint(1, 3)),
                self._money(25, 180),
                self._random.uniform(1, 5) if number % 11 else None,
                available if number % 6 else None,
                f"({self._random.uniform(-125, -60):.6f},{self._random.uniform(43, 55):.6f})",
                self._random.randbytes(96) if number % 2 else None,
                number % 3 != 0,
                f"10.{number % 256}.{self._random.randrange(256)}.0/24" if number % 7 == 0 else None,
            )

    def orders(self, first_id: int, count: int, *, days: float = 110) -> Iterator[tuple[Order, tuple[Any, ...]]]:
        """The order, and (id, client, contractor, status, title, description, details, price, duration, due,
        created_at, updated_at)."""
        choose = self._random.choice
        for number in range(count):
            identity = first_id + 7 * number
            created, status, price = self._past(days), choose(_STATUS), self._money(0, 4_000)
            worker = None if status in ("draft", "open") else self._random.randint(1, self._size.contractors)
            details = {
                "trade": choose(_TRADES),
                "rooms": self._random.randint(1, 9),
                "budget": [float(price), float(price) * 1.2],
                "flags": {"urgent": number % 9 == 0, "pets": None},
                "note": choose(_AWKWARD),
            }
            due: date | None = (created + timedelta(days=30)).date() if number % 3 else None
            # One order in a hundred is a long story: such values live outside the row.
            text = self._text(8, 40) if number % 100 else self._random.randbytes(6_000).hex()
            duration = timedelta(minutes=self._random.randint(0, 9_000)) if number % 4 else None
            client = self._random.randint(1, self._size.clients)
            title = f"{details['trade']} in {choose(_CITIES)}"
            updated = (created + timedelta(hours=1)).replace(tzinfo=None)
            yield (
                Order(id=identity, status=status, price=price, created_at=created),
                (identity, client, worker, status, title, text, details, price, duration, due, created, updated),
            )

    def payments(self, orders: list[Order]) -> Iterator[tuple[Any, ...]]:
        """(id, order_id, amount, fee, currency, method, answer, paid_at); two instalments for some."""
        for order in orders:
            if order.status not in ("done", "in progress"):
                continue
            for _ in range(2 if order.id % 5 == 0 else 1):
                fee = order.price * Decimal("0.029") + Decimal("0.30")  # every scale, as computed
                method = self._random.choice(("card", "transfer", "wallet"))
                answer = f'{{"id": "ch_{order.id}",  "ok": true, "id": "twice"}}' if method == "card" else None
                paid = order.created_at + (self._now - order.created_at) * self._random.random()
                yield self._uuid(), order.id, order.price, fee, "CAD", method, answer, paid

    def messages(self, orders: list[Order], count: int) -> Iterator[tuple[Any, ...]]:
        """(order_id, sender, body, attachment, sent_at, read_at)."""
        for number in range(count):
            order = self._random.choice(orders)
            sent = order.created_at + (self._now - order.created_at) * self._random.random()
            sender = "client" if self._random.random() < 0.5 else "contractor"
            attachment = self._random.randbytes(300) if number % 40 == 0 else None
            read = sent + timedelta(minutes=5) if number % 6 else None
            yield order.id, sender, self._text(3, 18), attachment, sent, read

    def documents(self, orders: list[Order]) -> Iterator[tuple[int, bytes]]:
        """(order_id, a document of some kilobytes)."""
        for order in orders[:: max(1, len(orders) // self._size.contracts)][: self._size.contracts]:
            yield order.id, self._random.randbytes(self._random.randint(1, 20_000))
