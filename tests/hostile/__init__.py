"""Hostile clients and overload against a real daemon, measured: `make overload`, and short forms as tests.

`run.py` starts a daemon with a small memory limit, lets well-behaved clients (`steady.py`) send at a steady rate, and
sets one attack after the other beside them. Clients are raw asyncio in processes of their own (`actor.py`), so that none
of the daemon's code judges itself.
"""
