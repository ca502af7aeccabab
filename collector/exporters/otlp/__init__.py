"""Forwarding to any OTLP server: another Ringtail, an OpenTelemetry Collector, a vendor."""
