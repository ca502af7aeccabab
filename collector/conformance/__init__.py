"""The conformance kit: what OTLP asks of a server, as checks that speak only the wire and know only an endpoint.

Every line of OTLP's rules has a number (docs/conformance.md lists them); a check has the line's number and a letter,
a level in the specification's own words, and tells what it sent, what it expected and what it saw.

    check.py                       what a check is, and what becomes of it
    http_client.py http2_client.py grpc_client.py      three small clients, two of them on raw sockets, so that also
                                   what no well-behaved client sends can be sent
    payloads.py                    the requests, with ids and names that nobody else uses
    readback.py                    what was stored, asked for through Tempo's, Loki's and Prometheus' APIs
    launcher.py target.py          the server under test: an endpoint, or a Ringtail that the kit starts itself, also
                                   with a tiny size limit, without room, or to be stopped and killed
    transport.py grpc_calls.py http_requests.py http_responses.py http_errors.py http_connections.py json_mapping.py
    data_model.py open_points.py exporters.py          the checks, by the sections of the list
    kit.py report.py               running them, and telling what came of it

A black box: nothing here imports the receivers. Checks that need a server with settings of its own are skipped
against a foreign endpoint, and those about storage without a query API; each skip has its reason.
"""
