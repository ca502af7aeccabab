"""What a record costs: server CPU time beside a peer, from one run on one machine. See docs/benchmarks.md.

    workload.py   what is sent
    driver.py     the client, a process of its own; connection.py is how it speaks
    servers.py    what is measured: Ringtail, rotel
    process.py    CPU time and memory of a process, from the kernel
    measure.py    warm-up, interleaved rounds, checks that nothing was lost on the way
    report.py     JSON lines, the table, the documentation
    run.py        the command line (`make bench`)

No figure decides anything here: a run fails only when a request was not answered as it should be.
"""
