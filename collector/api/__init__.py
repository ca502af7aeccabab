"""The query API: what Grafana, Prometheus, curl and operators ask."""
