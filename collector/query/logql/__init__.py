"""LogQL over the store of logs.

The way of a query: `lexer` and `parser` (with `pipeline` and `literals`) make an `ast` of its text; `plan` checks
and compiles it; `source` and `steps` narrow the slices of a view, by the `columns` that `labels` defines; `logs`
returns lines, `metrics` numbers, and `catalogue` what streams there are.
"""
