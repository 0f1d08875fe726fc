"""Messages and pings reach real servers, what was not taken is said, and no secret is in what is said."""

from __future__ import annotations

import importlib
import json
import logging
import socket
import socketserver
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from recoup.channels import people, ping
from recoup.channels.message import Message, without_secrets
from recoup.kernel.secret import Secret
from tests.receiver import Received, Receiver, receiver

# Apprise imports it when it is first used. In a thread that a test gave up, the end of that test would undo the filter
# of warnings that it sets while it is imported.
importlib.import_module("requests")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # imghdr, which Apprise tries
_MESSAGE = Message(title="Recoup: Shop: 1 alarm", body="the RPO of postgres is broken", mood="failure")
_TOKEN = "0d1c2b3a-4958-6776-8594-a3b2c1d0e0f1"


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as kept:
        yield kept


def test_a_webhook_gets_the_message(there: Receiver) -> None:
    assert people.send([Secret(f"json://{there.address}/hook/{_TOKEN}")], _MESSAGE).error is None
    (request,) = there.received
    said = json.loads(request.body)
    assert request.path.rstrip("/") == f"/hook/{_TOKEN}"
    assert said["title"] == _MESSAGE.title
    assert said["message"] == _MESSAGE.body
    assert said["type"] == "failure"


def test_a_message_is_taken_only_when_every_address_took_it_and_the_others_still_get_it(there: Receiver) -> None:
    there.answer = lambda request: (403, "no") if "bad" in request.path else (200, "OK")
    addresses = [Secret(f"json://{there.address}/bad/{_TOKEN}"), Secret(f"json://{there.address}/good")]
    delivered = people.send(addresses, _MESSAGE)
    assert delivered.error is not None
    assert delivered.error.startswith("127.0.0.1 did not take it: ")
    assert "403" in delivered.error
    assert _TOKEN not in delivered.error
    assert [path.split("/")[1] for path in there.paths] == ["bad", "good"]


def test_neither_a_log_nor_an_error_shows_an_address(
    there: Receiver, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    port = there.port
    for wrong in (
        f"json://admin:hunter2secret@127.0.0.1:{port}/{_TOKEN}",
        f"json://127.0.0.1:1/{_TOKEN}",
        f"nosuch://{_TOKEN}",
        f"slack://{_TOKEN}",
    ):
        there.answer = lambda _request: (401, "")
        delivered = people.send([Secret(wrong)], _MESSAGE)
        assert delivered.error is not None
        shown = delivered.error + "".join(capfd.readouterr())
        shown += "".join(r.getMessage() for r in caplog.records if r.name.startswith("apprise"))
        assert _TOKEN not in shown
        assert "hunter2secret" not in shown


def test_what_a_library_says_is_repeated_only_without_any_part_of_the_address() -> None:
    address = Secret("slack://AAAA1234/BBBB5678/cccc9012?token=S%C3%A9cret")
    assert without_secrets("the answer was 404", [address]) == "the answer was 404"
    for leak in ("cannot post to /bbbb5678", "token=S%C3%A9cret", "with Sécret", "AAAA1234 is wrong"):
        assert without_secrets(leak, [address]) is None


def test_a_server_that_never_answers_holds_nothing_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Secret(f"json://127.0.0.1:{silent.getsockname()[1]}/?rto=30&cto=30")
        delivered = people.send([address], _MESSAGE, longest_seconds=0.3)
    assert delivered.error == "127.0.0.1 did not answer within 0 s"


def test_an_e_mail_is_sent_over_smtp() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mailbox) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        _Mailbox.letters.clear()
        port = server.server_address[1]
        url = f"mailto://127.0.0.1:{port}?from=recoup@example.org&to=ops@example.org&smtp=127.0.0.1&mode=insecure"
        delivered = people.send([Secret(url)], _MESSAGE)
        server.shutdown()
    assert delivered.error is None
    (letter,) = _Mailbox.letters
    assert "Subject: Recoup: Shop: 1 alarm" in letter
    assert "the RPO of postgres is broken" in letter


class _Mailbox(socketserver.StreamRequestHandler):
    """Takes every letter (RFC 5321, the few commands that smtplib sends)."""

    letters: list[str] = []  # noqa: RUF012 - one mailbox

    def handle(self) -> None:
        self.wfile.write(b"220 mailbox\r\n")
        while line := self.rfile.readline().strip().upper():
            if line.startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.letters.append(b"".join(lines).decode())
            elif line == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 ok\r\n")


def test_a_start_and_its_end_are_paired_as_healthchecks_wants_it(there: Receiver) -> None:
    address = Secret(f"http://{there.address}/{_TOKEN}")
    for event in ("start", "success", "fail"):
        assert (
            ping.ping(address, event, text="postgres base", run_id="7d5cf7f9-0000-4000-8000-000000000001").error is None
        )  # type: ignore[arg-type]
    assert [urlsplit(path).path for path in there.paths] == [f"/{_TOKEN}/start", f"/{_TOKEN}", f"/{_TOKEN}/fail"]
    assert {parse_qs(urlsplit(path).query)["rid"][0] for path in there.paths} == {
        "7d5cf7f9-0000-4000-8000-000000000001"
    }
    assert {(one.method, one.body) for one in there.received} == {("POST", "postgres base")}


def test_a_push_monitor_of_uptime_kuma_hears_up_and_down_and_what_people_paste_is_cleaned(there: Receiver) -> None:
    there.answer = lambda _request: (200, '{"ok":true}')
    address = Secret(f"http://{there.address}/api/push/k3yk3yk3y?status=up&msg=OK&ping=")
    assert ping.ping(address, "start").error is None
    assert there.received == []
    assert ping.ping(address, "success", seconds=1.25).error is None
    assert ping.ping(address, "fail", text="no room & more").error is None
    assert [parse_qs(urlsplit(path).query) for path in there.paths] == [
        {"status": ["up"], "msg": ["OK"], "ping": ["1250"]},
        {"status": ["down"], "msg": ["no room & more"]},
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((404, "not found"), "127.0.0.1 answered 404"),
        ((200, "OK (not found)"), "127.0.0.1 answered 'OK (not found)'"),
        ((200, '{"ok":false,"msg":"Monitor not found"}'), "127.0.0.1 answered that it is not ok"),
        ((302, ""), "127.0.0.1 answered 302"),
    ],
)
def test_an_answer_that_only_looks_well_is_a_failure(there: Receiver, answer: tuple[int, str], expected: str) -> None:
    there.answer = lambda _request: answer
    assert ping.ping(Secret(f"http://{there.address}/{_TOKEN}"), "success").error == expected
    assert len(there.received) == 1


def test_a_ping_is_tried_again_and_its_failure_shows_no_address(there: Receiver, free_port: int) -> None:
    def second_time(_: Received) -> tuple[int, str]:
        return (200, "OK") if len(there.received) > 1 else (503, "")

    there.answer = second_time
    assert ping.ping(Secret(f"http://{there.address}/{_TOKEN}"), "success").error is None
    assert len(there.received) == 2
    error = ping.ping(Secret(f"http://127.0.0.1:{free_port}/{_TOKEN}"), "success").error
    assert error is not None
    assert error.startswith("127.0.0.1 could not be reached (")
    assert _TOKEN not in error
