"""A TCP cable that can be cut: from a port of this machine, or of a pretend one, to a server on the loopback."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.testhost.machine import Machine

_CLONE_NEWNET = 0x40000000
_PIECE = 1 << 16


def in_network_of(machine: Machine, make: Callable[[], socket.socket]) -> socket.socket:
    """A socket that was made in the network of a pretend machine, and is held by this process."""
    made: list[socket.socket] = []

    def work() -> None:  # a thread of its own: the network is that of a thread
        with open(f"/proc/{machine.pid}/ns/net", "rb") as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), _CLONE_NEWNET):
                return
        made.append(make())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert made, f"no socket on {machine.name}: {os.strerror(ctypes.get_errno())}"
    return made[0]


def listen_on(machine: Machine, port: int) -> socket.socket:
    """A listening socket on the loopback of a pretend machine, held by this process: the machine sees a server."""
    return in_network_of(machine, lambda: socket.create_server(("127.0.0.1", port)))


class Cable:
    """Passes connections on to ``to`` of the loopback. While it is cut, there is nobody at the other end.

    ``on_answer`` sees what the server sends before that is passed on, and may take its time.
    """

    def __init__(
        self, to: int, *, listener: socket.socket | None = None, on_answer: Callable[[bytes], None] = lambda _: None
    ) -> None:
        self._to = to
        self._on_answer = on_answer
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = False
        self._thread = threading.Thread(target=self._accept, name="cable", daemon=True)

    @property
    def port(self) -> int:
        """The port of this end."""
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """End all connections, and refuse new ones until ``mend``."""
        with self._lock:
            self._cut = True
            self._end_all()

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._cut = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                if self._cut:
                    near.close()
                    far.close()
                    continue
                self._open |= {near, far}
            for source, sink, answers in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pass_on, args=(source, sink, answers), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                if answers:
                    self._on_answer(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            if sink.fileno() == -1 or source not in self._open:
                return
            # The half that ends last closes both.
            self._open.discard(source)
            if sink not in self._open:
                source.close()
                sink.close()

    def _end_all(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
