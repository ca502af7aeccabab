"""Settings: defaults, where values come from, how they are written, and that every mistake is told with its place."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.config import Config
from collector.errors import InvalidConfig
from collector.otlp.signals import LOGS
from collector.quantities import (
    DIGITS_MAX,
    read_address,
    read_count,
    read_duration,
    read_size,
    write,
    write_duration,
    write_size,
)
from collector.ring.ring import bytes_min
from collector.settings import ITEMS_MAX, NESTING_MAX, SOURCE_BYTES_MAX, dump, entries, load, load_files

ROOT = Path(__file__).parents[1]
SHIPPED = (ROOT / "config" / "collector.yaml").read_text()
KEYS = {
    key: metadata
    for key, metadata, _ in entries()
    if metadata["kind"] not in ("section", "sections") and "[]" not in key and not key.startswith("exporters")
}


def value_of(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def problems(*texts: str, options: tuple[str, ...] = (), **environment: str) -> list[str]:
    """Return the mistakes in texts that stand for the files one.yaml, two.yaml, ..."""
    names = ("one.yaml", "two.yaml", "three.yaml")
    with pytest.raises(InvalidConfig) as caught:
        load(list(zip(names, texts, strict=False)), options, environment)
    return caught.value.problems


def test_defaults() -> None:
    config = Config()
    protocols = config.receivers.otlp.protocols
    assert protocols.grpc is not None
    assert protocols.http is not None
    assert (protocols.grpc.endpoint, protocols.http.endpoint) == ("127.0.0.1:4317", "127.0.0.1:4318")
    assert config.api.endpoint == "127.0.0.1:8888"
    stores = config.stores
    assert (stores.traces.capacity, stores.logs.capacity, stores.metrics.capacity) == (10_000, 50_000, 100_000)
    assert (config.wal.enabled, config.wal.sync, config.wal.directory) == (True, "always", "./ringtail-data")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().wal.sync = "never"  # type: ignore[misc]  # what the test is about


@pytest.mark.parametrize("text", ["", "\n# nothing but a comment\n", "wal:\n", "receivers:\n  otlp:\n    protocols:\n"])
def test_an_empty_file_or_group_changes_nothing(text: str) -> None:
    assert load([("one.yaml", text)], [], {}) == Config()


# Where values come from


def test_files_merge_in_their_order_and_options_come_last() -> None:
    one = "wal: {sync: never, segment_bytes: 1MiB}\nquery: {threads: 3}"
    two = "wal: {sync: interval}\nquery: {threads: 5}"
    config = load([("one.yaml", one), ("two.yaml", two)], ["query.threads=7", "query.threads=8"], {})
    assert (config.wal.sync, config.wal.segment_bytes, config.query.threads) == ("interval", 1 << 20, 8)


def test_a_protocol_is_switched_off_by_null_and_on_again_by_its_name() -> None:
    off = ("one.yaml", "receivers: {otlp: {protocols: {grpc: null, http: {endpoint: 'localhost:1'}}}}")
    protocols = load([off], [], {}).receivers.otlp.protocols
    assert protocols.grpc is None
    assert protocols.http is not None
    assert protocols.http.endpoint == "localhost:1"
    again = ("two.yaml", "receivers: {otlp: {protocols: {grpc: }}}")
    assert load([off, again], [], {}).receivers.otlp.protocols.grpc == Config().receivers.otlp.protocols.grpc
    assert load([off], ["receivers.otlp.protocols.http=null"], {}).receivers.otlp.protocols.http is None


def test_the_collectors_commonest_snippet_switches_both_protocols_on() -> None:
    assert load([("one.yaml", "receivers:\n  otlp:\n    protocols:\n      grpc:\n      http:\n")], [], {}) == Config()


def test_what_was_set_before_a_null_is_forgotten() -> None:
    sources = [
        ("one.yaml", "receivers: {otlp: {protocols: {grpc: {max_recv_msg_size_mib: 9}}}}"),
        ("two.yaml", "receivers: {otlp: {protocols: {grpc: ~}}}"),
        ("three.yaml", "receivers: {otlp: {protocols: {grpc: {endpoint: 'localhost:1'}}}}"),
    ]
    grpc = load(sources, [], {}).receivers.otlp.protocols.grpc
    assert grpc is not None
    assert (grpc.endpoint, grpc.max_recv_msg_size_mib) == ("localhost:1", 64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/${env:NAME}", "/data/value"),
        ("${env:NAME}-${env:NAME}", "value-value"),
        ("${env:OTHER:-/a/b:-c}", "/a/b:-c"),
        ("${env:EMPTY:-default}", "default"),
        ("${env:NAME:-default}", "value"),
        ("$${env:NAME} costs $5", "${env:NAME} costs $5"),
        ("${env:TRICKY}", "${env:NAME} $$"),
    ],
)
def test_environment_variables(text: str, expected: str) -> None:
    environment = {"NAME": "value", "EMPTY": "", "TRICKY": "${env:NAME} $$"}
    config = load([("one.yaml", f"wal:\n  directory: '{text}'\n")], [], environment)
    assert config.wal.directory == expected
    assert load([], [f"wal.directory={text}"], environment).wal.directory == expected


@pytest.mark.parametrize(
    ("option", "key", "expected"),
    [
        ("api.endpoint=[::1]:8888", "api.endpoint", "[::1]:8888"),
        ("wal.directory=/a: #b", "wal.directory", "/a: #b"),
        ("wal.directory=a=b", "wal.directory", "a=b"),
        ("wal.directory='a b'", "wal.directory", "a b"),
        ("wal.directory=no", "wal.directory", "no"),
        ("wal.directory=null", "wal.directory", "null"),
        ("wal.enabled=False", "wal.enabled", False),
        ("query.threads=1_0", "query.threads", 10),
        ("stores.traces={capacity: 5, max_bytes: 2MiB}", "stores.traces.max_bytes", 2 << 20),
        ("wal.retention=", "wal.retention.max_bytes", 1 << 30),
    ],
)
def test_options(option: str, key: str, expected: object) -> None:
    assert value_of(load([], [option], {}), key) == expected


# How values are written


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("17", 17), ("64MiB", 64 << 20), ("64mib", 64 << 20), ("1GB", 10**9), ("1.5 KiB", 1536), ("3B", 3)],
)
def test_sizes(text: str, expected: int) -> None:
    assert read_size(text) == expected


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5", "64 M", "1e6", "0x10", "64MiBs", "9" * (DIGITS_MAX + 1), "½"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        read_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("30s", 30),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("7d", 604_800),
        ("1us", 1e-6),
        ("1µs", 1e-6),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert read_duration(text) == expected


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1 s", "1w", "1s30", "0.5us", "1ns", "1S", f"{'9' * 40}s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        read_duration(text)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "localhost:65535", ":4317", "[::1]:1", "my_host-1.example.com:80"])
def test_addresses(text: str) -> None:
    assert read_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "4317",
            "localhost",
            "localhost:",
            "localhost:65536",
            "localhost:-1",
            "localhost:http",
            "http://localhost:4318",
        ),
        *("::1:4317", "[::1]", "[::g]:1", "[127.0.0.1]:1", "256.0.0.1:1", "1.2.3:1", "a b:1", "a/b:1", "-a:1", "a:١"),
        *("localhost:000001", f"{'a' * 254}:1"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        read_address(text)


@pytest.mark.parametrize("text", ["", "-1", "1.0", "1e3", "_1", "1_", "1__0", "٣", "9" * (DIGITS_MAX + 1)])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ValueError):
        read_count(text)


@given(st.integers(0, 1 << 60))
def test_a_size_reads_as_it_was_written(size: int) -> None:
    assert read_size(write_size(size)) == size


@given(st.integers(0, 3650 * 86_400 * 10**6))
def test_a_duration_reads_as_it_was_written(microseconds: int) -> None:
    seconds = microseconds / 1_000_000
    assert read_duration(write_duration(seconds)) == seconds


def values(metadata: Any) -> st.SearchStrategy[Any]:
    """Any value that a setting accepts."""
    if metadata["many"]:
        return st.lists(values({**metadata, "many": False}), max_size=3).map(tuple)
    kind, low, high = metadata["kind"], metadata["low"], metadata["high"]
    if kind in ("size", "count"):
        return st.integers(low, high)
    if kind == "duration":
        return st.integers(round(low * 10**6), round(high * 10**6)).map(lambda one: one / 10**6)
    if kind == "address":
        return st.sampled_from(["localhost:0", "[::1]:0", ":0", "0.0.0.0:0"])
    if kind == "memory":
        return st.sampled_from(["auto", "50%", "0.5%", "512MiB", "123456789"])
    if kind == "host":
        return st.sampled_from(["*", "a.example", "[::1]", "10.0.0.1"])
    if kind == "text":
        return st.sampled_from(["one", "two/three"])
    if kind == "name":
        return st.sampled_from(["one", "two", "a-b.c_d@e"])
    if kind == "origin":
        return st.sampled_from(["*", "null", "https://app.example", "http://*.example:8443"])
    if kind == "header":
        return st.sampled_from(["*", "authorization", "x-scope-orgid"])
    if kind == "route":
        return st.from_regex(r"/[a-z0-9/._%-]{1,20}", fullmatch=True)
    if kind == "path":
        return st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)
    return st.booleans() if kind == "switch" else st.sampled_from(metadata["choices"])


def test_a_ring_wants_room_for_its_indexes() -> None:
    with pytest.raises(InvalidConfig) as caught:
        load([], ["stores.logs.capacity=10000000", "stores.logs.max_bytes=64MiB"], {})
    (problem,) = caught.value.problems
    least = bytes_min(LOGS, 10_000_000)
    assert problem.startswith(f"--set: stores.logs.max_bytes: a ring of 10000000 records wants at least {least} bytes")
    load([], ["stores.logs.capacity=10000000", f"stores.logs.max_bytes={least}"], {})


@given(st.fixed_dictionaries({}, optional={key: values(metadata) for key, metadata in KEYS.items()}))
def test_printed_settings_load_again(chosen: dict[str, Any]) -> None:
    # Two keys that constrain each other have tests of their own.
    rings = [f"stores.{signal}.{key}" for signal in ("traces", "logs", "metrics") for key in ("capacity", "max_bytes")]
    related = [key for key in KEYS if ".tls." in f".{key}" or key.endswith(("auth.credentials", "include_metadata"))]
    paths = [f"receivers.otlp.protocols.http.{signal}_url_path" for signal in ("traces", "logs", "metrics")]
    if len({chosen.get(path, path) for path in paths}) < 3:
        rings += paths
    for key in ("wal.segment_bytes", "wal.retention.max_bytes", "query.backend", *rings, *related):
        chosen.pop(key, None)
    options = [f"{key}={write(KEYS[key], value).replace('$', '$$')}" for key, value in chosen.items()]
    quoted = [one for one in options if one.partition("=")[2][:1] not in ("'", '"')]
    config = load([], quoted, {})
    for one in quoted:
        key = one.partition("=")[0]
        assert value_of(config, key) == chosen[key]
    assert load([("printed.yaml", dump(config))], [], {}) == config


def test_lists_are_wholes() -> None:
    key = "receivers.otlp.protocols.http.cors.allowed_origins"
    one = ("one.yaml", "receivers: {otlp: {protocols: {http: {cors: {allowed_origins: [https://a, 'http://*.b']}}}}}")
    assert value_of(load([one], [], {}), key) == ("https://a", "http://*.b")
    assert value_of(load([one], [f"{key}=https://c"], {}), key) == ("https://c",)
    assert value_of(load([one], [f"{key}=[]"], {}), key) == ()


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("cors.allowed_origins=[https://a/path]", "allowed_origins[0]: 'https://a/path' is not an origin"),
        ("cors.allowed_origins={a: b}", "allowed_origins: must be a list, each an origin"),
        ("cors.allowed_headers=[[a]]", "allowed_headers[0]: must be a header's name"),
        ("cors.allowed_headers=[a b]", "allowed_headers[0]: 'a b' is not a header's name"),
        ("compression_algorithms=[gzip, snappy]", "compression_algorithms[1]: 'snappy' is not one of gzip, zstd"),
        (f"cors.allowed_headers=[{', '.join('a' * 300)}]", "allowed_headers: has more than 256 elements"),
        ("traces_url_path=v1/traces", "traces_url_path: 'v1/traces' is not a path like /v1/traces"),
        ("traces_url_path=/v1/logs", "logs_url_path: /v1/logs is taken already, by receivers.otlp"),
        ("metrics_url_path=/", "metrics_url_path: / is taken already, by the greeting"),
    ],
)
def test_mistakes_in_lists_and_paths(option: str, problem: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load([], [f"receivers.otlp.protocols.http.{option}"], {})
    assert [problem in one for one in caught.value.problems] == [True], caught.value.problems


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("query: {backend: sqlite}", "query.backend: there is no 'sqlite' under exporters; there is none"),
        ("query: {backend: otlp}\nexporters: {otlp: {endpoint: x:1}}", "query.backend: otlp is no backend"),
    ],
)
def test_what_is_no_backend_cannot_be_read_from(settings: str, problem: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load([("one.yaml", settings)], [], {})
    assert [problem in one for one in caught.value.problems] == [True], caught.value.problems
    load([("one.yaml", "query: {backend: sqlite/old}\nexporters: {sqlite/old: {}}")], [], {})


def test_a_protocol_that_is_off_is_printed_as_off() -> None:
    config = load([], ["receivers.otlp.protocols.grpc=null"], {})
    assert load([("printed.yaml", dump(config))], [], {}) == config != Config()


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid_and_say_something(path: Path) -> None:
    assert load_files([str(path)], [], {}) != Config()


# Mistakes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "wall: 1",
            "one.yaml:1: 'wall': unknown key; did you mean wal? accepted here: receivers, stores, wal, memory, tenants, api, query,",
        ),
        (
            "\nwal:\n  segment_byte: 1",
            "one.yaml:3: 'wal.segment_byte': unknown key; did you mean segment_bytes? accepted",
        ),
        (
            "pipelines: {}",
            "one.yaml:1: 'pipelines': unknown key; accepted here: receivers, stores, wal, memory, tenants, api, query,",
        ),
        ("wal:\n  sync: x\n", "one.yaml:2: wal.sync: 'x' is not one of always, interval, never"),
        ("wal:\n  enabled: 1", "one.yaml:2: wal.enabled: '1' is not true or false"),
        ("query: {threads: 0}", "one.yaml:1: query.threads: '0' is not a whole number from 1 to 64 (too small)"),
        ("query: {threads: 65}", "one.yaml:1: query.threads: '65' is not a whole number from 1 to 64 (too large)"),
        (
            "query: {timeout: 30}",
            "one.yaml:1: query.timeout: '30' is not a duration like 30s or 1m30s from 10ms to 1h (wri",
        ),
        (
            "stores:\n  logs:\n    max_bytes: 64M",
            "one.yaml:3: stores.logs.max_bytes: '64M' is not a size like 64MiB from 1",
        ),
        (
            "api: {endpoint: 'http://a:1'}",
            "one.yaml:1: api.endpoint: 'http://a:1' is not an address like 127.0.0.1:4317,",
        ),
        ("wal: {directory: }", "one.yaml:1: wal.directory: has no value; it takes a path"),
        ("wal: {directory: null}", "one.yaml:1: wal.directory: has no value; it takes a path"),
        ("wal: {directory: [a]}", "one.yaml:1: wal.directory: must be a single value, a path"),
        (
            "wal: {directory: '${env:NOT_SET}'}",
            "one.yaml:1: wal.directory: '${env:NOT_SET}' is not a path (the environmen",
        ),
        ("wal: {directory: '${NAME}'}", "one.yaml:1: wal.directory: '${NAME}' is not a path (only ${env:NAME} and"),
        (
            "wal: {directory: '${env:NAME'}",
            "one.yaml:1: wal.directory: '${env:NAME' is not a path (only ${env:NAME} and",
        ),
        ("wal: null", "one.yaml:1: wal: cannot be null; leave it out to keep its defaults"),
        (
            "wal: 5",
            "one.yaml:1: wal: must be a mapping with the keys enabled, directory, sync, sync_interval, segment_bytes,",
        ),
        (
            "- 1",
            "one.yaml:1: the file: must be a mapping with the keys receivers, stores, wal, memory, tenants, api, query, auth, exporters, telemetry",
        ),
        ("query: {threads: 1}\nquery: {threads: 2}", "one.yaml:2: 'query': stands here twice, first at one.yaml:1"),
        ("a: [", "one.yaml:1: not valid YAML: expected the node content, but found '<stream end>'"),
        ("a: 1\nb: \x01", "one.yaml:2: not valid YAML: the character '\\x01' is not allowed"),
        ("wal: {}\n---\nwal: {}", "one.yaml:2: a second document begins; put it into a file of its own"),
        ("wal: &a {}\nquery: *a", "one.yaml:1: anchors and aliases are not supported"),
        ("wal: !!map {}", "one.yaml:1: tags are not supported"),
        ("[" * (NESTING_MAX + 1), f"one.yaml:1: nested more than {NESTING_MAX} deep"),
        (
            "? [a]\n: 1",
            "one.yaml:1: '?': unknown key; accepted here: receivers, stores, wal, memory, tenants, api, query, auth, exporters, telemetry",
        ),
        (
            "\nauth: {credentials: [{rights: read}]}",
            "one.yaml:2: auth.credentials[0]: has no name, which is a name",
        ),
        (
            "auth:\n  credentials:\n    - name: a\n      rights: [read, wrote]\n",
            "one.yaml:4: auth.credentials[0].rights[1]: 'wrote' is not one of write, read, administer",
        ),
        (
            "auth:\n  credentials:\n    - name: a\n      right: [read]\n      rights: read",
            "one.yaml:4: 'auth.credentials[0].right': unknown key; did you mean rights? accepted here: name, rights, ",
        ),
        ("auth: {credentials: [a]}", "one.yaml:1: auth.credentials[0]: must be a group with the keys name, rights, "),
        (
            "auth: {credentials: {a: b}}",
            "one.yaml:1: auth.credentials: must be a list of groups with the keys name, ri",
        ),
        ("auth: {credentials: }", "one.yaml:1: auth.credentials: must be a list of groups with the keys name, rights,"),
        ("api: {allowed_hosts: {a: b}}", "one.yaml:1: api.allowed_hosts: must be a list, each a host like"),
        ("api:\n  allowed_hosts:\n    - a\n    - [b]", "one.yaml:4: api.allowed_hosts[1]: must be a host like"),
        ("api: {allowed_hosts: 'http://a'}", "one.yaml:1: api.allowed_hosts[0]: 'http://a' is not a host like"),
        (f"api: {{allowed_hosts: [{'a,' * (ITEMS_MAX + 1)}]}}", "one.yaml:1: api.allowed_hosts: has more than 256 ele"),
        ("api: {tls: {min_version: 1.1}}", "one.yaml:1: api.tls.min_version: '1.1' is not one of 1.2, 1.3"),
        ("#" * (SOURCE_BYTES_MAX + 1), f"one.yaml: is larger than {SOURCE_BYTES_MAX} bytes"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_is_accepted(text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert problem[: len(expected)] == expected


def test_every_mistake_is_told_also_what_a_later_source_overrides() -> None:
    assert problems(
        "wal: {sync: x}\nquery: {threads: 0, timeot: 1s}", "wal: {sync: y}", options=("wal.sync=z", "q")
    ) == [
        "one.yaml:1: wal.sync: 'x' is not one of always, interval, never",
        "one.yaml:2: query.threads: '0' is not a whole number from 1 to 64 (too small)",
        (
            "one.yaml:2: 'query.timeot': unknown key; did you mean timeout? accepted here: timeout, threads, backend, "
            "backend_timeout, backend_shared, max_tails"
        ),
        "two.yaml:1: wal.sync: 'y' is not one of always, interval, never",
        "--set: wal.sync: 'z' is not one of always, interval, never",
        "--set 'q': must be KEY=VALUE, as in --set wal.sync=never",
    ]


def test_the_contents_of_a_variable_are_not_repeated() -> None:
    (problem,) = problems("query: {threads: '${env:TOKEN}'}", TOKEN="s3cret")
    assert "s3cret" not in problem


def test_a_long_value_is_cut_short() -> None:
    (problem,) = problems(f"wal: {{sync: {'x' * 5000}}}")
    assert len(problem) < 200


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["api.endpoint=127.0.0.1:4317"],
            "--set: api.endpoint: 127.0.0.1:4317 is taken already, by receivers.otlp.proto",
        ),
        (
            ["api.endpoint=:4318"],
            "--set: api.endpoint: :4318 is taken already, by receivers.otlp.protocols.http.endpoint",
        ),
        (
            ["wal.segment_bytes=1GiB", "wal.retention.max_bytes=1MiB"],
            "--set: wal.retention.max_bytes: must be at least",
        ),
        (
            ["receivers.otlp.protocols.grpc.include_metadata=true"],
            "--set: receivers.otlp.protocols.grpc.include_metadata: must be false: nothing here reads the metadata of",
        ),
        (
            ["receivers.otlp.protocols.http.include_metadata=true"],
            "--set: receivers.otlp.protocols.http.include_metadata: must be false: nothing here reads the metadata of",
        ),
        (
            ["exporters.otlp={endpoint: 'http://localhost:4317'}"],
            "--set: exporters.otlp.endpoint: localhost:4317 is receivers.otlp.protocols.grpc.endpoint: what is received",
        ),
        (
            [
                "exporters.otlphttp={logs_endpoint: 'http://[::1]:4318/v1/logs', signals: [logs]}",
                "receivers.otlp.protocols.http.endpoint=:4318",
            ],
            "--set: exporters.otlphttp.logs_endpoint: ::1:4318 is receivers.otlp.protocols.http.endpoint: what is recei",
        ),
        (["api.tls.cert_file=x"], "--set: api.tls.cert_file: needs key_file beside it"),
        (["api.tls.key_file=x"], "--set: api.tls.key_file: needs cert_file beside it"),
        (["api.tls.client_ca_file=x"], "--set: api.tls.client_ca_file: needs cert_file and key_file beside it"),
        (
            ["api.tls={min_version: 1.3, max_version: 1.2}"],
            "--set: api.tls.min_version: must not be above max_version, which is 1.2",
        ),
        (["api.auth.credentials=[x]"], "--set: api.auth.credentials: [0]: there is no x in auth.credentials, only: no"),
        (
            ["auth.credentials=[{name: a, rights: read}]"],
            "--set: auth.credentials[0].name: needs one of tokens, token_file, htpasswd_file, subjects, and has none",
        ),
        (
            ["auth.credentials=[{name: a, rights: read, token_file: x, htpasswd_file: y}]"],
            "--set: auth.credentials[0].name: needs one of tokens, token_file, htpasswd_file, subjects, and has tok",
        ),
        (
            ["auth.credentials=[{name: a, rights: [], token_file: x}]"],
            "--set: auth.credentials[0].rights: is empty",
        ),
        (
            ["auth.credentials=[{name: a, rights: read, token_file: x, users: [u]}]"],
            "--set: auth.credentials[0].users: are of an htpasswd_file",
        ),
        (
            ["auth.credentials=[{name: a, rights: read, token_file: x}, {name: a, rights: read, token_file: y}]"],
            "--set: auth.credentials[1].name: a is the name of another one already",
        ),
        (
            ["auth.credentials=[{name: a, rights: read, subjects: [x]}]"],
            "--set: auth.credentials[0].subjects: no listener where this counts verifies certificates",
        ),
    ],
)
def test_settings_that_contradict_each_other(options: list[str], expected: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load([], options, {})
    (problem,) = caught.value.problems
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    "options",
    [
        ["api.endpoint=localhost:0", "receivers.otlp.protocols.http.endpoint=localhost:0"],
        ["api.endpoint=127.0.0.2:4317"],
        ["api.endpoint=:4317", "receivers.otlp.protocols.grpc=null"],
        ["wal.retention.max_bytes=0"],
    ],
)
def test_settings_that_go_together(options: list[str]) -> None:
    load([], options, {})


def test_files_that_cannot_be_read_are_told_beside_other_mistakes(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"wal: \xe9")
    (tmp_path / "wrong.yaml").write_text("x: 1")
    (tmp_path / "marked.yaml").write_bytes(b"\xef\xbb\xbfquery: {threads: 3}")
    names = ["missing.yaml", "", "latin.yaml", "wrong.yaml", "marked.yaml"]
    with pytest.raises(InvalidConfig) as caught:
        load_files([str(tmp_path / name) for name in names], [], {})
    told = [problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems]
    assert told[0] == "missing.yaml: cannot be read: No such file or directory"
    assert told[1].endswith(": cannot be read: Is a directory")
    assert told[2] == "latin.yaml: is not UTF-8 text: byte 5 is 0xe9"
    assert told[3].startswith("wrong.yaml:1: 'x': unknown key")
    assert len(told) == 4


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The shipped file with some lines lost, moved or doubled, and some characters changed."""
    lines = SHIPPED.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["lose", "double", "move", "indent", "character"]))
        line = lines[at]
        if kind == "lose" and len(lines) > 1:
            del lines[at]
        elif kind == "double":
            lines.insert(at, line)
        elif kind == "move":
            lines.insert(draw(st.integers(0, len(lines))), line)
        elif kind == "indent":
            lines[at] = draw(st.sampled_from(["  ", " ", "\t"])) + line
        else:
            place = draw(st.integers(0, len(line) - 1))
            lines[at] = (
                line[:place] + draw(st.sampled_from("x:-[]{}&*!|>'\"%@`#,?\t\n 9é\x00\u2028")) + line[place + 1 :]
            )
    return "".join(lines)


