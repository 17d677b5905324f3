"""`python -m wsss` is the program `wsss`: the one place of wsss that knows of sweeps."""

from sweeps.cli.method import app  # noqa: TID251

app(prog_name="wsss")
