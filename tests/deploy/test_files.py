"""The files under deploy/ agree with each other, with the daemon, and with the documentation.

No engine, cluster or Grafana runs here. What they would need to find (files, ports, routes, metrics, data sources) is
checked to be there; the images' steps are done in test_image.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from collector.cli import main
from collector.cli.running import BAD_CONFIG
from collector.config import Config
from collector.daemon import DRAIN_S
from collector.memory import divided, limit_bytes
from collector.otlp.signals import SIGNALS
from collector.quantities import read_duration, read_size
from collector.ring.ring import bytes_min
from collector.settings import load, load_files
from tests.deploy.dockerfile import context_files, stages
from tests.e2e.requirements import require
from tests.house.test_documented import app_and_registry

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DATA = "/var/lib/ringtail"
USER = 10001
IMAGE_CONFIG = "/opt/ringtail/etc/collector.yaml"

BUILDER, FINAL = stages(DEPLOY / "Dockerfile")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES = {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes" / "ringtail.yaml").read_text())}
SOURCES = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/ringtail.yaml").read_text())["datasources"]


def container_config() -> Config:
    return load_files([str(DEPLOY / "collector.yaml")], [], {})


def ports_of(config: Config) -> dict[str, int]:
    protocols = config.receivers.otlp.protocols
    assert protocols.grpc is not None
    assert protocols.http is not None
    endpoints = {"otlp": protocols.grpc.endpoint, "otlp-http": protocols.http.endpoint, "api": config.api.endpoint}
    assert all(endpoint.startswith("0.0.0.0:") for endpoint in endpoints.values())
    return {name: int(endpoint.rpartition(":")[2]) for name, endpoint in endpoints.items()}


def validated(command: list[str]) -> None:
    """Check `run …` as the image or the unit calls it, with the files that will be at its paths."""
    assert command[0] == "run"
    here = {
        IMAGE_CONFIG: DEPLOY / "collector.yaml",
        "/etc/ringtail/collector.yaml": ROOT / "config" / "collector.yaml",
    }
    arguments = [str(here.get(one, one)) for one in command[1:]]
    result = CliRunner().invoke(main, ["validate", "--settings-only", *arguments])
    assert result.exit_code == 0, result.output


async def routes() -> set[str]:
    app, _ = await app_and_registry()
    return {route.path for route in app.routes}  # type: ignore[attr-defined]


def every_yaml() -> list[Path]:
    return sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml"), *(ROOT / "config").rglob("*.yaml")])


@pytest.mark.parametrize("path", every_yaml(), ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_is_valid(path: Path) -> None:
    assert list(yaml.safe_load_all(path.read_text()))


# The image


def test_the_build_finds_what_it_copies() -> None:
    seen = context_files(ROOT, DEPLOY / "Dockerfile.dockerignore")
    for copy in BUILDER.all("COPY"):
        for source in copy.words[:-1]:
            assert source in seen or any(path.startswith(f"{source}/") for path in seen), source
    assert not [path for path in seen if path.endswith((".so", ".c", ".pyc"))]
    project = (ROOT / "pyproject.toml").read_text()
    for name in (*re.findall(r'sources = \["(.+?)"\]', project), "collector/otlp/wire.pxd", "collector/py.typed"):
        assert name in seen, name


def test_the_image_runs_the_daemon_as_an_unprivileged_user() -> None:
    assert FINAL.one("USER").text == f"{USER}:{USER}"
    assert FINAL.one("VOLUME").words == [DATA] == [FINAL.one("WORKDIR").text]
    assert FINAL.one("STOPSIGNAL").text == "SIGTERM"
    assert {int(port) for port in FINAL.one("EXPOSE").words} == set(ports_of(container_config()).values())
    assert FINAL.one("ENTRYPOINT").words == ["ringtail"]
    validated(FINAL.one("CMD").words)
    assert container_config().wal.directory == DATA


def test_the_image_checks_its_health_without_another_program() -> None:
    command = json.loads(FINAL.one("HEALTHCHECK").text.partition("CMD ")[2])
    assert command[0] == "ringtail"
    assert command[1] in main.commands


def test_the_images_come_from_a_python_that_is_supported() -> None:
    lowest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert lowest is not None
    for path in (DEPLOY / "Dockerfile", DEPLOY / "sample-app" / "Dockerfile"):
        for stage in stages(path):
            version = re.fullmatch(r"python:3\.(\d+)-slim", stage.base)
            assert version is not None, stage.base
            assert int(version[1]) >= int(lowest[1])


def test_the_container_differs_from_the_defaults_only_where_it_must() -> None:
    config, plain = container_config(), Config()
    assert (config.stores, config.query, config.wal.retention) == (plain.stores, plain.query, plain.wal.retention)


# Compose


def test_compose_builds_and_mounts_what_is_there() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"ringtail", "sample-app", "prometheus", "grafana"}
    for name, service in services.items():
        if "build" in service:
            context = DEPLOY / service["build"]["context"]
            assert (context / service["build"].get("dockerfile", "Dockerfile")).is_file(), name
        else:
            assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"]), "a version, so that it stays what it is"
        for mount in service.get("volumes", []):
            source, target = mount.split(":")[:2]
            assert target.startswith("/")
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
                assert mount.endswith(":ro")
            else:
                assert source in COMPOSE["volumes"]
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), "there is no authentication"
        for other in service.get("depends_on", {}):
            assert other in services


def test_compose_runs_ringtail_read_only_and_lets_it_drain() -> None:
    ringtail = COMPOSE["services"]["ringtail"]
    assert ringtail["read_only"] is True
    assert ringtail["cap_drop"] == ["ALL"]
    assert f"ringtail:{DATA}" in ringtail["volumes"]
    assert read_duration(ringtail["stop_grace_period"]) > DRAIN_S
    published = {int(port.rpartition(":")[2]) for port in ringtail["ports"]}
    assert published == set(ports_of(container_config()).values())
    endpoint = COMPOSE["services"]["sample-app"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert endpoint == f"http://ringtail:{ports_of(container_config())['otlp-http']}"


async def test_prometheus_scrapes_routes_that_exist() -> None:
    require("promtool")
    path = DEPLOY / "prometheus" / "prometheus.yml"
    await asyncio.to_thread(subprocess.run, ["promtool", "check", "config", str(path)], capture_output=True, check=True)
    for job in yaml.safe_load(path.read_text())["scrape_configs"]:
        assert job["static_configs"] == [{"targets": [f"ringtail:{ports_of(container_config())['api']}"]}]
        assert job.get("metrics_path", "/metrics") in await routes()


# Grafana


def test_grafana_reads_everything_from_one_url() -> None:
    url = f"http://ringtail:{ports_of(container_config())['api']}"
    assert {one["type"] for one in SOURCES if one["url"] == url} == {"tempo", "loki", "prometheus"}
    assert sum(one.get("isDefault", False) for one in SOURCES) == 1
    tempo = next(one for one in SOURCES if one["type"] == "tempo")
    assert tempo["jsonData"]["streamingEnabled"] == {"search": False, "metrics": False}
    assert tempo["jsonData"]["serviceMap"]["datasourceUid"] == "ringtail-metrics"
    jaeger = next(one for one in SOURCES if one["type"] == "jaeger")
    assert jaeger["url"] == f"{url}/jaeger"


def test_links_between_data_sources_lead_somewhere() -> None:
    identifiers = [one["uid"] for one in SOURCES]
    assert len(set(identifiers)) == len(identifiers)
    text = (DEPLOY / "grafana/provisioning/datasources/ringtail.yaml").read_text()
    links = re.findall(r"datasourceUid: (\S+)", text)
    assert set(links) == {"ringtail-traces", "ringtail-logs", "ringtail-metrics"} <= set(identifiers)
    # A single dollar sign would be taken for an environment variable of Grafana's.
    assert re.sub(r"\$\$", "", re.sub(r"#.*", "", text)).count("$") == 0


def test_the_dashboard_shows_metrics_that_exist() -> None:
    (dashboard,) = (DEPLOY / "grafana" / "dashboards").glob("*.json")
    documented = (ROOT / "docs" / "operations.md").read_text()
    panels = json.loads(dashboard.read_text())["panels"]
    assert len({one["id"] for one in panels}) == len(panels) > 5
    for panel in panels:
        assert panel["datasource"]["uid"] in {one["uid"] for one in SOURCES}
        for target in panel["targets"]:
            names = re.findall(r"\b(?:otelcol|ringtail)_\w+", target["expr"])
            assert names, target
            for name in names:
                assert f"`{name.removesuffix('_bucket')}`" in documented, name
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/ringtail.yaml").read_text())["providers"][0]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in COMPOSE["services"]["grafana"]["volumes"]


async def test_alerts_are_about_metrics_that_exist() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    _, registry = await app_and_registry()
    known = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    for rule in rules:
        names = set(re.findall(r"\bringtail_\w+", rule["expr"]))
        assert {name.removesuffix("_bucket") for name in names} <= known, rule["alert"]
        assert names or rule["alert"] == "RingtailDown"
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description"} <= set(rule["annotations"])
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]


def test_promtool_understands_the_alerts() -> None:
    require("promtool")
    rules = DEPLOY / "prometheus" / "alerts.yml"
    subprocess.run(["promtool", "check", "rules", rules], check=True, capture_output=True)


# Kubernetes and systemd


async def test_kubernetes() -> None:
    pod = KUBERNETES["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    extra = KUBERNETES["ConfigMap"]["data"]["collector.yaml"]
    config = load([("image", (DEPLOY / "collector.yaml").read_text()), ("map", extra)], [], {})
    assert container["args"] == ["run", "--config", IMAGE_CONFIG, "--config", "/etc/ringtail/collector.yaml"]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == ports_of(config)
    service = KUBERNETES["Service"]["spec"]["ports"]
    assert {port["name"]: port["port"] for port in service} == ports_of(config)
    assert {port["targetPort"] for port in service} == set(ports_of(config))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in await routes()
        assert container[probe]["httpGet"]["port"] == "api"
    assert pod["terminationGracePeriodSeconds"] > DRAIN_S
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == USER
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claim = KUBERNETES["StatefulSet"]["spec"]["volumeClaimTemplates"][0]
    assert mounts[config.wal.directory] == claim["metadata"]["name"]
    assert mounts["/etc/ringtail"] == "config"
    storage = read_size(f"{claim['spec']['resources']['requests']['storage']}B")
    assert 3 * config.wal.retention.max_bytes < storage
    stores = config.stores
    rings = stores.traces.max_bytes + stores.logs.max_bytes + stores.metrics.max_bytes
    assert rings < read_size(f"{container['resources']['requests']['memory']}B")
    available = read_size(f"{container['resources']['limits']['memory']}B")
    least = sum(bytes_min(one, getattr(stores, one.name).capacity) for one in SIGNALS)
    in_flight = config.receivers.otlp.max_in_flight_bytes
    _, for_rings = divided(limit_bytes(config.memory.limit, available), 80 << 20, in_flight, least)
    assert for_rings >= rings, "rings of the size that is configured fit into the container"


def test_the_cluster_lets_in_who_sends_and_who_reads() -> None:
    policy = KUBERNETES["NetworkPolicy"]["spec"]
    allowed = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    assert allowed == {port["name"] for port in KUBERNETES["Service"]["spec"]["ports"]}
    labels = KUBERNETES["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["egress"] == []


async def test_the_monitor_scrapes_what_there_is() -> None:
    monitor = yaml.safe_load((DEPLOY / "kubernetes" / "servicemonitor.yaml").read_text())["spec"]
    assert monitor["selector"]["matchLabels"].items() <= KUBERNETES["Service"]["metadata"]["labels"].items()
    ports = {port["name"] for port in KUBERNETES["Service"]["spec"]["ports"]}
    for endpoint in monitor["endpoints"]:
        assert endpoint["port"] in ports
        assert endpoint["path"] in await routes()


def test_systemd() -> None:
    unit = (DEPLOY / "systemd" / "ringtail.service").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    program, *command = settings["ExecStart"].split()
    assert program == "/opt/ringtail/bin/ringtail"
    validated(command)
    assert settings["RestartPreventExitStatus"] == str(BAD_CONFIG)
    assert "ExecStartPre" not in settings, "its exit status would not prevent restarts"
    assert settings["Type"] == "notify"
    assert float(settings["TimeoutStopSec"]) > DRAIN_S
    assert f"/var/lib/{settings['StateDirectory']}" == DATA == settings["WorkingDirectory"]
    assert f"wal.directory={DATA}" in command
