"""The steps that a runbook is made of, one function each: what it means, what one would type, what is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from recoup.recovery.step import Act, Consent, Phase, Step

#: A database is as large as it is: its bytes are moved within a day.
_LONG: Final = 24 * 3600.0
#: Checks, containers, questions.
_SHORT: Final = 600.0


def hold(situation: str) -> Step:
    """Nothing expires while people look for what to go back to."""
    return Step(
        id="hold",
        title="keep every copy: nothing expires until this run is closed",
        meaning="Retention goes on otherwise, and could remove the very copy that turns out to be the good one.",
        act=Act.HOLD,
        phase=Phase.RECOVER,
        commands=(f"recoup hold incident --reason {situation}",),
        check="the hold is in every repository that answers",
        seconds=_SHORT,
        attempts=3,
    )


def confirm(situation: str) -> Step:
    """Look before anything is stopped or replaced."""
    return Step(
        id="confirm",
        title="look at the symptoms, and name what is hurt",
        meaning=f"It must be {situation}, and not a full disk or a stopped container: those need no restore.",
        act=Act.CONFIRM,
        phase=Phase.RECOVER,
        commands=("recoup diagnose", "docker compose ps", "docker compose logs --tail 50"),
        check="what is seen fits the situation that was declared",
        seconds=_SHORT,
    )


def choose(service: str, what: str) -> Step:
    """Prove the recovery point before it replaces anything."""
    return Step(
        id=f"choose-{service}",
        title=f"prove what {service} goes back to, the newest first: {what}",
        meaning="A copy can carry the damage that one wants to leave behind. It is looked at before it replaces "
        "anything; when it is not good, the next older one is.",
        act=Act.CHOOSE,
        phase=Phase.RECOVER,
        subject=service,
        commands=(f"recoup list {service}", f"recoup verify latest --service {service} --grade sound"),
        check="the chosen recovery point was proven, and when",
        seconds=_LONG,
    )


def machine() -> Step:
    """A blank machine lacks things; which, is said before anything is done on it."""
    return Step(
        id="machine",
        title="look whether this machine has what the stack needs",
        meaning="Docker with Compose, room on the disk, the ports that the stack publishes, a clock that is right.",
        act=Act.MACHINE,
        phase=Phase.RECOVER,
        commands=("docker version", "docker compose version", "df -h", "ss -ltn"),
        check="nothing is missing",
        seconds=1800.0,
    )


def files(name: str, phase: Phase) -> Step:
    """Bring a file set back."""
    return Step(
        id=f"files-{name}",
        title=f"bring back the files of {name}",
        meaning="Configuration, secrets and whatever else is kept as files is needed before anything can start.",
        act=Act.FILES,
        phase=phase,
        subject=name,
        commands=(f"recoup restore latest --service {name}",),
        check="every file of the copy is in its place",
        differs="the folder in which the stack lives; the sandbox has one of its own",
        seconds=_LONG,
        attempts=3,
    )


def source(origin: str) -> Step:
    """Get the stack's source at the recorded commit."""
    return Step(
        id="source",
        title="get the stack's source at the commit that was recorded",
        meaning="What was built from it must be built again from the same; when the forge is down, a kept bundle does.",
        act=Act.SOURCE,
        phase=Phase.RECOVER,
        commands=(f"git clone {origin} .", "git checkout COMMIT"),
        check="the recorded commit is checked out",
        seconds=3600.0,
        attempts=3,
    )


def images(services: Sequence[str]) -> Step:
    """Get the images by their digests."""
    return Step(
        id="images",
        title=f"get the images of {', '.join(services)}",
        meaning="The same image as before, by its digest: a tag may mean something else today.",
        act=Act.IMAGES,
        phase=Phase.RECOVER,
        commands=("docker pull NAME@DIGEST",),
        check="every image is on this machine, or can be built here",
        seconds=7200.0,
        attempts=3,
    )


def stack(phase: Phase) -> Step:
    """Make containers, networks, volumes; start nothing."""
    return Step(
        id="stack",
        title="make the stack from its configuration",
        meaning="Containers, networks and volumes are created as the Compose file says; nothing is started.",
        act=Act.STACK,
        phase=phase,
        commands=("docker compose create",),
        check="every service has its container",
        differs="getting the images from their registry, unless they are not here",
        seconds=1800.0,
        attempts=2,
    )


def stop(services: Sequence[str]) -> Step:
    """Nothing may write while data are replaced."""
    return Step(
        id="stop",
        title=f"stop {', '.join(services)}",
        meaning="Nothing may write to data that are about to be replaced. From here on users see an outage.",
        act=Act.STOP,
        phase=Phase.RECOVER,
        commands=(f"docker compose stop {' '.join(services)}",),
        check="none of them runs",
        consent=Consent.YES,
        seconds=_SHORT,
        attempts=2,
    )


def restore(service: str, what: str, phase: Phase = Phase.RECOVER) -> Step:
    """Unpack beside what is there; nothing is replaced yet."""
    return Step(
        id=f"restore-{service}",
        title=f"bring back the data of {service} {what}".rstrip(),
        meaning="The copy is unpacked beside the data that are there, and what was logged since is replayed. Nothing "
        "is replaced yet.",
        act=Act.RESTORE,
        phase=phase,
        subject=service,
        commands=("openssl enc -d … | zstd -d | tar -x …",),
        check="every byte matched its digest",
        seconds=_LONG,
        attempts=2,
    )


