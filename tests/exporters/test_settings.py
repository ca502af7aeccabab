"""Exporters in the configuration: groups under names, kinds of other packages, secrets that stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.errors import InvalidConfig
from collector.exporters.kinds import find, known
from collector.exporters.otlp.settings import GrpcSettings, HttpSettings
from collector.security.secret import Secret
from collector.settings import differences, dump, load


def problems(*texts: str, **environment: str) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        load([(f"{number}.yaml", text) for number, text in enumerate(texts)], [], environment)
    return caught.value.problems


def test_groups_have_the_keys_of_their_kinds_and_merge_by_name() -> None:
    config = load(
        [
            ("one", "exporters: {otlp/eu: {endpoint: 'a:1', timeout: 7s}, otlphttp: {endpoint: [http://b, http://c]}}"),
            ("two", "exporters: {otlp/eu: {signals: logs}, otlphttp: null, otlphttp/new: {endpoint: 'http://d'}}"),
        ],
        ["exporters.otlp/eu.tls.insecure=true", "exporters.otlphttp/new.sending_queue.batch={max_size: 5}"],
        {},
    )
    assert list(config.exporters) == ["otlp/eu", "otlphttp/new"]
    eu, new = config.exporters["otlp/eu"], config.exporters["otlphttp/new"]
    assert isinstance(eu, GrpcSettings)
    assert isinstance(new, HttpSettings)
    assert (eu.endpoint, eu.timeout, eu.signals, eu.tls.insecure) == (("a:1",), 7.0, ("logs",), True)
    assert new.sending_queue.batch.max_size == 5
    assert load([("printed", dump(config))], [], {}) == config
    other = load([], ["exporters.otlp/eu={endpoint: 'a:1', timeout: 8s}"], {})
    assert differences(config, other) == [
        "exporters.otlp/eu.signals",
        "exporters.otlp/eu.timeout",
        "exporters.otlp/eu.tls.insecure",
        "exporters.otlphttp/new",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exporters: {otpl: {}}", "0.yaml:1: 'exporters.otpl': unknown key; did you mean otlp?"),
        ("exporters: {otlp: {endpoints: a}}", "did you mean endpoint?"),
        ("exporters: {otlp: {}}", "exporters.otlp.endpoint: is missing"),
        ("exporters: {otlp/a/b: {}}", "unknown key"),
        ("exporters: [otlp]", "must be a mapping of groups, each named one of"),
        ("exporters:\n  otlp: {endpoint: 'a:1'}\n  otlp: {endpoint: 'b:1'}", "stands here twice, first at 0.yaml:2"),
        ("exporters: {otlp: {endpoint: 'a:1', tls: {cert_file: x}}}", "cert_file and key_file belong together"),
        ("exporters: {otlp: {endpoint: 'a:1', compression: zstd}}", "is not one of gzip, none"),
        ("exporters: {otlp: {endpoint: 'a:1', headers: {te: trailers}}}", "te is the transport's own"),
        ("exporters: {otlp: {endpoint: 'a:1', headers: [a]}}", "must be a mapping"),
        ("exporters: {otlp: {endpoint: 'a:1', headers: {'a b': c}}}", "is not a header's name"),
        ("exporters: {otlp: {endpoint: 'a:1', retry_on_failure: {multiplier: 0.5}}}", "too small"),
    ],
)
def test_mistakes_are_told(text: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(text)), problems(text)


def test_headers_are_secrets() -> None:
    text = (
        "exporters: {otlphttp: {endpoint: 'http://a', headers: "
        "{Authorization: 'Bearer ${env:T}', x-key: canary-1, x-other: '${env:T}'}}}"
    )
    config = load([("one", text)], [], {"T": "canary-2"})
    headers = config.exporters["otlphttp"].headers  # type: ignore[attr-defined]
    assert {name: value.reveal() for name, value in headers.items()} == {
        "authorization": "Bearer canary-2",
        "x-key": "canary-1",
        "x-other": "canary-2",
    }
    assert all(isinstance(value, Secret) for value in headers.values())
    shown = f"{dump(config)}{config}{headers}"
    assert "canary" not in shown
    assert "Bearer ${env:T}" in dump(config)
    (problem,) = problems("exporters: {otlphttp: {endpoint: 'http://a', headers: {x: 'canary é'}}}")
    assert "canary" not in problem


PACKAGE = """
from collector.exporters.base import Exporter
from collector.exporters.kinds import Kind
from collector.exporters.settings import ExporterSettings


class Nowhere(Exporter):
    def __init__(self, settings, context):
        pass

    async def export(self, batch):
        return None


KIND = Kind("Nowhere.", ExporterSettings, Nowhere)
"""


def test_a_package_may_bring_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ringtail_nowhere.py").write_text(PACKAGE)
    facts = tmp_path / "ringtail_nowhere-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: ringtail-nowhere\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(
        "[ringtail.exporters]\nnowhere = ringtail_nowhere:KIND\nbroken = ringtail_missing:KIND\n"
        "[ringtail.backends]\nstrange = ringtail_nowhere:Nowhere\notlp = ringtail_nowhere:KIND\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"nowhere", "broken", "strange", "otlp"} <= set(known())
    config = load([], ["exporters.nowhere/1.timeout=9s"], {})
    assert config.exporters["nowhere/1"].timeout == 9.0
    kind = find("otlp")
    assert kind is not None
    assert kind.settings is GrpcSettings, "our own names are ours"
    assert "cannot be imported" in problems("exporters: {broken: {}}")[0]
    assert "is no Kind" in problems("exporters: {strange: {}}")[0]
