"""Looks up what the references of a plan stand for, at the moment they are used."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from recoup.kernel.errors import EngineError, UsageError, WrongKeyError
from recoup.kernel.files import expanded
from recoup.kernel.process import Command, run
from recoup.kernel.secret import Secret
from recoup.plan.dotenv import parse_env
from recoup.plan.model import Key
from recoup.plan.template import Template

_LONGEST_KEY_BYTES = 1000  #: openssl's -pass file: reads at most 1023
_COMMAND_SECONDS = 60.0
_COMMAND_HINT = "Run it by hand; the first line it writes to stdout is the key."


class Resolver:
    """Gives the values of references: from the process environment, then from env files, the last file first.

    Env files are read when the first value is asked for that the environment does not have. Relative paths are taken
    from ``folder``, the plan's own.
    """

    def __init__(
        self, *, folder: Path, env_files: Sequence[Template] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._env_files = tuple(env_files)
        self._environment = dict(os.environ) if environment is None else dict(environment)
        self._from_files: dict[str, str] | None = None

    def lookup(self, name: str) -> str | None:
        """The value of a variable, or None. Raise ``UsageError`` when an env file cannot be read."""
        if name in self._environment:
            return self._environment[name]
        return self._files().get(name)

    def resolve(self, template: Template) -> Secret:
        """What the template stands for. Raise ``UsageError`` that names the variable which has no value.

        A variable in the user or password of a URL holds them plain; here they are percent-encoded.
        """
        try:
            return Secret(template.expand_url(self.lookup))
        except KeyError as missing:
            raise UsageError(
                f"the variable {missing.args[0]} has no value (needed for {template})", hint=self._where_to_set()
            ) from None

    def text(self, template: Template) -> str:
        """As ``resolve``, for values that are no secret: a host name, a database, a folder."""
        return self.resolve(template).reveal()

    def path(self, template: Template) -> Path:
        """As ``text``, for a path: relative ones are taken from the plan's folder, and ``~`` is the home folder."""
        return self.folder / expanded(self.text(template))

    def _where_to_set(self) -> str:
        files = ", ".join(str(template) for template in self._env_files)
        return "Set it in the environment" + (
            f" or in {files}." if files else ", or name a file under compose.env_files."
        )

    def _files(self) -> dict[str, str]:
        if self._from_files is None:
            values: dict[str, str] = {}
            for template in self._env_files:
                values.update(self._read(template, {**values, **self._environment}))
            self._from_files = values
        return self._from_files

    def _read(self, template: Template, known: Mapping[str, str]) -> dict[str, str]:
        try:
            path = self.folder / expanded(template.expand(self._environment.get))
            return parse_env(path.read_bytes().decode(), known)
        except KeyError as missing:
            raise UsageError(
                f"the variable {missing.args[0]} has no value (needed for the env file {template})",
                hint="The name of an env file can only use variables of the process environment.",
            ) from None
        except OSError as failure:
            raise UsageError(
                f"cannot read the env file {path}: {failure.strerror}",
                hint="Create it, correct compose.env_files in the plan, or run as a user who may read it.",
            ) from failure
        except UnicodeDecodeError:
            raise UsageError(f"the env file {path} is not UTF-8", hint="Save it as UTF-8 text.") from None
        except ValueError as wrong:
            raise UsageError(f"cannot read the env file {path}: {wrong}", hint="Correct that line.") from None

    def key(self, key: Key) -> Secret:
        """The text of the backup key. Raise ``WrongKeyError`` when it is missing, empty or unreadable."""
        if key.env is not None:
            found = self.lookup(key.env)
            if not found:
                raise WrongKeyError(f"the variable {key.env} (the plan's key) has no value", hint=self._where_to_set())
            return _first_line(found, f"the variable {key.env}")
        if key.file is not None:
            return self._key_from_file(
                self.path(key.file), "Correct key.file in the plan, or restore the key from where you keep it."
            )
        if key.credential is not None:
            folder = self._environment.get("CREDENTIALS_DIRECTORY")
            if not folder:
                raise WrongKeyError(
                    f"the credential {key.credential} (the plan's key) is not there: CREDENTIALS_DIRECTORY is not set",
                    hint="Run inside a systemd unit with LoadCredential=, or use key: {file: …} for runs by hand.",
                )
            return self._key_from_file(
                Path(folder) / key.credential, "Add LoadCredential= or LoadCredentialEncrypted= to the unit."
            )
        assert key.command is not None, "a plan's key names one source"
        return self._key_from_command(key.command)

    def _key_from_file(self, path: Path, hint: str) -> Secret:
        return read_key_file(path, hint)

    def _key_from_command(self, command: str | tuple[str, ...]) -> Secret:
        argv = shlex.split(command) if isinstance(command, str) else list(command)
        try:
            completed = run(Command(argv=argv, folder=self.folder, timeout_seconds=_COMMAND_SECONDS), expect=None)
        except EngineError as failure:
            raise WrongKeyError(f"the key's command failed: {failure.message}", hint=_COMMAND_HINT) from failure
        if completed.exit_status != 0:
            # what it wrote to stdout may be a key: only stderr is repeated
            said = completed.stderr.strip() or "it wrote nothing to stderr"
            raise WrongKeyError(
                f"the key's command {argv[0]} ended with status {completed.exit_status}: {said}", hint=_COMMAND_HINT
            )
        return _first_line(_decoded(completed.stdout, f"what {argv[0]} wrote"), f"what {argv[0]} wrote")


def read_key_file(path: Path, hint: str) -> Secret:
    """The key in a file. ``hint`` is for a file that cannot be read. Raise ``WrongKeyError``."""
    try:
        with path.open("rb") as handle:
            content = handle.read(_LONGEST_KEY_BYTES + 1)
    except OSError as failure:
        raise WrongKeyError(f"cannot read the key file {path}: {failure.strerror}", hint=hint) from failure
    return _first_line(_decoded(content, f"the key file {path}"), f"the key file {path}")


def _decoded(content: bytes, what: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise WrongKeyError(
            f"{what} is not text", hint="A key is one line of text; see `recoup key generate`."
        ) from None


def _first_line(content: str, what: str) -> Secret:
    """The key as ``openssl -pass file:`` reads it: the first line without its end."""
    line = content.split("\n", 1)[0]
    if not line:
        hint = "Bring yours back from the recovery kit: another opens no copy. `recoup key generate` makes a first one."
        raise WrongKeyError(f"{what} holds no key", hint=hint)
    if line.endswith("\r"):
        # openssl would take the carriage return as part of the key; guessing which one was meant loses data
        raise WrongKeyError(f"{what} ends its line the Windows way", hint="Save the key with Unix line ends.")
    if len(line.encode()) > _LONGEST_KEY_BYTES or "\0" in line:
        raise WrongKeyError(f"{what} is not a key", hint="A key is one line of text; see `recoup key generate`.")
    return Secret(line)
