"""What only a GPU can show. `make gpu-check` measures more; these are the tests among it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from wsss.config import RunConfig
from wsss.data.voc import Sample
from wsss.gpu_check.bench import Options
from wsss.gpu_check.equality import all_cases, compare
from wsss.gpu_check.real_training import EVERY_STEP, TIMES_REPEAT, resume
from wsss.gpu_check.steps import subjects_that_may_wait, waits_of_a_step
from wsss.gpu_check.subjects import CELLS, cam_subject
from wsss.overrides import apply_overrides
from wsss.presets import SHORT
from wsss.training.cam import build_cam_net, cam_training
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.execution import Execution
from wsss.training.loop import MARGIN, Training
from wsss.training.process import Process

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
GPU = torch.device("cuda")
OPTIONS = Options(GPU, Path(), small=True, preset="short")


def test_every_step_and_inference_is_equal_to_the_cpus() -> None:
    found = [compare(case, GPU)[0] for case in all_cases(OPTIONS)]
    assert found
    assert [one for one in found if one.verdict == "FAIL"] == []


@pytest.mark.parametrize("name", subjects_that_may_wait(OPTIONS))
def test_no_step_waits_for_the_gpu(name: str) -> None:
    assert waits_of_a_step(subjects_that_may_wait(OPTIONS)[name], GPU) == []


def test_a_smaller_share_of_the_gpu_gets_a_smaller_micro_batch_and_the_same_loss() -> None:
    config = apply_overrides(SHORT, CELLS["F3"] | {"train.batch_size": 8})
    subject = cam_subject(config, {})

    def stepped(execution: Execution) -> tuple[Any, torch.Tensor, int]:
        step, batch = subject.step(subject.build(), GPU, "fp32", execution), subject.pinned(GPU)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        values = step(batch).cpu()
        return step, values, torch.cuda.max_memory_allocated()

    step, values, peak = stepped(Execution())
    assert step.micro_batch == 8
    total = torch.cuda.get_device_properties(GPU).total_memory
    step, again, lower = stepped(Execution(gpu_share=0.6 * peak / MARGIN / total))
    assert 1 <= step.micro_batch < 8
    assert lower < peak
    torch.testing.assert_close(again, values, rtol=1e-3, atol=1e-5)


def test_a_training_resumed_within_an_epoch_ends_as_one_in_a_piece(
    small: RunConfig, samples: list[Sample]
) -> None:
    config = apply_overrides(small, CELLS["F3"] | {"train.epochs": 1})

    def start(checkpoints: CheckpointFolder | None = None) -> Training:
        model, process = build_cam_net(config, samples, 20), Process(device=GPU)
        given: dict[str, Any] = {"process": process, "checkpoints": checkpoints}
        return cam_training(model, config, samples, execution=EVERY_STEP, **given)

    found = resume(start)
    assert found.after > 0
    assert found.change <= TIMES_REPEAT * found.repeat
