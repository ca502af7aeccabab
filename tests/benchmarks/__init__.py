"""What a record costs: server CPU time beside a peer, from one run on one machine. See docs/benchmarks.md.

    workload.py   what is sent
    driver.py     the client, a process of its own; connection.py is how it speaks
    servers.py    what is measured: Ringtail, rotel
    process.py    CPU time and memory of a process, from the kernel
    measure.py    warm-up, interleaved rounds, checks that nothing was lost on the way
    report.py     JSON lines, the table, the documentation
    run.py        the command line (`make bench`)

Beside it, each with a command line of its own:

    memory.py     what the rings say that they hold, and what the process holds (`make bench-memory`)
    growth.py     what a record costs as requests, connections, rings and logs grow (`make bench-growth`)
    log.py        the log's own figures (`make bench-log`), with logfiles.py, traces.py and ack.py
    query.py      how long queries take (`make bench-query`), with answers.py, asking.py, questions.py and shop.py
    soak.py       minutes or hours of steady work (`make soak`), with mixture.py, slope.py and plot.py
    fresh.py      requests whose trace ids never come again; goals.py has goals and verdicts

No figure decides anything but in `memory.py` and `soak.py`: else a run fails only when a request was not answered as it
should be.
"""
