"""`python -m wsss` is the program `wsss`: the one place of wsss that knows of sweeps."""

from sweeps.cli.method import app

app(prog_name="wsss")