@given(damaged())
def test_a_damaged_file_is_valid_or_told_line_by_line(text: str) -> None:
    try:
        config = load([("one.yaml", text)], [], {})
    except InvalidConfig as error:
        assert error.problems
        for problem in error.problems:
            assert problem.startswith("one.yaml:")
            assert problem.isprintable(), problem
    else:
        assert load([("printed.yaml", dump(config))], [], {}) == config


# Lists and secrets

TOKEN = "s3cret-s3cret-s3cret"


def test_lists_of_groups() -> None:
    text = f"""
auth:
  credentials:
    - name: applications
      rights: write
      tokens: ["${{env:TOKEN}}", '{TOKEN}']
    - name: people
      rights: [read, administer]
      htpasswd_file: /x
      users: [ann]
"""
    first, second = load([("one.yaml", text)], [], {"TOKEN": f"{TOKEN}$"}).auth.credentials
    assert [token.reveal() for token in first.tokens] == [f"{TOKEN}$", TOKEN]
    assert (first.name, first.rights, first.token_file) == ("applications", ("write",), None)
    assert (second.rights, second.htpasswd_file, second.users) == (("read", "administer"), "/x", ("ann",))


def test_a_later_list_takes_an_earlier_ones_place() -> None:
    one = "auth: {credentials: [{name: a, rights: read, token_file: x}, {name: b, rights: read, token_file: x}]}"
    two = "auth: {credentials: [{name: c, rights: write, token_file: y}]}"
    (only,) = load([("one.yaml", one), ("two.yaml", two)], [], {}).auth.credentials
    assert (only.name, only.rights, only.token_file) == ("c", ("write",), "y")
    assert load([("one.yaml", one)], ["auth.credentials=[]"], {}).auth.credentials == ()


