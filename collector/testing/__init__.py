"""Shipped with the package, for tests of Ringtail and of what is built on it."""
