"""The house's plan: a room imports only from rooms below it, and each file is about one thing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "collector"

# Ground floor first. Rooms on one floor do not import each other.
FLOORS: list[set[str]] = [
    {"errors", "clock", "heap", "notify", "declaration", "__init__"},
    {"otlp", "security"},
    {"wal", "ring"},
    {"store"},
    {"query"},
    {"receivers"},
    {"exporters"},
    {"api"},
    {"testing", "conformance"},
    {"telemetry", "quantities"},
    {"config"},
    {"exposure"},
    {"settings", "memory"},
    {"tenant", "reload"},
    {"tenants"},
    {"moving", "directory"},
    {"preflight", "listeners", "serving"},
    {"daemon"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
# testing/ makes a server of everything up to the api; the command line prints logs with telemetry
BANNED_NAMES = ("utils", "helpers", "manager", "common", "misc")
LINES_MAX = 700


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imports_of(text: str) -> set[str]:
    """The collector modules that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            name = node.module.removeprefix("cython.cimports.")
            if name == "collector":
                found |= {f"collector.{alias.name}" for alias in node.names}
            elif name.startswith("collector."):
                found.add(name)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("collector.")}
    return found


def upward(room: str, imported: set[str]) -> list[str]:
    """The imports that a module in this room must not make."""
    wrong = []
    for name in sorted(imported):
        target = name.split(".")[1]
        if target == "__version__":
            target = "__init__"
        if target != room and FLOOR[target] >= FLOOR[room]:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    assert upward(room_of(path), imports_of(path.read_text())) == []


def test_the_conformance_kit_is_a_black_box() -> None:
    """It knows what a signal is, the time and the causes of failure, and nothing of what it checks."""
    known = {"collector.conformance", "collector.otlp.signals", "collector.clock", "collector.errors"}
    for path in (PACKAGE / "conformance").glob("*.py"):
        imported = {
            ".".join(name.split(".")[: 2 if "conformance" in name else None]) for name in imports_of(path.read_text())
        }
        assert imported <= known, path.name


def test_an_upward_import_is_caught() -> None:
    """The canary of the test above."""
    assert upward("ring", imports_of("from collector.store import Store\nimport collector.otlp.block")) == [
        "collector.store"
    ]
    assert upward("wal", imports_of("from collector.ring.ring import Ring")) == ["collector.ring.ring"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_tidy(path: Path) -> None:
    text = path.read_text()
    assert not {path.stem, *path.relative_to(PACKAGE).parts} & set(BANNED_NAMES)
    assert len(text.splitlines()) <= LINES_MAX, "a file of one subject is shorter"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
    assert text.count("\n") == 0 or ast.get_docstring(ast.parse(text)), "a module says what it is"


CLOCK = {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "datetime.now"}
FILE_CALLS = {"open", "os.open", "os.write", "os.pwrite", "os.fsync", "os.rename", "os.unlink", "io.open"}
FILE_METHODS = {"read_text", "read_bytes", "write_text", "write_bytes"}
OPENS_FILES = {
    "wal/files.py": "the seam itself",
    "testing/files.py": "the seam's faulty double",
    "settings.py": "reads configuration files",
    "security/watched.py": "reads certificates, tokens and passwords that change",
    "cli/send.py": "gives gRPC a client's certificate",
    "heap.py": "reads /proc/self/statm",
    "memory.py": "reads /proc and what control groups allow",
}


def calls_of(text: str) -> set[str]:
    """The names that a module calls: `f`, `a.f`, and `.f` for a method of anything."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            found.add(node.func.id)
        elif isinstance(node.func, ast.Attribute):
            found.add(f".{node.func.attr}")
            if isinstance(node.func.value, ast.Name):
                found.add(f"{node.func.value.id}.{node.func.attr}")
    return found


def past_the_seams(inside: str, text: str) -> set[str]:
    """The calls of a module that read the time or touch files, and should not."""
    calls = calls_of(text)
    wrong = set() if inside == "clock.py" else calls & CLOCK
    if inside not in OPENS_FILES:
        wrong |= calls & (FILE_CALLS | {f".{name}" for name in FILE_METHODS})
    return wrong


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_time_and_files_are_read_at_their_seams(path: Path) -> None:
    assert past_the_seams(str(path.relative_to(PACKAGE)), path.read_text()) == set()


def test_a_call_past_the_seams_is_caught() -> None:
    """The canary of the test above."""
    text = "import time, os\ntime.time()\nopen('x')\nPath('x').read_text()\nself.files.open('x')\n"
    assert past_the_seams("ring/ring.py", text) == {"time.time", "open", ".read_text"}
    assert past_the_seams("settings.py", text) == {"time.time"}


def test_compiled_modules_are_declared() -> None:
    """What compiles is in pyproject.toml, with stubs for the type checker beside it."""
    declared = set(re.findall(r'sources = \["(collector/[^"]+)"\]', (ROOT / "pyproject.toml").read_text()))
    compiled = {
        str(path.relative_to(ROOT)) for path in modules() if path.read_text().startswith("# cython: language_level")
    }
    assert declared == compiled
    for name in declared:
        assert (ROOT / name).with_suffix(".pyi").exists()