def test_a_value_that_may_be_null_can_be_unset() -> None:
    one = "api: {tls: {cert_file: a, key_file: b}}"
    assert load([("one.yaml", one)], [], {}).api.tls.cert_file == "a"
    for config in (
        load([("one.yaml", one), ("two.yaml", "api: {tls: {cert_file: null, key_file: ~}}")], [], {}),
        load([("one.yaml", one)], ["api.tls.cert_file=null", "api.tls.key_file=null"], {}),
    ):
        assert (config.api.tls.cert_file, config.api.tls.key_file) == (None, None)


def test_a_secret_is_printed_as_its_reference_or_not_at_all() -> None:
    text = "auth: {credentials: [{name: a, rights: read, tokens: ['${env:TOKEN}', 'literal-literal-1']}]}"
    config = load([("one.yaml", text)], [], {"TOKEN": TOKEN})
    printed = dump(config)
    assert TOKEN not in printed + repr(config) + str(config)
    assert "literal-literal" not in printed + repr(config)
    assert "- ${env:TOKEN}" in printed
    with pytest.raises(InvalidConfig) as caught:
        load([("printed.yaml", printed)], [], {"TOKEN": TOKEN})
    (problem,) = caught.value.problems
    assert problem.endswith("([REDACTED] is what print-config shows in place of a secret)")
    only = load([("one.yaml", text.replace(", 'literal-literal-1'", ""))], [], {"TOKEN": TOKEN})
    assert load([("printed.yaml", dump(only))], [], {"TOKEN": TOKEN}) == only


