"""Commands of the `wsss` program that need no store of results; sweeps/cli/method.py has them all.

`python -m wsss` offers these alone.
"""

from wsss.lazy_cli import Lazy, lazy_app

COMMANDS = {
    "predict": Lazy(
        "wsss.predict_cli:predict",
        "Segment pictures of your own: a palette mask and an overlay each.",
    ),
    "gpu-check": Lazy(
        "wsss.gpu_check_cli:gpu_check",
        "Check that everything is right and fast on this machine's GPU, in eight minutes.",
    ),
    "data": Lazy(
        "wsss.data_cli:data_app",
        "Get, draw or check a data set in VOC layout.",
    ),
}

app = lazy_app(
    "Get, draw or check data, segment pictures, check a GPU. The installed `wsss` also trains, "
    "infers CAMs, evaluates and writes pseudo-labels.",
    COMMANDS,
)
