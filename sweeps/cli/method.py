"""The `wsss` command: one stage of the method at a time. Tables are filled by `sweeps`.

Those commands that need no store are wsss's own, and `python -m wsss` has them alone.
"""

from sweeps.cli import stages
from wsss.cli import gpu_check, make_app
from wsss.predict_cli import predict

PANELS = {
    "Training and CAMs": (stages.train_cam, stages.infer, stages.evaluate),
    "Labels and segmentation": (stages.pseudo_label, predict),
    "Before a run": (gpu_check,),
}
"""Heading in the help -> its commands, in this order."""

app = make_app(
    "Class activation maps as pseudo-labels: check data, train, infer CAMs, "
    "evaluate, write pseudo-labels, predict, check a GPU.",
    PANELS,
)

if __name__ == "__main__":
    app(prog_name="wsss")
