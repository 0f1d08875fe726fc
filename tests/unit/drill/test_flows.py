"""Flows against real sockets: what passes, what fails, what is unknown, and what never shows."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from recoup.drill.expect import Expect
from recoup.drill.flows import FlowSpec, StepSpec, run_flow
from recoup.drill.http import request
from recoup.drill.model import FlowResult
from recoup.drill.reach import Ended, Response, Rows
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.finding import Verdict
from recoup.plan.template import Template
from tests.unit.drill.shop import serving, serving_shop

ENVIRONMENT = {"DRILL_PASSWORD": "hunter22"}


class Stack:
    """A reach whose services are on ports of the loopback."""

    def __init__(self, *, rows: Rows | Exception | None = None, ended: Ended | None = None, **ports: int) -> None:
        self.ports, self.rows, self.ended = ports, rows, ended
        self.asked: list[Any] = []

    def http(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Response:
        def dial(host: str, _port: int) -> tuple[str, int] | None:
            return ("127.0.0.1", self.ports[host]) if host in self.ports else None

        return request(method, url, dial, headers=headers, body=body, timeout_seconds=timeout_seconds)

    def sql(self, service: str | None, database: str | None, query: str, *, timeout_seconds: float) -> Rows:
        self.asked.append((service, database, query))
        if isinstance(self.rows, Exception):
            raise self.rows
        assert self.rows is not None
        return self.rows

    def command(self, service: str, argv: Sequence[str], *, timeout_seconds: float) -> Ended:
        self.asked.append((service, tuple(argv)))
        assert self.ended is not None
        return self.ended


def expand(text: str, find: Callable[[str], str | None]) -> str:
    return Template.parse(text).expand_url(find)


def run(flow: FlowSpec | StepSpec, stack: Stack, environment: Mapping[str, str] | None = None) -> FlowResult:
    if isinstance(flow, StepSpec):
        flow = FlowSpec(name="one", steps=(flow,))
    return run_flow(flow, stack, expand, (ENVIRONMENT if environment is None else environment).get)


def get(url: str, **more: Any) -> StepSpec:
    return StepSpec(act="get", target=url, shown=f"GET {url}", **more)


LOGIN = StepSpec(
    act="post", target="http://api:3000/login", shown="POST /login",
    json={"email": "drill@example.org", "password": "${DRILL_PASSWORD}"},
    save={"token": "auth.accessToken"},
)  # fmt: skip
ORDERS = get(
    "http://api:3000/orders", headers={"Authorization": "Bearer ${token}"},
    expect=Expect(json={"orders": [{"id": 7}]}, value="orders", at_least=1),
)  # fmt: skip
SIGN_IN = FlowSpec(name="a customer signs in and sees the orders", steps=(LOGIN, ORDERS))


def test_a_customer_signs_in_and_sees_the_orders() -> None:
    with serving_shop() as (port, shop):
        result = run(SIGN_IN, Stack(api=port))
    assert result.verdict is Verdict.OK, result
    assert (result.attempts, result.passes) == (1, 1)
    assert [step.detail for step in result.steps] == ["status 200", "status 200"]
    assert shop.seen[0][1]["Cookie"] == "sid=c00kie"
    assert all(step.took > timedelta(0) for step in result.steps)


def test_no_secret_is_in_the_result_of_a_flow_whatever_comes_back() -> None:
    with serving_shop(orders=[]) as (port, _):
        empty = run(SIGN_IN, Stack(api=port))
        wrong = run(
            replace(SIGN_IN, steps=(LOGIN, replace(ORDERS, expect=Expect(json={"token": "other"})))), Stack(api=port)
        )
        echo = run(FlowSpec(name="x", steps=(LOGIN, get("http://${token}:1/"))), Stack(api=port))
        refused = run(
            FlowSpec(name="x", steps=(LOGIN, get("http://nowhere/", headers={"A": "${token}\n"}))),
            Stack(api=port, nowhere=1),
        )
    for result in (empty, wrong, echo, refused):
        assert result.verdict is not Verdict.OK
        for secret in ("hunter22", "t0k/en+1", "t0k%2Fen%2B1", "c00kie", "drill@example.org"):
            assert secret not in repr(result), result
    assert empty.steps[1].detail == "orders is a list of 0, and should be a list of 1"
    assert wrong.steps[1].detail == 'token is another text, of 8 characters, and should be "other"'


def test_what_a_step_saved_is_percent_encoded_in_an_address() -> None:
    with serving_shop() as (port, _):
        flow = FlowSpec(
            name="x", steps=(LOGIN, get("http://api/whoami/${token}", expect=Expect(contains="t0k%2Fen%2B1")))
        )
        assert run(flow, Stack(api=port)).verdict is Verdict.OK


def test_a_flow_is_tried_again_until_it_passes_so_often_in_a_row() -> None:
    flow = replace(FlowSpec(name="x", steps=(LOGIN, ORDERS)), within=timedelta(minutes=5), passes=2)
    with serving_shop(not_ready=2) as (port, _):
        result = run(flow, Stack(api=port))
    assert (result.verdict, result.attempts, result.passes) == (Verdict.OK, 4, 2)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes by only while somebody waits."""
    at = 0.0

    def pause(seconds: float) -> None:
        nonlocal at
        at += seconds

    monkeypatch.setattr(clock, "monotonic", lambda: at)
    monkeypatch.setattr(clock, "pause", pause)


