"""The accounts of a daemon that began with an empty directory: whatever came in is somewhere, and is counted once.

For each signal: accepted = appended to the log = its next offset = held by the ring + evicted from it; and what the
clients count as acknowledged is what the daemon counts as accepted, but for requests whose answer nobody read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from collector.otlp.signals import SIGNALS, Signal


def accounts(exposition: str) -> dict[Signal, Counter[str]]:
    """Return the counts of `/metrics` that concern records, by signal."""
    found: dict[Signal, Counter[str]] = {signal: Counter() for signal in SIGNALS}
    by_name = {signal.name: signal for signal in SIGNALS}
    by_noun = {signal.records: signal for signal in SIGNALS}
    names = {
        "ringtail_wal_appended_records_total": "appended",
        "ringtail_wal_next_offset": "next_offset",
        "ringtail_wal_damaged_records_total": "damaged",
        "ringtail_ring_records": "in_ring",
        "ringtail_ring_evicted_records_total": "evicted",
    }
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name in names:
                found[by_name[sample.labels["signal"]]][names[sample.name]] += int(sample.value)
            elif sample.name.startswith("otelcol_receiver_"):
                what, _, noun = sample.name.removeprefix("otelcol_receiver_").removesuffix("_total").partition("_")
                found[by_noun[noun]][what] += int(sample.value)
    return found


def disagreements(
    exposition: str, acknowledged: Mapping[Signal, int], unread: Mapping[Signal, int] | None = None
) -> list[str]:
    """Compare the counts with each other and with the clients'; a line for each difference.

    `acknowledged` are the records that clients count, `unread` those of requests whose answer they did not read.
    """
    findings = []
    for signal, counts in accounts(exposition).items():
        accepted = counts["accepted"]
        others = {
            "appended to the log": counts["appended"],
            "the log's next offset": counts["next_offset"],
            "in the ring and evicted": counts["in_ring"] + counts["evicted"],
        }
        findings += [
            f"{signal.name}: {accepted} accepted, {some} {what}" for what, some in others.items() if some != accepted
        ]
        least = acknowledged.get(signal, 0)
        most = least + (unread or {}).get(signal, 0)
        if not least <= accepted <= most:
            findings.append(f"{signal.name}: {accepted} accepted, {least} to {most} acknowledged to clients")
        if counts["damaged"]:
            findings.append(f"{signal.name}: {counts['damaged']} damaged")
    return findings
