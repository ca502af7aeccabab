"""OTLP on the wire and in memory, without I/O."""
