"""What the tests of faults compare with: one sweep that nothing disturbed."""

from pathlib import Path

import pytest
from chaos_sweeps import command, run

from wsss.data.drawn.folder import draw_voc

pytest.register_assert_rewrite("invariants")  # so that a failure shows what differs


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_voc(
        tmp_path_factory.mktemp("data") / "pictures", num_train=6, num_extra=6, num_val=1
    )


@pytest.fixture(scope="session")
def unbroken(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("unbroken") / "store"
    done = run(command(pictures, store))
    assert done.returncode == 0, done.stdout + done.stderr
    return store
