"""`python -m wsss` is the program `wsss`: the one place of wsss that knows of sweeps."""

from sweeps.__main__ import wsss  # noqa: TID251

wsss()
