"""`make fuzz SECONDS=60`: fuzz every target for so long, two at a time, keep the corpus, and report.

Each target runs in a process of its own under atheris, from its seeds and its kept corpus. What it finds is merged
into the corpus, down to the few inputs that together reach what all of them reach; inputs that break something go to
`regressions/`, where `make test` replays them. Results are printed, and added to build/fuzz/results.jsonl as a line of
JSON for each target. The exit status is 1 when something was found.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FILES_MAX = 200
BYTES_MAX = 500_000
"""What of a target's corpus is kept: the smallest files first."""
AT_ONCE = 2
PATIENCE_S = 20
"""Seconds after which libFuzzer gives an input up and ends the process."""
MEMORY_MB = 2048
MORE_S = 300
"""What starting and ending may take beside the fuzzing, on a busy machine."""


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 2**31)
    parser.add_argument("--no-keep", action="store_true", help="leave the corpus as it is")
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print(f"atheris is missing: {sys.executable} -m pip install '.[fuzz]' (it has no wheels for some Pythons)")
        return 3
    from tests.fuzz import compiled
    from tests.fuzz.registry import ROOMS

    compiled.build()
    names = given.targets or list(ROOMS)
    commit = _output("git", "rev-parse", "--short", "HEAD")
    print(f"seed {given.seed}, commit {commit}, {given.seconds} s for each of {len(names)} targets")
    print(f"{'target':18}{'executions':>12}{'a second':>10}{'edges':>8}{'features':>10}{'corpus':>8}{'findings':>10}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda name: _fuzz(name, given.seconds, given.seed, not given.no_keep), names))
    with (compiled.TREE / "results.jsonl").open("a") as file:
        for result in results:
            file.write(json.dumps({"commit": commit, "seed": given.seed, "seconds": given.seconds, **result}) + "\n")
    for result in results:
        for finding in result["findings"]:
            print(finding)
    total = sum(result["executions"] for result in results)
    findings = sum(len(result["findings"]) for result in results)
    print(f"{total} executions, {findings} findings")
    return 1 if findings else 0


def _fuzz(name: str, seconds: int, seed: int, keep: bool) -> dict[str, Any]:
    from tests.fuzz.registry import load
    from tests.fuzz.target import CORPUS, REGRESSIONS

    target = load(name)
    with tempfile.TemporaryDirectory(prefix="ringtail-fuzz-") as scratch:
        room = Path(scratch)
        work, seeds, artifacts, merged = (room / one for one in ("work", "seeds", "artifacts", "merged"))
        for directory in (work, seeds, artifacts, merged):
            directory.mkdir()
        for number, data in enumerate(target.seeds()):
            (seeds / f"{number:04}").write_bytes(data)
        words = room / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        kept = CORPUS / name
        old = [str(kept)] if kept.is_dir() else []
        arguments = [
            f"-max_total_time={seconds}",
            f"-max_len={target.length_max}",
            f"-timeout={PATIENCE_S}",
            f"-rss_limit_mb={0 if os.environ.get('ADDRESS') == '1' else MEMORY_MB}",
            f"-seed={seed}",
            f"-artifact_prefix={artifacts}/",
            f"-dict={words}",
            "-print_final_stats=1",
            "-use_value_profile=0",
        ]
        text = _run(name, [*arguments, str(work), str(seeds), *old], room / "log", seconds)
        findings = [line for line in text.splitlines() if line.startswith("FINDING")]
        for artifact in sorted(artifacts.iterdir()):
            (REGRESSIONS / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(artifact, REGRESSIONS / name / artifact.name[:24])
            last = [line for line in text.splitlines() if line.startswith(("SUMMARY", "==", "ERROR"))]
            findings.append(f"FINDING {name}/{artifact.name[:24]}: {' '.join(last[:2])}")
        executions = re.search(r"number_of_executed_units: (\d+)", text)
        statuses = re.findall(r"cov: (\d+) ft: (\d+)", text)
        if executions is None and not findings:
            findings.append(f"FINDING {name}: the fuzzer ended early: {text[-1500:]}")
        if keep and executions is not None:
            merge = ["-merge=1", f"-max_len={target.length_max}", "-rss_limit_mb=0", str(merged), *old, str(work)]
            _run(name, [*merge, str(seeds)], room / "merge.log", seconds)
            _keep(merged, kept, set(target.seeds()))
        result = {
            "target": name,
            "executions": int(executions[1]) if executions else 0,
            "edges": int(statuses[-1][0]) if statuses else 0,
            "features": int(statuses[-1][1]) if statuses else 0,
            "corpus": len(list(kept.iterdir())) if kept.is_dir() else 0,
            "findings": findings,
        }
    rate = result["executions"] // max(1, seconds)
    print(
        f"{name:18}{result['executions']:>12}{rate:>10}{result['edges']:>8}{result['features']:>10}"
        f"{result['corpus']:>8}{len(findings):>10}",
        flush=True,
    )
    return result


def _run(name: str, arguments: list[str], log: Path, seconds: int) -> str:
    from tests.fuzz import compiled

    fuzzer = log.with_suffix(".sh")
    fuzzer.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.fuzz.fuzzing {name} "$@"\n')
    fuzzer.chmod(0o700)
    command = [str(fuzzer), *arguments]
    environment = {**compiled.environment(), "RINGTAIL_FUZZER": str(fuzzer)}
    with log.open("wb") as out:
        try:
            subprocess.run(command, cwd=log.parent, env=environment, stdout=out, stderr=out, timeout=seconds + MORE_S)
        except subprocess.TimeoutExpired:
            out.write(b"\nthe fuzzer did not end\n")
    return log.read_text(errors="replace")


def _keep(merged: Path, kept: Path, seeds: set[bytes]) -> None:
    """Replace the corpus by what was merged, without the seeds, as much as may be kept."""
    found = sorted((path for path in merged.iterdir()), key=lambda path: (path.stat().st_size, path.name))
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    room = BYTES_MAX
    count = 0
    for path in found:
        data = path.read_bytes()
        if data in seeds:
            continue
        room -= len(data)
        count += 1
        if room < 0 or count > FILES_MAX:
            return
        (kept / path.name[:16]).write_bytes(data)


def _escaped(word: bytes) -> str:
    return "".join(chr(byte) if 32 < byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
