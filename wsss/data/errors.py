"""The error of all readers of a data set."""

from wsss.basics.errors import ForeseenError


class DataError(ForeseenError, ValueError):
    """Data that cannot be used; the message names the file, the rule and the remedy."""
