"""`python -m wsss`, the same as the `wsss` command."""

from wsss.cli import app

app(prog_name="wsss")