@pytest.mark.usefixtures("quick")
def test_a_flow_that_does_not_come_right_in_its_time_failed_and_says_at_what() -> None:
    flow = replace(SIGN_IN, within=timedelta(seconds=2))
    with serving_shop(not_ready=1000) as (port, _):
        result = run(flow, Stack(api=port))
    assert result.verdict is Verdict.FAILED
    assert result.attempts >= 2
    assert result.steps[1].detail == "status 503, 200 is expected"


def test_a_flow_that_passes_too_seldom_is_not_ok() -> None:
    with serving_shop() as (port, _):
        result = run(replace(SIGN_IN, passes=50, within=timedelta(0)), Stack(api=port))
    assert result.verdict is Verdict.FAILED
    assert "passed in a row: 1; asked for: 50" in result.steps[-1].detail


def test_a_flow_that_cannot_run_is_unknown_at_once_and_says_why() -> None:
    patient = timedelta(minutes=9)
    begun = clock.monotonic()
    missing = run(FlowSpec(name="x", steps=(LOGIN, ORDERS), within=patient), Stack(api=1), environment={})
    outside = run(FlowSpec(name="x", steps=(get("http://pay.example/charge"),), within=patient), Stack(api=1))
    no_address = run(FlowSpec(name="x", steps=(get("ftp://api/"),), within=patient), Stack(api=1))
    assert clock.monotonic() - begun < patient.total_seconds()
    assert missing.verdict is outside.verdict is no_address.verdict is Verdict.UNKNOWN
    assert missing.steps[0].detail == "the variable DRILL_PASSWORD has no value"
    assert missing.steps[1].detail == "not tried, because a step before it did not pass"
    assert outside.steps[0].detail.startswith("pay.example:80 is not in the sandbox")


@pytest.mark.usefixtures("quick")
def test_what_the_sandbox_cannot_do_yet_is_tried_again_when_it_may_come_right() -> None:
    later = UncheckedError("the container is not there yet")
    later.may_retry = True  # type: ignore[misc]
    step = StepSpec(act="sql", target="select 1", shown="sql")
    result = run(FlowSpec(name="x", steps=(step,), within=timedelta(seconds=2)), Stack(rows=later))
    assert result.verdict is Verdict.UNKNOWN
    assert result.attempts >= 2


def test_a_redirect_is_an_answer_and_is_never_followed() -> None:
    with serving_shop() as (port, shop):
        result = run(get("http://api/elsewhere"), Stack(api=port))
        expected = run(get("http://api/elsewhere", expect=Expect(status=302)), Stack(api=port))
    assert result.steps[0].detail == "status 302, 200 is expected"
    assert "not followed" in (result.steps[0].hint or "")
    assert expected.verdict is Verdict.OK
    assert [path for path, _ in shop.seen] == ["/elsewhere", "/elsewhere"]


