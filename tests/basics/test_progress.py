"""The bar over many files."""

import io

import pytest

from wsss.basics.progress import shown


class Terminal(io.StringIO):
    """An error output that a person sees."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.mark.parametrize(("output", "is_seen"), [(Terminal(), True), (io.StringIO(), False)])
def test_only_a_terminal_gets_a_bar_and_each_item_comes_once(
    output: io.StringIO, is_seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", output)
    assert list(shown(["a", "b"], "reading")) == ["a", "b"]
    assert list(shown(iter("ab"), "logging", 2)) == ["a", "b"]
    assert ("100%" in output.getvalue()) is is_seen
    assert ("reading" in output.getvalue()) is is_seen
    assert is_seen or output.getvalue() == ""
