"""PromQL."""
