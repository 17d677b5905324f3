"""The `wsss` command: one stage of the method at a time. Tables are filled by `sweeps`."""

from wsss.lazy_cli import Lazy, lazy_app

COMMANDS = {
    "predict": Lazy(
        "wsss.predict_cli:predict",
        "Segment pictures of your own: a palette mask and an overlay each.",
    ),
    "pseudo-label": Lazy(
        "wsss.pseudo_label_cli:pseudo_label",
        "Write palette PNGs of pseudo-labels at image size, and score them before and after.",
    ),
    "train-cam": Lazy(
        "wsss.cam_cli:train_cam",
        "Train a CAM network; given again, it continues from its last checkpoint.",
    ),
    "infer": Lazy(
        "wsss.cam_cli:infer",
        "Write multi-scale CAMs as <id>.npz: `classes` [P], `cams` [P, H, W] in [0, 1].",
    ),
    "evaluate": Lazy(
        "wsss.cam_cli:evaluate",
        "Score CAM files against pixel masks: mIoU at the fixed and at the best threshold.",
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
    "Class activation maps as pseudo-labels: check data, train, infer CAMs, "
    "evaluate, write pseudo-labels, predict, check a GPU.",
    COMMANDS,
)
