"""End to end: real clients, a daemon process, real ports."""