def swap(service: str, replaces: str, phase: Phase = Phase.RECOVER) -> Step:
    """Set the old aside and the new in place: the one step that replaces production."""
    return Step(
        id=f"swap-{service}",
        title=f"set the old data of {service} aside and the new ones in place",
        meaning="What is replaced is kept: until the run is closed `recoup recover --rollback` puts it back.",
        act=Act.SWAP,
        phase=phase,
        subject=service,
        commands=("mv DATA DATA.aside", "mv DATA.restored DATA"),
        check="the new data are in place, the old ones beside",
        consent=Consent.TYPED if replaces else Consent.NONE,
        replaces=replaces,
        seconds=_LONG,
    )


def place(service: str) -> Step:
    """A server that somebody else runs is not replaced by Recoup."""
    return Step(
        id=f"place-{service}",
        title=f"start {service} on the folder that was restored",
        meaning="Recoup does not run this server: stop it, keep its old folder, let it use the restored one, start it. "
        "Say done when it answers at the address in the plan.",
        act=Act.ASK,
        phase=Phase.RECOVER,
        subject=service,
    )


def start(service: str, compose: str, phase: Phase = Phase.RECOVER) -> Step:
    """Start a database and look at its data before any application does."""
    return Step(
        id=f"start-{service}",
        title=f"start {service} and look at its data",
        meaning="It must be the cluster that was copied, and hold what was copied, before an application sees it.",
        act=Act.START,
        phase=phase,
        subject=service,
        commands=(f"docker compose up -d --wait {compose}",),
        check="it answers, is the one that was copied, and holds what was copied",
        seconds=3600.0,
    )


def application(name: str, compose: str) -> Step:
    """Start an application."""
    return Step(
        id=f"application-{name}",
        title=f"start {name}",
        meaning="An application starts when all that it needs is back and was looked at.",
        act=Act.APPLICATION,
        phase=Phase.RECOVER,
        subject=name,
        commands=(f"docker compose up -d --wait {compose}",),
        check="it runs and is healthy",
        seconds=_SHORT,
        attempts=2,
    )


def health(name: str) -> Step:
    """Ask a service how it is."""
    return Step(
        id=f"health-{name}",
        title=f"ask {name} how it is",
        meaning="The address that the plan names for its health must answer well.",
        act=Act.HEALTH,
        phase=Phase.PROVE,
        subject=name,
        commands=("curl -fsS ADDRESS",),
        check="it answers with a good status",
        seconds=_SHORT,
    )


def checks(name: str) -> Step:
    """Ask the plan's questions."""
    return Step(
        id=f"checks-{name}",
        title=f"ask the plan's questions of {name}",
        meaning="Data that came back must give the right answers.",
        act=Act.CHECKS,
        phase=Phase.PROVE,
        subject=name,
        check="every answer is the one that the plan expects",
        seconds=3600.0,
    )


def flows(names: Sequence[str]) -> Step:
    """Do what users do."""
    return Step(
        id="flows",
        title=f"do what users do: {', '.join(names)}",
        meaning="Recovery ends when users can work again, not when a program has started.",
        act=Act.FLOWS,
        phase=Phase.PROVE,
        check="every flow ends well",
        seconds=_SHORT,
    )


def protect(service: str, engine: str) -> Step:
    """What was restored has no copy of its own yet."""
    kind = {"postgres": "base", "redis": "rdb"}.get(engine, "")
    return Step(
        id=f"protect-{service}",
        title=f"take a new copy of {service}",
        meaning="It goes on from here on its own: until there is a new copy, nothing of today could be brought back.",
        act=Act.PROTECT,
        phase=Phase.AFTER,
        subject=service,
        commands=(f"recoup backup {service} --kind {kind}",),
        check="the copy is stored, was read back and matched",
        seconds=_LONG,
        attempts=2,
    )


def checklist() -> Step:
    """Is everything as before?"""
    return Step(
        id="checklist",
        title="go through the list of what must be well again",
        meaning="All services, integrity, flows, monitoring, backups, security; only a person can confirm the rest.",
        act=Act.CHECKLIST,
        phase=Phase.AFTER,
        commands=("recoup recover --close",),
        check="every point is well, or somebody was asked",
        seconds=3600.0,
    )


OTHERS: Final = Step(
    id="others",
    title="start the other services of the stack",
    meaning="Proxies, workers and jobs that the plan does not name belong to what users see.",
    act=Act.APPLICATION,
    phase=Phase.RECOVER,
    commands=("docker compose up -d --wait",),
    check="they run and are healthy",
    seconds=_SHORT,
    attempts=2,
)
NEW_SERVER: Final = Step(
    id="new-server",
    title="get a new server with Docker and Recoup on it, the backup key and the repository's address",
    meaning="Nothing of the old server is left. Say done when you know which server it would be and have the key.",
    act=Act.ASK,
    phase=Phase.RECOVER,
    differs="ordering and installing a server; the drill uses this one",
)
STOP_WRITING: Final = Step(
    id="stop-writing",
    title="stop the applications, so that nothing more is written to the damaged database",
    meaning="Say done when you know how this is done in production. Do not do it.",
    act=Act.ASK,
    phase=Phase.RECOVER,
    differs="stopping production",
)
LET_USERS_IN: Final = Step(
    id="let-users-in",
    title="point the users to the new server: DNS, load balancer, certificates",
    meaning="Users come back when their addresses lead here. Say done when they do.",
    act=Act.ASK,
    phase=Phase.PROVE,
)
KNOW_HOW_TO_LET_USERS_IN: Final = replace(
    LET_USERS_IN,
    meaning="Users come back when their addresses lead there. Say done when you know who changes what. Change nothing.",
    differs="the change of the addresses, and the time that it takes to be seen everywhere",
)
