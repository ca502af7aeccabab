"""TraceQL."""
