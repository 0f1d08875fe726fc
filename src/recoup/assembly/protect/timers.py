"""What the daemon does, as systemd units: a service and a timer for each task, a service for what runs without end."""

from __future__ import annotations

import os
import re
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from recoup.assembly.protect.agenda import DRILL, VERIFY, copies_scheduled, upkeep_scheduled
from recoup.assembly.protect.task_child import arguments_of
from recoup.assembly.protect.workers import workers_of
from recoup.assembly.system import System
from recoup.backup.due import Run
from recoup.backup.run_records import WHOLE_PLAN
from recoup.kernel import clock
from recoup.kernel.errors import UsageError
from recoup.plan.on_calendar import timer_lines
from recoup.plan.schedule import Schedule
from recoup.plan.types import write_duration
from recoup.verification.grade import LIVE_GRADES

#: Clocks are changed between midnight and four o'clock, the world over.
_LAST_SKIPPED_HOUR: Final = 3
_AFTER_THE_NIGHT: Final = "*-*-* 04:10:00"
_HARDENING: Final = """\
UMask=0077
CapabilityBoundingSet=
LockPersonality=yes
NoNewPrivileges=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
"""


def units_for(system: System, *, user: str | None) -> dict[str, str]:
    """The units by their file names. They run as ``user``, or as root.

    Raise ``UsageError`` for a schedule that systemd cannot express, or a name that no unit can carry.
    """
    if user is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", user):
        raise UsageError(f"{user!r} is not the name of a user", hint="Write it as in /etc/passwd.")
    prefix = "recoup-" + (re.sub(r"[^a-z0-9]+", "-", system.plan.system.lower()).strip("-")[:40] or "system")
    units: dict[str, str] = {}
    verify = system.plan.verify
    for (service, kind), when in copies_scheduled(system).items():
        name, what = f"{prefix}-{service}-{kind}", f"copy {service} ({kind})"
        arguments = _arguments(system, service, kind)
        # A calendar may call once too often (see ``_lines``), an interval is counted from the last call
        arguments = arguments if when.every is not None else [*arguments[:4], "--due", *arguments[4:]]
        units |= _pair(system, name, what, arguments, when, user, sandboxes=verify.after_backup in LIVE_GRADES)
    for kind, when in upkeep_scheduled(system).items():
        name = f"{prefix}-{kind.replace(' ', '-')}"
        arguments = _arguments(system, WHOLE_PLAN, kind)
        closing = kind == DRILL or verify.rhythm().get(kind.removeprefix(VERIFY)) in LIVE_GRADES
        units |= _pair(system, name, f"{kind} of the whole plan", arguments, when, user, sandboxes=closing)
    if workers_of(system):
        arguments = ["daemon", "--only-workers", "-f", str(system.loaded.file)]
        units[f"{prefix}-workers.service"] = _service(
            system, "what runs without end", arguments, user, "Type=notify\nNotifyAccess=main\nRestart=always\n"
            "RestartSec=5s\nKillMode=mixed\nTimeoutStopSec=3min\nWatchdogSec=5min\n",
            install="\n[Install]\nWantedBy=multi-user.target\n",
        )  # fmt: skip
    if not units:
        raise UsageError("the plan schedules nothing", hint="Give services a schedule, such as `base: daily 02:00`.")
    return units


def _arguments(system: System, service: str, kind: str) -> list[str]:
    return arguments_of(system, Run(service=service, kind=kind, at=clock.now(), slot=None, reason="scheduled"))