@pytest.mark.parametrize(
    "token",
    ["shortbutcanary", "canary with a space in it", "canary-canary-canary-\u00e9", "canary\tcanary-canary", "x" * 5000],
)
def test_a_wrong_secret_is_not_repeated(token: str) -> None:
    for written, environment in ((token.replace("\t", "\\t"), {}), ("${env:TOKEN}", {"TOKEN": token})):
        text = f'auth:\n  credentials:\n    - name: a\n      rights: read\n      tokens: ["{written}"]\n'
        (problem,) = problems(text, **environment)
        assert problem.startswith("one.yaml:5: auth.credentials[0].tokens[0]: this is not a secret of at least 16")
        assert "canary" not in problem
        assert "xxx" not in problem


@pytest.mark.parametrize(
    "options",
    [
        ["exporters.otlp={endpoint: 'localhost:4316'}"],
        ["exporters.otlp={endpoint: 'other:4317'}", "receivers.otlp.protocols.grpc.endpoint=:4317"],
        ["exporters.otlp={endpoint: '127.0.0.2:4317'}"],
        ["exporters.otlp={endpoint: '127.0.0.1:4317'}", "receivers.otlp.protocols.grpc=null"],
        ["exporters.otlphttp={endpoint: 'http://localhost'}", "receivers.otlp.protocols.http.endpoint=127.0.0.1:0"],
    ],
)
def test_exporters_to_other_servers(options: list[str]) -> None:
    assert load([], options, {}).exporters


def test_what_a_collector_has_and_nothing_here_stands_for() -> None:
    found = problems("service: {pipelines: {}}\nprocessors: {batch: {}}\nextensions: {}\n")
    assert len(found) == 3
    assert all("leave it out: there are no pipelines" in one for one in found)
