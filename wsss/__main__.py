"""`python -m wsss`: the commands that need no store of results."""

from wsss.cli import app

app(prog_name="wsss")
