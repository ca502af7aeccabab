"""Metrics made of spans, as Tempo's metrics-generator makes them: for service maps and request rates.

From the ground up: `tally.py` counts the spans of a block, by label set, and pairs clients with servers; `history.py`
keeps the counters' values over time; `generator.py` feeds the one from what is committed and the other by the clock;
`series.py` gives both to PromQL and to a scrape.

Two families, named and labelled as Tempo's:

* `traces_spanmetrics_calls_total` and `traces_spanmetrics_latency` (a histogram) by service, span_name, span_kind and
  status_code;
* `traces_service_graph_request_total`, `_request_failed_total`, `_request_server_seconds` and `_request_client_seconds`
  (histograms) by client, server and connection_type.

They count what is received from the start of the process on, and begin anew after a restart, as counters do: `rate` and
`increase` know that. Made again from the spans that are still held they would begin at another value each time, and the
same span would count in two lives.
"""