def _pair(
    system: System,
    name: str,
    what: str,
    arguments: list[str],
    when: Schedule,
    user: str | None,
    *,
    sandboxes: bool = False,
) -> dict[str, str]:
    try:
        lines = _lines(when, system.plan.timezone)
    except ValueError as wrong:
        raise UsageError(
            f"{when} of {name} cannot be a systemd timer: {wrong}", hint="Use `recoup daemon`, or simpler words."
        ) from None
    persistent = ["Persistent=true"] if when.every is None else []
    jitter = round(system.plan.jitter.total_seconds()) if when.every is None else 0
    timer = [
        "[Unit]",
        f"Description=Recoup: {_escaped(what)}, {_escaped(_words(when))}",
        "",
        "[Timer]",
        *lines,
        *persistent,
        f"RandomizedDelaySec={jitter}s",
        *(["FixedRandomDelay=true"] if jitter else []),
        "AccuracySec=1s",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return {
        f"{name}.service": _service(
            system, what, arguments, user, "Type=oneshot\nTimeoutStartSec=12h\n", sandboxes=sandboxes
        ),
        f"{name}.timer": "\n".join(timer) + "\n",
    }


def _lines(when: Schedule, zone: str) -> list[str]:
    """As ``timer_lines``; with a second call for what may fall into the hour that a change of clocks skips.

    systemd leaves a time out that does not exist on a day; the second call makes up for it, and finds nothing due else.
    """
    lines = timer_lines(when, zone)
    hours = re.split(r"[,-]", when.cron.split()[1]) if when.cron is not None else []
    at_night = any(hour.isdecimal() and int(hour) <= _LAST_SKIPPED_HOUR for hour in hours)
    return [*lines, f"OnCalendar={_AFTER_THE_NIGHT} {zone}"] if at_night and _changes_clocks(zone) else lines


def _changes_clocks(zone: str) -> bool:
    year, place = clock.now().year, ZoneInfo(zone)
    months = [datetime(year + later, month, 1, tzinfo=place) for later in (0, 1) for month in range(1, 13)]
    return len({month.utcoffset() for month in months}) > 1


def _words(when: Schedule) -> str:
    return str(when) if when.every is None else f"every {write_duration(when.every)}"


def _service(
    system: System,
    what: str,
    arguments: list[str],
    user: str | None,
    kind: str,
    *,
    install: str = "",
    sandboxes: bool = False,
) -> str:
    state = os.environ.get("RECOUP_STATE")
    lines = [
        "[Unit]",
        f"Description=Recoup: {_escaped(what)}",
        "Wants=network-online.target",
        "After=network-online.target docker.service",
        "# The unit that tells you when it failed, for example: OnFailure=tell-me@%n.service",
        "",
        "[Service]",
        kind + f"ExecStart={' '.join(_quoted(one) for one in [_program(), *arguments])}",
        f"WorkingDirectory={_escaped(str(system.folder))}",
        *([f"User={user}"] if user else []),
        *([f"Environment={_quoted('RECOUP_STATE=' + state)}"] if state else []),
        f"EnvironmentFile=-{_escaped(str(system.folder / 'recoup.environment'))}",
        *([f"LoadCredential={system.plan.key.credential}:{_escaped(str(system.folder / 'recoup.key'))}"]
          if system.plan.key.credential else []),
        "Nice=10",
        "IOSchedulingPriority=7",
    ]  # fmt: skip
    hardening = _HARDENING if user else "UMask=0077\nNoNewPrivileges=yes\n"
    if sandboxes:  # a sandbox is closed by namespaces of its own, in which it covers the folders of sockets
        hardening = hardening.replace("RestrictNamespaces=yes", "RestrictNamespaces=no")
        hardening = hardening.replace("=@system-service", "=@system-service @mount")
    return "\n".join(lines) + "\n" + hardening + install


def _program() -> str:
    beside = Path(sys.executable).with_name("recoup")
    found = str(beside) if beside.exists() else shutil.which("recoup")
    return found or "/usr/local/bin/recoup"


def _escaped(text: str) -> str:
    """As a value of a unit file: ``%`` begins a specifier there."""
    return text.replace("%", "%%").replace("\n", " ")


def _quoted(text: str) -> str:
    """As one argument of ``ExecStart=`` (systemd.service(5), "Command Lines")."""
    text = _escaped(text).replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_./:=@%+,-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
