"""The parts of a plan about people, rehearsals and secrets. Loaded and checked now; used by drills and incidents."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, WithJsonSchema

from recoup.plan.services import Section
from recoup.plan.template import Template
from recoup.plan.types import Duration, DurationOrZero, Many, Name, RawText, Text, Variable, When, splittable

Situation = Literal["database-corruption", "server-loss", "data-loss", "security-breach"]


class Expectation(Section):
    """What the answer must be."""

    status: int | None = Field(
        default=None, ge=100, le=599, description="The HTTP status, by default 200. Redirects are not followed."
    )
    exit_status: int | None = Field(
        default=None, ge=0, le=255, alias="exit", description="How a command must end, by default with 0."
    )
    json_body: JsonValue = Field(default=None, alias="json", description="Each of these keys must have this value.")
    contains: RawText | None = Field(default=None, description="A text that the answer must hold.")
    value: RawText | None = Field(
        default=None,
        description="A path in the JSON answer (`orders`, `data.items[0].total`) to what is compared below; of a list "
        "its length. By default the whole answer; of `sql` the first value of the first row.",
    )
    at_least: int | float | None = Field(default=None, description="The value must be this or more.")
    at_most: int | float | None = Field(default=None, description="The value must be this or less.")
    equals: bool | int | float | str | None = Field(default=None, description="The value must be exactly this.")


class FlowStep(Section):
    """One act of a user flow. Exactly one of `get`, `post`, `put`, `patch`, `delete`, `sql`, `command`."""

    get: Template | None = Field(default=None, description="The address of a GET request.")
    post: Template | None = Field(default=None, description="The address of a POST request.")
    put: Template | None = Field(default=None, description="The address of a PUT request.")
    patch: Template | None = Field(default=None, description="The address of a PATCH request.")
    delete: Template | None = Field(default=None, description="The address of a DELETE request.")
    sql: RawText | None = Field(default=None, description="One SQL query, asked of `service`.")
    command: Annotated[str, AfterValidator(splittable)] | Annotated[Many[RawText], Field(min_length=1)] | None = Field(
        default=None, description="A program and its arguments (no shell, no references), run where `service` runs."
    )
    service: Name | None = Field(
        default=None, description="The service that `sql` or `command` is for; of `sql` by default the only PostgreSQL."
    )
    database: Text | None = Field(default=None, description="Where `sql` is asked; by default the service's own.")
    headers: dict[str, Template] = Field(default={}, description="Headers to send.")
    json_body: JsonValue = Field(default=None, alias="json", description="A JSON body to send.")
    expect: Expectation = Field(default=Expectation(), description="What must come back; by default status 200.")
    save: dict[Variable, RawText] = Field(
        default={},
        description="Variables for later steps of the flow: paths in the JSON answer, or column names of the first row "
        "of `sql`. Later steps write them as `${NAME}`.",
    )
    timeout: Duration = Field(default=timedelta(seconds=10), description="How long it may take.")
    reads_data: bool = Field(
        default=False,
        description="Says that this step cannot pass on an empty database. For `sql`, and where `expect` has "
        "`at_least`, that is found out by itself.",
    )


class Flow(Section):
    """Something a user does; recovery ends when all flows pass."""

    name: Text = Field(description="What the user does, as a sentence.")
    steps: Many[FlowStep] = Field(min_length=1, description="The acts, in order.")
    within: DurationOrZero = Field(
        default=timedelta(minutes=5), description="How long it is tried again until it passes; `0s` tries once."
    )
    passes: int = Field(default=1, ge=1, le=100, description="How often in a row it must pass.")
    production: bool | None = Field(
        default=None,
        description="Whether a recovery of production does it too. By default only when it reads: all of its steps are "
        "`get` or `sql`, and none needs one of the drill's `secrets`. `sql` cannot write there.",
    )


class Drill(Section):
    """The rehearsal."""

    schedule: When | None = Field(default=None, description="When it is held.")
    situations: Many[Situation] = Field(default=(), description="What is rehearsed.")
    flows: Many[Flow] = Field(default=(), description='What "recovered" means to a user.')
    secrets: dict[Variable, Template] = Field(
        default={},
        description="Variables that the stack of a drill gets instead of production's: references to test accounts "
        "of payment and mail services. Not for passwords of databases: the data that come back know the real ones.",
    )
    expires: Duration = Field(
        default=timedelta(days=35), description="How long a drill proves the plan, when nothing of it changes."
    )
    owner: Text | None = Field(
        default=None, description="Who is given the issues that a drill finds; by default the first of `team`."
    )
    due: Duration = Field(default=timedelta(days=14), description="How long the owner has for an issue.")


class Recovery(Section):
    """The day itself."""

    two_people: bool = Field(
        default=False,
        description="Whether a step that replaces data of production needs the word of another person than the one who "
        "began the recovery.",
    )


class Member(Section):
    """A person of the team, by role."""

    name: Text = Field(description="Who it is.")
    email: Text | None = Field(default=None, description="An e-mail address.")
    phone: Text | None = Field(default=None, description="A telephone number.")
    deputy: Name | None = Field(default=None, description="The role that takes over.")


class Vendor(Section):
    """Someone outside who is called when their part fails."""

    name: Text = Field(description="Who it is.")
    contact: Text | None = Field(default=None, description="How to reach them.")
    email: Text | None = Field(default=None, description="An e-mail address.")
    phone: Text | None = Field(default=None, description="A telephone number.")
    account: Text | None = Field(default=None, description="The customer or contract number they ask for.")


def _channel(value: Template) -> Template:
    # mailto:someone@example.org, without the slashes, is what people write
    known = value.text == "status-page" or value.text.startswith("mailto:") or "://" in value.text
    if not known and not value.is_reference:
        raise ValueError("not a channel (write an Apprise address such as mailto:// or slack://, or status-page)")
    return value


Channel = Annotated[Template, AfterValidator(_channel)]


def _listening(value: str) -> str:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", value)
    if match is None or not 0 < int(match[2]) < 65_536:
        raise ValueError(f"not an address to listen at: {value!r} (write 127.0.0.1:9187)")
    return value


Listening = Annotated[
    Text, AfterValidator(_listening), WithJsonSchema({"type": "string", "examples": ["127.0.0.1:9187"]})
]


class Notice(Section):
    """Who is told, and how soon."""

    notify: Many[Name] = Field(default=(), description="Channels that are told.")
    to: Many[Name] = Field(default=(), description="Channels that get the updates.")
    within: DurationOrZero | None = Field(default=None, description="How soon, from the declaration.")
    every: Duration | None = Field(default=None, description="How often, until the end.")


class Communication(Section):
    """What is said to whom during an incident."""

    critical: Notice | None = Field(default=None, description="When a critical service is lost.")
    updates: Notice | None = Field(default=None, description="While it lasts.")
    management: Notice | None = Field(default=None, description="The management's summary.")
    breach: Notice | None = Field(default=None, description="When data may have been seen by others.")
    report: Notice | None = Field(default=None, description="The report afterwards.")


class Alarms(Section):
    """Who is told when protection fails, and how patient it is."""

    to: Many[Name] | None = Field(
        default=None, description="Channels that are told; by default those of `communication.critical`."
    )
    every: Duration = Field(default=timedelta(hours=4), description="How often it is repeated while it lasts.")
    lag: Duration = Field(default=timedelta(minutes=5), description="How far a stream may be behind.")


class RotatedSecret(Section):
    """A secret that a breach rotates, and how. Exactly one way."""

    postgres_role: Text | None = Field(default=None, description="A PostgreSQL role whose password is changed.")
    redis_user: Text | None = Field(default=None, description="A Redis user whose password is changed.")
    generate: int | None = Field(default=None, ge=16, le=4096, description="A random text of this many characters.")
    manual: Text | None = Field(default=None, description="What a person does.")
    recoup_key: Literal[True] | None = Field(default=None, description="Recoup's own backup key.")
    env: Variable | None = Field(default=None, description="The variable that holds it.")
    in_file: Template | None = Field(default=None, alias="in", description="The env file that holds the variable.")
    restart: Many[Name] = Field(default=(), description="Services that read it when they start.")
