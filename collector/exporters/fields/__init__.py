"""The fields of records, read out of their payload bytes in one walk, compiled: what the scanner's columns (otlp/block.py)
do not have.

    elements.py   repeated fields, attributes and their values
    records.py    spans and log records, and what stands around them
    points.py     data points of the five kinds

The tables of all backends are made of these. How a row is laid out is each backend's own: as Python's values
(rows.py), as PostgreSQL's COPY has it (postgres/pack.py), as ClickHouse's columns (clickhouse/sheet.py).

Nothing is copied, and no memory taken: texts and ids are extents of the payload, of length 0 when absent. A repeated field
of messages is where its first element stands, and how many there are; `next_of` goes from one to the next, in a copy where
it is needed twice.

The bytes were validated by the scanner, and a singular field stands in them once. So nothing here raises.
"""
