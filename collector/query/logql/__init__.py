"""LogQL."""
