"""Ringtail built so that its compiled modules tell libFuzzer which edges they took, beside the tree, in build/fuzz.

atheris sees Python's bytecode and nothing of what Cython makes. So a copy of the package is compiled with gcc's edge
tracing, `coverage.c` collects it, and `connect` shows libFuzzer the counters. With `ADDRESS=1` in the environment the
copy is compiled with AddressSanitizer too, and reads and writes out of bounds end the process.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADDRESS = os.environ.get("ADDRESS") == "1"
TREE = ROOT / "build" / ("fuzz-address" if ADDRESS else "fuzz")
LIBRARY = TREE / "coverage.so"
EDGES = 1 << 16
_COMPARISONS = tuple(f"{kind}{width}" for kind in ("cmp", "const_cmp") for width in (1, 2, 4, 8))


def build() -> None:
    """Bring the copy up to date: sources that are newer are copied, and compiled again."""
    TREE.mkdir(parents=True, exist_ok=True)
    kept = {
        path.relative_to(ROOT) for path in (ROOT / "collector").rglob("*.p*") if path.suffix in (".py", ".pxd", ".pyi")
    }
    kept |= {path.relative_to(ROOT) for path in (ROOT / "collector").rglob("*.binpb")}
    kept |= {Path(name) for name in ("pyproject.toml", "build_proto.py", "README.md", "LICENSE")}
    for path in sorted(kept):
        copy = TREE / path
        if not copy.exists() or copy.stat().st_mtime < (ROOT / path).stat().st_mtime:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, copy)
    for old in (TREE / "collector").rglob("*.py"):
        if old.relative_to(TREE) not in kept:
            old.unlink()
    flags = "-O2 -g -fsanitize-coverage=trace-pc,trace-cmp" + (" -fsanitize=address" if ADDRESS else "")
    source = Path(__file__).with_name("coverage.c")
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime < source.stat().st_mtime:
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(LIBRARY)], check=True)
    command = "from setuptools import setup; setup(script_args=['-q', 'build_ext', '--inplace'])"
    log = TREE / "build.log"
    with log.open("w") as out:
        made = subprocess.run(
            [sys.executable, "-c", command], cwd=TREE, env={**os.environ, "CFLAGS": flags}, stdout=out, stderr=out
        )
    if made.returncode:
        print("".join(log.read_text().splitlines(keepends=True)[-20:]), file=sys.stderr)
        raise SystemExit(f"the compiled modules cannot be built for fuzzing; {log} says why")


def environment() -> dict[str, str]:
    """Return the environment of a process that fuzzes the copy."""
    preloaded = [str(LIBRARY)]
    more = {}
    if ADDRESS:
        preloaded.insert(0, _asan())
        # Python's own allocator would hide from the sanitizer where one object ends.
        more = {"PYTHONMALLOC": "malloc", "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"}
    path = os.pathsep.join([str(TREE), str(ROOT)])
    return {**os.environ, **more, "PYTHONPATH": path, "LD_PRELOAD": os.pathsep.join(preloaded)}


def _asan() -> str:
    compiler = os.environ.get("CC", "cc")
    named = subprocess.run([compiler, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    return os.path.realpath(named.stdout.strip())


def connect(libfuzzer: str) -> None:
    """Show the counters to the libFuzzer in this shared library; before it starts, in a process with `environment`."""
    core = ctypes.CDLL(libfuzzer)
    preloaded = ctypes.CDLL(str(LIBRARY))
    counters = ctypes.addressof((ctypes.c_uint8 * EDGES).in_dll(preloaded, "ringtail_counters"))
    edges = (ctypes.c_size_t * (2 * EDGES)).in_dll(preloaded, "ringtail_edges")
    for number in range(EDGES):
        edges[2 * number] = number + 1  # any address will do, if no other edge has it
    begin = ctypes.addressof(edges)
    size = ctypes.sizeof(edges)
    core.__sanitizer_cov_8bit_counters_init(ctypes.c_void_p(counters), ctypes.c_void_p(counters + EDGES))
    core.__sanitizer_cov_pcs_init(ctypes.c_void_p(begin), ctypes.c_void_p(begin + size))
    for name in (*_COMPARISONS, "switch"):
        function = ctypes.cast(getattr(core, f"__sanitizer_cov_trace_{name}"), ctypes.c_void_p).value
        ctypes.c_void_p.in_dll(preloaded, f"ringtail_{name}").value = function
