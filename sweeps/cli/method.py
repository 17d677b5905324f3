"""The `wsss` command: one stage of the method at a time. Tables are filled by `sweeps`.

Those commands that need no store are wsss's own, and `python -m wsss` has them alone.
"""

from wsss.cli import COMMANDS
from wsss.lazy_cli import Lazy, lazy_app

STAGES = {
    "train-cam": Lazy(
        "sweeps.cli.stages:train_cam",
        "Train a CAM network; given again, it continues from its last checkpoint.",
    ),
    "infer": Lazy(
        "sweeps.cli.stages:infer",
        "Write multi-scale CAMs as <id>.npz: `classes` [P], `cams` [P, H, W] in [0, 1].",
    ),
    "evaluate": Lazy(
        "sweeps.cli.stages:evaluate",
        "Score CAM files against pixel masks: mIoU at the fixed and at the best threshold.",
    ),
    "pseudo-label": Lazy(
        "sweeps.cli.stages:pseudo_label",
        "Write palette PNGs of pseudo-labels at image size, and score them before and after.",
    ),
}

app = lazy_app(
    "Class activation maps as pseudo-labels: check data, train, infer CAMs, "
    "evaluate, write pseudo-labels, predict, check a GPU.",
    STAGES | COMMANDS,
)

if __name__ == "__main__":
    app(prog_name="wsss")
