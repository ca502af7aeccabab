"""Killed, stopped and hindered: a real process, real signals."""
