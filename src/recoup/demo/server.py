"""What the demo's servers have in common: one process, one folder, one log, and an end that leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from recoup.demo.host import (
    Ports,
    guard_server,
    new_folder,
    ordinary_user,
    release_server,
    remove_folder,
    wait_until,
)
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Child, Command, spawn

_START_LIMIT_SECONDS = 60.0
_ATTEMPTS = 4  # a port may be taken between our look and the server's


class Server(ABC):
    """What all have in common: one process, one folder, one log, ports that stay the same over a restart."""

    def __init__(self, name: str, *, ports: int, twin: int = 0) -> None:
        self.owner = ordinary_user()
        self._name = name
        self._port_count, self._twin = ports, twin
        self._ports: Ports | None = None
        self._root: Path | None = None
        self._child: Child | None = None
        self._log: IO[bytes] | None = None
        self._prepared = False

    # What each server says about itself.

    @abstractmethod
    def _prepare(self) -> None:
        """Make the folders, once."""

    @abstractmethod
    def _command(self) -> Command: ...

    @abstractmethod
    def _ready(self) -> bool:
        """Whether it serves. Asked again and again, so it must be cheap."""

    _polite: signal.Signals = signal.SIGTERM
    _rude: signal.Signals | None = None  #: sent when the polite one has not helped, before SIGKILL
    _last: signal.Signals = signal.SIGKILL  #: sent when the data are not needed any more

    # What is the same for all.

    @property
    def root(self) -> Path:
        """The temporary folder that holds all of this server. Gone after ``close``."""
        if self._root is None:
            raise EngineError(f"{self._name} is not open", hint="Use it as a context manager.")
        return self._root

    @property
    def ports(self) -> list[int]:
        """The TCP ports of the loopback this server listens on."""
        if self._ports is None:
            raise EngineError(f"{self._name} is not open", hint="Use it as a context manager.")
        return self._ports.numbers

    @property
    def port(self) -> int:
        """The port clients use."""
        return self.ports[0]

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._child.pid if self._child is not None and self._child.alive() else None

    def log_tail(self, size_bytes: int = 4000) -> str:
        """The end of what the server said."""
        if self._log is None:
            return ""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - size_bytes))
        return self._log.read().decode(errors="replace").strip()

    def start(self) -> None:
        """Start, and wait until it serves. Raise ``EngineError`` with the log's end when it does not."""
        if self._child is not None:
            if self._child.alive():
                return
            self._forget()
        for attempt in range(1, _ATTEMPTS + 1):
            if self._ports is None:
                self._ports = Ports(self._port_count, twin=self._twin)
            if not self._prepared:
                self._prepare()
                self._prepared = True
            if self._try_start():
                return
            said = self.log_tail()
            if "ddress already in use" not in said or attempt == _ATTEMPTS:
                raise EngineError(f"{self._name} did not start on port {self.port}; its log ends: {said}")
            assert self._log is not None
            self._log.truncate(0)
            self._ports.release()
            self._ports = None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _try_start(self) -> bool:
        if self._log is None:
            # Held open for the life of the server: its own end, and that of the reader of its tail.
            self._log = open(self.root / "log.txt", "a+b")  # noqa: SIM115
        child = self._child = spawn(self._command(), log=self._log)
        guard_server(child, self._last)
        serves = False

        def settled() -> bool:
            nonlocal serves
            serves = child.alive() and self._ready()
            return serves or not child.alive()

        wait_until(settled, limit_seconds=_START_LIMIT_SECONDS)
        if serves:
            return True
        self._end(signal.SIGKILL)
        return False

    def stop(self, *, grace_seconds: float = 20.0) -> None:
        """Stop as an administrator would, keeping data and address. After ``grace_seconds`` it is killed."""
        self._end(self._polite, *([self._rude] if self._rude else []), signal.SIGKILL, patience=grace_seconds)

    def kill(self) -> None:
        """End at once with SIGKILL, as a power cut would; the data stay as they are."""
        self._end(signal.SIGKILL)

    def _end(self, *signals: signal.Signals, patience: float = 20.0) -> None:
        child = self._child
        if child is None:
            return
        for number in signals:
            if not child.alive():
                break
            child.signal(number)
            wait_until(lambda: not child.alive(), limit_seconds=patience)
        child.wait(patience)
        self._forget()

    def _forget(self) -> None:
        if self._child is not None:
            release_server(self._child)
            self._child = None

    def close(self) -> None:
        """Stop and remove everything. Harmless when repeated."""
        try:
            self._end(self._last, signal.SIGKILL, patience=10)
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None
            if self._ports is not None:
                self._ports.release()
                self._ports = None
            if self._root is not None:
                remove_folder(self._root)
                self._root = None
            self._prepared = False

    def __enter__(self) -> Self:
        try:
            self._root = new_folder(self._name.lower(), self.owner)
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _own_folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        self._give(folder)
        return folder

    def _own_file(self, name: str, text: str) -> Path:
        path = self.root / name
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
            handle.write(text)
        self._give(path)
        return path

    def _give(self, path: Path) -> None:
        if self.owner is not None:
            os.chown(path, *self.owner, follow_symlinks=False)
