"""The `wsss` command: one stage of the method at a time. Tables are filled by `sweeps`.

Those commands that need no store are wsss's own, and `python -m wsss` has them alone.
"""

from sweeps.cli import stages
from wsss.cli import add_commands, new_app

app = new_app(
    "Class activation maps as pseudo-labels: check data, train, infer CAMs, "
    "evaluate, write pseudo-labels, predict, check a GPU."
)
for command in (stages.train_cam, stages.infer, stages.evaluate):
    app.command(rich_help_panel="Training and CAMs")(command)
app.command(rich_help_panel="Labels and segmentation")(stages.pseudo_label)
add_commands(app)

if __name__ == "__main__":
    app(prog_name="wsss")
