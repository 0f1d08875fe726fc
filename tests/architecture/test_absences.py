"""What the program does not do anywhere, or in one place only. Looked for in the syntax trees of all its modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import sources
from tests.architecture.sources import name_of, nodes, place, text_of, tracked, trees

#: Modules that may import what only one should: ``(module of the program, imported module)``, with the reason.
_MAY_IMPORT = {
    ("kernel/process.py", "subprocess"): "it is the place",
    ("kernel/clock.py", "time"): "it is the place",
    ("demo/janitor.py", "time"): "a process of its own that imports nothing of ours; time.sleep in a bounded loop",
}
#: Modules that may become or start a program, with the reason.
_MAY_START = {
    "kernel/process.py": "it is the place",
    "engines/sandbox_inside.py": "a process of its own that imports nothing of ours, and becomes the program",
}
_PROCESS_CALLS = re.compile(r"os\.(fork|forkpty|exec[lv]\w*|spawn\w+|posix_spawnp?|system|popen)")
_CLOCK_CALLS = re.compile(
    r"(datetime\.)?(datetime|date)\.(now|utcnow|today)|time\.(time|time_ns|gmtime|localtime|ctime|sleep)"
)


def test_only_the_kernel_starts_processes_and_reads_the_clock() -> None:
    wrong = []
    for name, node in nodes(ast.Import, ast.ImportFrom):
        assert isinstance(node, ast.Import | ast.ImportFrom)
        modules = [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for module in modules:
            top = module.partition(".")[0]
            if top in {"subprocess", "multiprocessing", "pty", "time", "sched"} and (name, top) not in _MAY_IMPORT:
                wrong.append(f"{place(name, node)} imports {module}")
    for name, node in nodes(ast.Attribute):
        said = ast.unparse(node)
        if name not in _MAY_START and _PROCESS_CALLS.fullmatch(said):
            wrong.append(f"{place(name, node)} uses {said}")
        if (name, "time") not in _MAY_IMPORT and _CLOCK_CALLS.fullmatch(said):
            wrong.append(f"{place(name, node)} uses {said}")
    assert not wrong


def test_the_exceptions_are_needed() -> None:
    used = set()
    for name, node in nodes(ast.Import):
        assert isinstance(node, ast.Import)
        used |= {(name, one.name) for one in node.names}
    assert set(_MAY_IMPORT) <= used, "an exception that nothing uses: take it out"


def test_there_is_no_shell() -> None:
    wrong = [place(name, node.value) for name, node in nodes(ast.keyword) if isinstance(node, ast.keyword)
             and node.arg == "shell"]  # fmt: skip
    assert not wrong


def test_only_the_command_line_prints() -> None:
    wrong = []
    for name, node in nodes(ast.Call, ast.Attribute):
        if name.startswith("cli/"):
            continue
        streams = {"sys.stdout", "sys.stderr"} | ({"sys.stdin"} if name != "demo/janitor.py" else set())  # its orders
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "input", "breakpoint"}:
            wrong.append(place(name, node))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in streams:
            wrong.append(place(name, node))
    assert not wrong


def test_no_handler_takes_every_error_and_goes_on() -> None:
    wrong = []
    for name, node in nodes(ast.ExceptHandler):
        assert isinstance(node, ast.ExceptHandler)
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(one is None or ast.unparse(one) in {"Exception", "BaseException"} for one in caught)
        # What cleans up after any error and raises it again hides none.
        raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        if broad and not raises and name != "cli/main.py":  # the outermost edge: what arrives there is called a bug
            wrong.append(place(name, node))
    assert not wrong


def test_only_the_layout_spells_the_keys_of_a_repository() -> None:
    wrong = []
    for name, tree in trees():
        described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            spelt = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described
            if spelt and name != "repository/layout.py" and _is_a_key(str(node.value)):
                wrong.append(f"{place(name, node)}: {node.value!r}")
    assert not wrong


def _is_a_key(text: str) -> bool:
    beginning, end = text.startswith(("manifests/", "artefacts/")), text.endswith((".zst.enc", ".index.enc"))
    return beginning or end or text == "recoup-repository.json"


def test_nothing_is_left_to_do() -> None:
    left = re.compile(rf"\b({'|'.join(('TO' + 'DO', 'FIX' + 'ME', 'X' * 3))})\b")  # not spelt: this file is read too
    wrong = [
        f"{name_of(path)}:{number}"
        for path in tracked()
        if path.suffix in {".py", ".md", ".sh", ".toml", ".yml"} and (text := text_of(path)) is not None
        for number, line in enumerate(text.splitlines(), 1)
        if left.search(line)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a file outside of the repository", r"\.\./shared\b|(?<![\w.])/work/"),
        ("a package index of somebody's own", r"--(extra-)?index-url|index-url\s*=|registry\s*=\s*[\"']?https?://"),
        ("a host of a private network", r"https?://[\w.-]+\.(corp|lan|local|intranet|svc)\b"),
    ],
)
def test_no_file_refers_to(what: str, pattern: str) -> None:
    wrong = []
    for path in tracked():
        text = text_of(path)
        if text is None or path.name == Path(__file__).name:
            continue
        found = re.search(pattern, text)
        if found:
            wrong.append(f"{name_of(path)}: {found[0]}")
    assert not wrong, f"a reference to {what}"


@pytest.mark.parametrize(
    ("test", "planted"),
    [
        (test_only_the_kernel_starts_processes_and_reads_the_clock, "import subprocess"),
        (test_only_the_kernel_starts_processes_and_reads_the_clock, "from time import sleep"),
        (test_only_the_kernel_starts_processes_and_reads_the_clock, "os.execvp('sh', [])"),
        (test_only_the_kernel_starts_processes_and_reads_the_clock, "datetime.now(UTC)"),
        (test_there_is_no_shell, "run('ls', shell=True)"),
        (test_only_the_command_line_prints, "print('done')"),
        (test_only_the_command_line_prints, "sys.stderr.write('done')"),
        (test_no_handler_takes_every_error_and_goes_on, "try: f()\nexcept Exception: pass"),
        (test_no_handler_takes_every_error_and_goes_on, "try: f()\nexcept: pass"),
        (test_no_handler_takes_every_error_and_goes_on, "try: f()\nexcept (OSError, BaseException): pass"),
        (test_only_the_layout_spells_the_keys_of_a_repository, "key = f'manifests/{identifier}.json'"),
        (test_only_the_layout_spells_the_keys_of_a_repository, "key = stream + '.index.enc'"),
    ],
)
def test_what_is_planted_is_found(test: Callable[[], None], planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = (("backup/planted.py", ast.parse(planted)),)
    monkeypatch.setattr(sources, "trees", lambda: found)
    monkeypatch.setitem(test.__globals__, "trees", lambda: found)
    with pytest.raises(AssertionError, match="planted"):
        test()
