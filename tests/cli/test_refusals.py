"""Wrong words are refused before any work, with what is wrong and a remedy."""

import re
from pathlib import Path

import pytest
from commands import program

TRAIN = "wsss train-cam --data VOC --preset tiny --run"
HEADLINE = "sweeps headline --data VOC --preset tiny"
SLURM = "sweeps slurm V --data VOC"
SUBMIT = "sweeps submit --address http://[::1]:9"
HUGE = 10**40


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sweeps plna", "'plan'"),
        ("wsss infre", "'infer'"),
        *(
            (f"sweeps {word} V", "V: not taken here; a sweep is named with --sweep")
            for word in ("status", "table", "ledger", "sync")
        ),
        ("wsss data check --data x --data y", "--data: given twice; give it once"),
        ("wsss data check --split --data --split b --data x", "x: no such folder"),
        ("wsss data check", "give one data set: wsss data check --data FOLDER"),
        ("wsss data check . --data .", "give one data set"),
        ("wsss data check .", "no folder JPEGImages"),
        ("wsss data draw s3://bucket/x", "s3://bucket/x is an address; give a path on this"),
        ("wsss data draw /proc/x", "No such file or directory; name another path"),
        (f"wsss data draw x --train {HUGE}", "should be less than or equal to"),
        ("wsss infer --run x --out http://x/y", "--out: http://x/y is an address"),
        ("wsss infer --run /etc/passwd", "is a file"),
        ("wsss evaluate --run x --cams /etc/passwd", "is a file"),
        ("wsss pseudo-label --run x --out /etc/passwd", "is a file"),
        ("wsss pseudo-label --run x --gpus 1", "no effect without --address"),
        ("wsss pseudo-label --run x --address auto --workers 3", "no effect with --address"),
        ("wsss gpu-check --minutes inf", "--minutes: inf is no finite number; give one"),
        ("sweeps run V --gpus inf", "--gpus: inf is no finite number; give one"),
        (f"{TRAIN} x --recipe rin", "no recipe 'rin'"),
        (f"{TRAIN} x --set train.learning_rate=1", "unknown setting 'train.learning_rate'"),
        (f"{TRAIN} x --set data.train_split=nope", "nope.txt: no such split"),
        (f"{TRAIN} x --set train.crop_size=16", "must be greater than or equal to 17"),
        (f"{TRAIN} x --weights no.pt", "no.pt: No such file or directory; give a state dict file"),
        (f"{TRAIN}=", "--run: empty, perhaps from an unset variable; give it a value or leave it"),
        (f"{TRAIN} {'r' * 300}", "File name too long; name another path"),
        (f"sweeps search --samples {HUGE}", "should be less than or equal to"),
        ("sweeps run V --hang-after 1e300", "should be less than or equal to"),
        ("sweeps plan V --json --max-concurrent 2", "no effect with --json"),
        ("sweeps doctor --lock /usr/bin/env", "/usr/bin/env: not UTF-8 text"),
        (f"{SUBMIT} V --set train.lrr=1", "did you mean train.lr"),
        (f"{SUBMIT} VII", "no table 'VII'; did you mean VI"),
        (f"{SUBMIT} V --preset huge", "no preset 'huge'"),
        *(
            (f"{SUBMIT} V {option}", f"{option}: give an absolute path")
            for option in ("--data a/voc", "--data s3://b/voc", "--weights w.pt", "--store results")
        ),
        ("sweeps status --store results --address http://h", "give an absolute path"),
        *(
            (f"sweeps status --json {other}", "exclude each other; give one of them")
            for other in ("--csv", "--trials", "--watch")
        ),
        ("sweeps report --measure nicest", "'nicest' is not one of 'fixed', "),
        (f"sweeps report --seeds {HUGE}", "less than or equal to 1000"),
        ("sweeps sync --store typo", "no sweep, search or headline at all"),
        ("sweeps run V --probe 3", "should be greater than or equal to 10"),
        (
            "sweeps calibrate --data VOC --preset tiny --address http://127.0.0.1:8265",
            "give `--address auto` on a node",
        ),
        ("sweeps headline --cpus 2", "no effect without --address, --workers and --gpus"),
        ("sweeps headline --gpus 1 --label-workers 999", "no effect with Ray"),
        (f"{HEADLINE} magic", "no labels magic; there are: none, crf"),
        (f"{HEADLINE} --cell III[maybe,no]", "no cell III[maybe,no]; there are: III[no,no]"),
        (f"{HEADLINE} --cell best", "--cell best has nothing to choose from"),
        (f"{HEADLINE} --export test", "test.txt: no such split; there are: train"),
        (f"{HEADLINE} --set-segmentation lr=0", "lr = 0: must be greater"),
        (f"{HEADLINE} --set-labels crf.width=3", "'crf.width'; did you mean crf.preset?"),
        (f"{SLURM} --gpus 1", "(--nodes, --gpus-per-node, --cpus-per-node)"),
        (f"{SLURM} --gpus-per-node 2 --gpus 4", "0 such workers fit"),
        (f"{SLURM} --address auto", "No such option"),
        (f"{SLURM} --set train.epochz=1", "train.epochz"),
        (f"{SLURM} --partition a;b", "not the name of a SLURM partition"),
        (f"{SLURM} --micro-batch 0", "--micro-batch"),
        (f"{SLURM} --probe 50 --notify x", "--probe and --notify exclude each other"),
        (f"{SLURM} --probe 50 --retry-failed", "--probe and --retry-failed exclude each other"),
    ],
)
def test_wrong_words_are_refused_with_a_remedy_and_make_nothing(
    line: str, told: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = program(*(drawn if word == "VOC" else word for word in line.split()))
    assert result.exit_code == 2
    assert told in " ".join(re.sub("[│╭╰─╮╯]", " ", result.stderr).split())
    assert not [*tmp_path.iterdir()]
