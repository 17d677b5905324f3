"""`python -m sweeps`, the same as the `sweeps` command."""

from sweeps.cli import app

app(prog_name="sweeps")
