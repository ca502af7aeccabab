"""Fuzzing: small programs that hold a part of Ringtail against an oracle, for atheris to feed and for pytest to replay.

* `target.py`: what a fuzz target is, and the limits under which one input is judged;
* `targets/`: one file for each part, with its oracle and its first inputs;
* `registry.py`: all of them;
* `wire.py`: mutations that keep protobuf's lengths right;
* `coverage.c`, `compiled.py`: a build of the compiled modules that tells atheris which way it went;
* `fuzzing.py`: one target under atheris, in a process of its own;
* `__main__.py`: `make fuzz`, which runs them all, keeps the corpus and reports;
* `corpus/TARGET`: inputs that reach all that was reached, from our own runs;
* `regressions/TARGET`: inputs that once broke something;
* `test_replay.py`: both of them, in `make test`, without atheris.
"""