def _huge(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n[")
    for _ in range(1000):
        connection.sendall(b"1," * 32_768)


def _dripping(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: "[:1])
        clock.pause(0.05)


def _endless_continue(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 50)
        clock.pause(0.01)


def _silent(connection: socket.socket) -> None:
    connection.recv(1)


def _no_http(connection: socket.socket) -> None:
    connection.sendall(b"\x00\xff\x00 220 mail.example ESMTP\r\n\r\n")


def _headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n")


def _nested(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000)


def _cut(connection: socket.socket) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"status": "ok"}')


def _number(connection: socket.socket) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"status": ' + b"9" * 100_000 + b"}")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (_huge, "it is too long to be read as JSON"),
        (_dripping, "api:80 did not answer in time"),
        (_endless_continue, "api:80 did not answer in time"),
        (_silent, "api:80 did not answer in time"),
        (_no_http, "api:80 did not answer in HTTP"),
        (_headers, "api:80 did not answer in HTTP"),
        (_nested, "it is not JSON"),
        (_cut, "api:80 did not answer in HTTP"),
        (_number, "it is not JSON"),
    ],
)
def test_an_answer_that_nobody_should_give_fails_in_time_and_is_named(
    answer: Callable[[socket.socket], None], said: str
) -> None:
    with serving(answer) as port:  # some of them would go on for ever
        patience = timedelta(seconds=0.5 if said.endswith("in time") else 120)
        step = get("http://api/", expect=Expect(json={"status": "ok"}), timeout=patience)
        result = run(step, Stack(api=port))
    assert result.verdict is Verdict.FAILED
    assert result.steps[0].detail.startswith(said), result.steps[0].detail


def test_nobody_who_listens_is_a_failure_and_names_the_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    result = run(get("http://api:3000/"), Stack(api=port))
    assert result.verdict is Verdict.FAILED
    assert result.steps[0].detail == "api:3000 did not answer: Connection refused"


def test_a_certificate_nobody_vouches_for_is_a_failure(tmp_path: Any) -> None:
    def no_tls(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with serving(no_tls) as port:
        result = run(get("https://api/"), Stack(api=port))
    assert result.verdict is Verdict.FAILED
    assert "TLS" in result.steps[0].detail or "did not answer" in result.steps[0].detail
    assert ssl.OPENSSL_VERSION


def test_sql_is_asked_and_its_first_value_compared() -> None:
    rows = Rows(columns=("count", "name"), rows=(("12", "ada"),))
    asked = StepSpec(act="sql", target="select count(*) from orders", shown="sql on postgres", service="postgres")
    for expect, verdict in (
        (Expect(at_least=12), Verdict.OK),
        (Expect(at_least=13), Verdict.FAILED),
        (Expect(at_most=11.5), Verdict.FAILED),
        (Expect(equals=12), Verdict.OK),
        (Expect(equals="12"), Verdict.OK),
        (Expect(equals=True), Verdict.FAILED),
        (Expect(contains="ada"), Verdict.OK),
        (Expect(contains="bob"), Verdict.FAILED),
    ):
        stack = Stack(rows=rows)
        assert run(replace(asked, expect=expect), stack).verdict is verdict, expect
        assert stack.asked == [("postgres", None, "select count(*) from orders")]
    assert (
        run(replace(asked, expect=Expect(at_least=0)), Stack(rows=Rows(columns=("c",), rows=()))).verdict
        is Verdict.FAILED
    )
    assert run(asked, Stack(rows=EngineError("relation does not exist"))).verdict is Verdict.FAILED


def test_what_sql_saved_goes_into_a_request() -> None:
    rows = Rows(columns=("token",), rows=(("t0k/en+1",),))
    query = StepSpec(act="sql", target="select token from tokens", shown="sql", save={"token": "token"})
    with serving_shop() as (port, _):
        assert run(FlowSpec(name="x", steps=(query, ORDERS)), Stack(api=port, rows=rows)).verdict is Verdict.OK
    lost = run(query, Stack(rows=Rows(columns=("token",), rows=((None,),))))
    assert lost.steps[0].detail == "there is no token to save as token"


def test_a_command_ends_as_it_should_and_its_output_holds_what_it_should() -> None:
    step = StepSpec(act="command", target="", argv=("manage", "check"), shown="command in api", service="api")
    said = Ended(exit_status=0, output=json.dumps({"orders": 3}).encode() + b"\n")
    assert run(replace(step, expect=Expect(value="orders", at_least=1)), Stack(ended=said)).verdict is Verdict.OK
    assert run(replace(step, expect=Expect(value="orders", at_least=4)), Stack(ended=said)).verdict is Verdict.FAILED
    ended = run(step, Stack(ended=Ended(exit_status=2)))
    assert ended.steps[0].detail == "it ended with status 2, 0 is expected"


def test_a_flow_that_is_told_to_stop_is_not_tried_again() -> None:
    stop = threading.Event()
    stop.set()
    flow = replace(SIGN_IN, within=timedelta(seconds=60))
    with serving_shop(not_ready=1000) as (port, _):
        result = run_flow(flow, Stack(api=port), expand, ENVIRONMENT.get, stopping=stop.is_set)
    assert (result.attempts, result.verdict) == (1, Verdict.FAILED)
