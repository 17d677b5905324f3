"""Tables by name."""

import pytest

from sweeps.tables.find import find_tables
from wsss.overrides import ConfigError


def test_tables_are_found_by_name_and_alias_in_the_order_of_the_paper() -> None:
    found = find_tables(["noise-floor", "lambdas", "III", "V"])
    assert [table.name for table in found] == ["III", "V", "noise-floor"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("controlls", "did you mean controls"),
        ("Noise_Floor", r"did you mean noise-floor\?"),
        ("lambda", r"did you mean lambdas\?"),
        ("iv", r"did you mean IV"),
        ("xyz", "there are: III, IV, V, VI, noise-floor"),
    ],
)
def test_an_unknown_table_is_refused_with_those_spelled_alike(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"no table '{name}'; {hint}"):
        find_tables([name])
