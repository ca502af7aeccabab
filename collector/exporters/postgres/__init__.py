"""PostgreSQL as a backend: docs/postgres.md."""
