"""Recoup itself as a wheel, made of what runs here: for a recovery kit, and for a machine that is reached by SSH.

A machine in trouble should get the very program that made its copies, and not whatever an index offers that day. What
it depends on still comes from an index, or from a wheel house.

Format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import recoup

_NAME: Final = "recoup"
#: The oldest instant that a zip file can hold: the same program makes the same bytes.
_WHEN: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel file, whole."""

    name: str
    data: bytes


def own_wheel() -> Wheel | None:
    """The wheel of this installation; None for a source tree that was never installed: it has no description."""
    try:
        installed = distribution(_NAME)
    except PackageNotFoundError:
        return None
    metadata = installed.read_text("METADATA")
    if metadata is None:
        return None
    info = f"{_NAME}-{installed.version}.dist-info"
    parts = dict(sorted(_package()))
    parts[f"{info}/METADATA"] = metadata.encode()
    parts[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: recoup\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    parts[f"{info}/entry_points.txt"] = _entry_points(installed)
    record = f"{info}/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in parts.items()]
    parts[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            entry = zipfile.ZipInfo(name, _WHEN)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return Wheel(name=f"{_NAME}-{installed.version}-py3-none-any.whl", data=made.getvalue())


def _package() -> list[tuple[str, bytes]]:
    top = Path(recoup.__file__).parent
    return [
        (f"{_NAME}/{path.relative_to(top).as_posix()}", path.read_bytes())
        for path in top.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.relative_to(top).parts
    ]


def _entry_points(installed: Distribution) -> bytes:
    scripts = [one for one in installed.entry_points if one.group == "console_scripts"]
    return ("[console_scripts]\n" + "".join(f"{one.name} = {one.value}\n" for one in scripts)).encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
