"""`python -m collector` is the same as `ringtail`."""

from collector.cli import main

main(prog_name="ringtail")
