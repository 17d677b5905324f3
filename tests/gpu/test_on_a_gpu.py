"""What only a GPU can show. `make gpu-check` measures more; these are the tests among it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from wsss.gpu_check.__main__ import main
from wsss.gpu_check.trainings import CELLS, cam_case, other_cases
from wsss.overrides import apply_overrides
from wsss.presets import SHORT
from wsss.training.execution import Execution
from wsss.training.loop import MARGIN

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
GPU = torch.device("cuda")


def test_the_check_finds_no_fault(tmp_path: Path) -> None:
    assert main(["--small", "--preset=short", "--minutes=30", f"--out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "gpu_check.json").read_text())["sections"]
    assert not found["equality"]["skipped"]


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", ["B0", "F3", "DeepLab", "affinity network"])
def test_no_step_waits_for_the_gpu(name: str) -> None:
    base = apply_overrides(SHORT, {"train.crop_size": 128, "train.batch_size": 2})
    cams = {cell: cam_case(apply_overrides(base, own), {}) for cell, own in CELLS.items()}
    step, batch = (cams | other_cases("short", 128, {}))[name].warm(GPU, "tf32")
    torch.cuda.set_sync_debug_mode("error")  # raises where the host would wait
    try:
        step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_smaller_share_of_the_gpu_gets_a_smaller_micro_batch_and_the_same_loss() -> None:
    config = apply_overrides(SHORT, CELLS["F3"] | {"train.batch_size": 8})
    training = cam_case(config, {})

    def stepped(execution: Execution) -> tuple[Any, torch.Tensor, int]:
        step = training.step(training.build(), GPU, "fp32", execution)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        values = step(training.batch).cpu()
        return step, values, torch.cuda.max_memory_allocated()

    step, values, peak = stepped(Execution())
    assert step.micro_batch == 8
    total = torch.cuda.get_device_properties(GPU).total_memory
    step, again, lower = stepped(Execution(gpu_share=0.6 * peak / MARGIN / total))
    assert 1 <= step.micro_batch < 8
    assert lower < peak
    torch.testing.assert_close(again, values, rtol=1e-3, atol=1e-5)
