"""docs/configuration.md, made from the settings' own declarations. `make docs` writes it; a test compares."""

from __future__ import annotations

from dataclasses import MISSING
from pathlib import Path

from collector.config import Config
from collector.quantities import write
from collector.reload import is_live
from collector.settings import entries

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"

_HEAD = """# Configuration

<!-- Made by `make docs` from collector/config.py. -->

Settings are YAML: `ringtail run --config FILE`. Without a file, every key has the default below.
[config/collector.yaml](../config/collector.yaml) is that default configuration with every key explained;
[config/examples](../config/examples) has others to start from.

| command | what it does |
| --- | --- |
| `ringtail run --config FILE --set a.b.c=VALUE` | runs on the file's settings, and on one key set by hand |
| `ringtail validate --config FILE` | tells every mistake with file, line, key and what would be accepted, and what else a start would fail on |
| `ringtail print-config --config FILE` | prints the settings in effect, defaults included, as YAML that loads again |

## Where settings come from

Several `--config` files merge key by key in their order, then come the `--set` options in theirs. A group of keys may
stand empty and then keeps its defaults: as in the Collector, `grpc:` alone receives gRPC on the default port.
`grpc: null` and `http: null` switch a protocol off; a later source that names it again switches it back on. Lists do not
merge: a later one takes an earlier one's place.

`${env:NAME}` in a value is an environment variable; one that is not set is a mistake. `${env:NAME:-default}` gives a
default for one that is not set or is empty. `$$` is a dollar sign.

## How values are written

- Sizes: `64MiB`, `1.5GB` or a number of bytes. KiB, MiB, GiB and TiB are powers of 1024; KB, MB, GB and TB of 1000.
- Durations: `500ms`, `30s`, `1m30s`, `1.5h`, `7d`. A unit is needed, except for 0.
- Addresses: `127.0.0.1:4317`, `localhost:4317`, `"[::1]:4317"` (quoted, for YAML's sake), `0.0.0.0:4317` or `:4317` for
  all interfaces. Port 0 is one that the operating system chooses; the log tells it.
- Lists: `[a, b]` or a line each, as in YAML; a single value is a list of one. In the table below, `auth.credentials[].name`
  is the key `name` of each element of the list `auth.credentials`.
- Exporters have names that you choose: a kind (`otlp`), or several of one kind as `KIND/ID` (`otlp/eu`). In the table below
  `exporters.NAME` has the keys that all of them share, and `exporters.otlp` and so on those that each kind adds.
  `exporters: {otlp: null}` in a later source removes one. docs/backends.md has the whole of it.
- Secrets are best written as `${env:NAME}`: `ringtail print-config` then prints that, and `[REDACTED]` otherwise, which
  does not load again. No message, log or answer ever repeats a secret.
- Values after `--set` need no quotes but the shell's: `--set api.endpoint=[::1]:8888`. For a group of keys the value is
  YAML: `--set 'stores.traces={capacity: 1000, max_bytes: 8MiB}'`.

## Mistakes

`ringtail run` and `ringtail validate` tell all mistakes at once and exit with status 2. Unknown keys, keys that stand
twice and values out of range are mistakes; so are two listeners on one address, an exporter that sends to this daemon itself, and `wal.retention.max_bytes` below
`wal.segment_bytes`, and settings of TLS and authentication that do not go together. YAML's anchors, aliases and tags are not supported.

    $ ringtail validate --config collector.yaml
    collector.yaml:3: wal.sync: 'allways' is not one of always, interval, never

When the settings are right, both look at what they name, as it is then, before anything is started:

| what | beyond it |
| --- | --- |
| certificates, keys, authorities: that they can be read and belong together | status 2 |
| token and password files: that each line is one | status 2 |
| addresses: that they resolve, are this machine's, may be bound, and that no two are one | status 2 |
| `memory.limit`: that rings of that `capacity` fit; `tenants.max`: that the tenants that there are do | status 2 |
| ports, the data directory: that nobody has them, that it may be written, is of no newer version | status 1: the configuration is right |
| certificates that have expired; listeners beyond loopback without TLS or authentication | a warning |

`validate` creates nothing, and changes nothing. While a daemon runs on the same configuration it ends with status 1 and says
who has the directory. `--settings-only` leaves this table out.

## Keys

What is marked "Live" changes in a running daemon, by SIGHUP or `POST /-/reload`: see
[operations.md](operations.md#reload).

| key | default | meaning |
| --- | --- | --- |
"""


def page() -> str:
    """The page as it should be."""
    rows = []
    for key, metadata, default in entries(Config):
        if metadata["kind"] in ("section", "sections", "named"):
            rows.append(f"| **`{key}`** | | {metadata['doc']} |")
            continue
        low, high = metadata["low"], metadata["high"]
        extra = ""
        if metadata["choices"]:
            extra = f" {'Any' if metadata['many'] else 'One'} of {', '.join(f'`{choice}`' for choice in metadata['choices'])}."
        elif low is not None:
            extra = f" From {write(metadata, low)} to {write(metadata, high)}."
        live = " Live." if is_live(key) else ""
        written = "required" if default is MISSING else f"`{write(metadata, default)}`"
        rows.append(f"| `{key}` | {written} | {metadata['doc']}{extra}{live} |")
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
