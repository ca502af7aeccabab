"""`make lock`: deploy/requirements.txt and deploy/requirements-build.txt, by pip-tools, in the versions that are tested."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = {
    "requirements.txt": "what the image installs, and runs",
    "requirements-build.txt": "what the image is built with, and does not hold",
}
EXTRAS = ("postgres",)
"""What the image has beside the base: the drivers of backends. ClickHouse is spoken to by HTTP, SQLite is Python's own."""
_HEAD = "# Made by `make lock`: {}. pip installs these versions and no other files than those of these hashes.\n"
_OPTIONS = ("--quiet", "--generate-hashes", "--strip-extras", "--no-header", "--no-annotate", "--allow-unsafe",
            "--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links")  # fmt: skip


def wanted() -> dict[str, list[str]]:
    """Return what pyproject.toml asks for, for each file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    return {
        "requirements.txt": [*project["project"]["dependencies"], *(one for name in EXTRAS for one in extras[name])],
        "requirements-build.txt": project["build-system"]["requires"],
    }


def main(compiler: str, tested: str) -> None:
    """Write both files; `compiler` is pip-compile, `tested` a file of the versions that are installed."""
    for name, requirements in wanted().items():
        made = subprocess.run(
            [compiler, *_OPTIONS, "--constraint", tested, "--output-file", "-", "-"],
            input="\n".join(requirements),
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        (ROOT / "deploy" / name).write_text(_HEAD.format(FILES[name]) + made.stdout)


if __name__ == "__main__":
    main(*(str(Path(one).absolute()) for one in sys.argv[1:3]))
