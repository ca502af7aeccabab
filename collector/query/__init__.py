"""Queries over ring and log."""
