"""docs/configuration.md, made from the settings' own declarations. `make docs` writes it; a test compares."""

from __future__ import annotations

from pathlib import Path

from collector.config import Config
from collector.settings import duration_text, entries, size_text

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"

_HEAD = """# Configuration

<!-- Made by `make docs` from collector/config.py. -->

Settings are YAML: `ringtail run --config FILE`. Several files merge key by key in their order, then `--set
a.b.c=VALUE` options. [config/collector.yaml](../config/collector.yaml) is the default configuration with every key
explained; `ringtail print-config` prints what is in effect; `ringtail validate --config FILE` tells every mistake with
file, line and key.

- Sizes: `64MiB` (KiB, MiB, GiB, TiB are powers of 1024; KB, MB, GB, TB of 1000), or a number of bytes.
- Durations: `500ms`, `30s`, `1m30s`, `24h`, `7d`.
- `${env:NAME}` is the value of an environment variable, `${env:NAME:-default}` gives a default, `$$` is a dollar sign.
- Unknown keys are errors, and so are keys that stand twice.

| key | default | meaning |
| --- | --- | --- |
"""


def page() -> str:
    """The page as it should be."""
    rows = []
    for key, metadata, default in entries(Config):
        if metadata["kind"] == "section":
            rows.append(f"| **`{key}`** | | {metadata['doc']} |")
            continue
        shown = {"size": size_text, "duration": duration_text}.get(metadata["kind"], str)
        text = str(default).lower() if isinstance(default, bool) else shown(default)
        extra = ""
        low, high = metadata["low"], metadata["high"]
        if metadata["choices"]:
            extra = f" One of {', '.join(f'`{choice}`' for choice in metadata['choices'])}."
        elif low is not None and high is not None:
            extra = f" From {shown(low)} to {shown(high)}."
        elif low:
            extra = f" At least {shown(low)}."
        rows.append(f"| `{key}` | `{text}` | {metadata['doc']}{extra} |")
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
