"""Jaeger's view of traces: search by service, operation and tags, its data model, its catalogue of operations."""
