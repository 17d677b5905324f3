"""The steps of the test on two hosts, in their order; each prints a line when it has worked."""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compare import equal_stores, equal_tracking
from hosts import Host, HostError, make_laptop, run, wait
from laptop import JOBS, KEYS, STORE, Background, Laptop

CHECKOUT = Path(__file__).resolve().parents[2]
HEAD, WORKER = "wsss-head", "wsss-worker"
HOSTS = {HEAD: "10.77.0.2", WORKER: "10.77.0.3"}
ADDRESS = f"http://127.0.0.1:{JOBS}"
EPOCHS = 40
"""A training must take longer than the start of a process on the other host, at least 5 s: Tune
gives a waiting trial to the process that is free first, and drops the one that it was starting."""
SETTINGS = (
    f"train.epochs={EPOCHS}",
    "train.crop_size=64",
    "train.batch_size=4",
    "labels.scales=[1.0]",
    "network.batch_norm=frozen",
)
SWEEP = ["V", "--preset", "tiny", *(w for s in SETTINGS for w in ("--set", s))]
PICTURES = "pictures"
NUM_CELLS = 16


class Test:
    """The steps, in their order; each prints a line when it has worked."""

    def __init__(self, patience: float) -> None:
        self.patience, self.started = patience, time.monotonic()
        folder = make_laptop(CHECKOUT, HOSTS)
        self.laptop = Laptop(folder, CHECKOUT)
        self.fetched, self.local = folder / "fetched", folder / "local"
        self.hosts: dict[str, Host] = {}
        self.file = folder / "cluster.mine.yaml"
        self.tunnel: Background
        self.follower: Background

    def say(self, text: str) -> None:
        """Print a line with the seconds since the start."""
        print(f"[{time.monotonic() - self.started:5.0f} s] {text}", flush=True)

    def seconds(self, usual: float) -> float:
        """Return a time limit, stretched for slow machines."""
        return usual * self.patience

    def make_hosts(self) -> None:
        """Start two hosts that only have pictures, and wait for their sshd."""
        from wsss.data.drawn.folder import draw_voc

        laptop = self.laptop
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(laptop.key))
        public = laptop.key.with_suffix(".pub").read_text()
        drawn = draw_voc(laptop.folder / PICTURES, num_train=6, num_extra=6, num_val=1)
        for name, address in HOSTS.items():
            host = self.hosts[name] = Host(name, address, CHECKOUT, public)
            shutil.copytree(drawn, host.home / PICTURES)
            self.start_host(host)
        self.say(f"hosts: {', '.join(HOSTS)}, in network namespaces, with sshd")

    def start_host(self, host: Host) -> None:
        """Start a host and wait until it lets us in under its name."""
        host.start()
        words = self.laptop.ssh("-o", "ConnectTimeout=2", f"root@{host.name}", "hostname")

        def answers() -> bool:
            try:
                return self.laptop.run(*words, seconds=20).strip() == host.name
            except HostError:
                host.first_process()
                return False

        wait(answers, f"sshd of {host.name}", seconds=self.seconds(60))

    def bring_up(self) -> None:
        """Make secrets and bucket, fill the cluster file, `ray up`, wait for both nodes."""
        laptop = self.laptop
        laptop.start_bucket()
        laptop.run(sys.executable, "-m", "sweeps.cluster.secrets", seconds=60)
        node_env = laptop.home / ".config" / "wsss" / "node.env"
        lines = [f"{key}={value}\n" for key, value in (KEYS | {"WSSS_PG_DIR": "/tmp/pg"}).items()]
        node_env.write_text("".join(lines))
        values = {
            "HEAD_HOST": HEAD,
            "WORKER_HOSTS": WORKER,
            "SSH_USER": "root",
            "SSH_KEY": str(laptop.key),
            "STORE": STORE,
            "TMP": "/tmp/wsss",
        }
        laptop.run(
            sys.executable,
            "cluster/fill.py",
            "cluster.onprem.yaml",
            "--output",
            str(self.file),
            *(f"{name}={value}" for name, value in values.items()),
            seconds=60,
        )
        # One CPU each, so that trials run on both, and continue when the worker is gone.
        text = self.file.read_text().replace("--num-cpus=0", "--num-cpus=1")
        join = "ray start --address=$RAY_HEAD_IP:6379"
        self.file.write_text(text.replace(join, f"{join} --num-cpus=1"))
        self.say("bucket, secrets and cluster file")
        laptop.run("ray", "up", "--yes", str(self.file), seconds=self.seconds(600))
        self.say("ray up: the head is up, with PostgreSQL and MLflow")
        self.wait_for_nodes(2)

    def nodes(self) -> int:
        """Return how many nodes `ray status` on the head calls active."""
        words = self.laptop.ssh(f"root@{HEAD}", ". ~/.wsss/env.sh; ray status")
        try:
            text = self.laptop.run(*words, seconds=self.seconds(60))
        except HostError:
            return 0
        active = re.search(r"Active:\n(.*?)\n(?:Idle|Pending):", text, re.DOTALL)
        return sum(map(int, re.findall(r"^ +(\d+) ", active[1], re.MULTILINE))) if active else 0

    def wait_for_nodes(self, count: int) -> None:
        """Wait until `ray status` shows that many nodes."""
        what = f"{count} nodes in `ray status`"
        wait(lambda: self.nodes() == count, what, seconds=self.seconds(400), every=5)
        self.say(f"ray status: {count} nodes")

    def examine(self) -> None:
        """Open the tunnel and let `sweeps doctor` look for problems."""
        self.tunnel = self.laptop.open_tunnel(HEAD, "tunnel")
        self.say("tunnel to the job server and MLflow")
        try:
            text = self.laptop.sweeps(
                "doctor",
                "--address",
                ADDRESS,
                "--store",
                STORE,
                "--data",
                f"/root/{PICTURES}",
                seconds=self.seconds(300),
                more=self.laptop.mlflow_access(),
            )
        finally:
            self.tunnel.check_alive()
        self.say(f"sweeps doctor: no problem in {len(text.splitlines())} lines")

    def submit(self) -> None:
        """Submit Table V and wait until a training has ended."""
        words = ["submit", *SWEEP, "--data", f"/root/{PICTURES}", "--store", STORE]
        words += ["--address", ADDRESS]
        self.follower = self.laptop.start("submit", sys.executable, "-m", "sweeps", *words)
        self.until(lambda: self.num_done() >= 1, "a first result")
        self.say("sweeps submit V: a first result is in the bucket")

    def num_done(self) -> int:
        """Return the finished runs in the bucket."""
        return sum(key.endswith("/done.json") for key in self.keys("runs/"))

    def keys(self, folder: str) -> list[str]:
        """Return the keys of the bucket's objects in a folder of the store."""
        import boto3

        bucket, _, prefix = STORE.removeprefix("s3://").partition("/")
        pages = boto3.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=bucket, Prefix=f"{prefix}/{folder}")
        return [entry["Key"] for page in found for entry in page.get("Contents", [])]

    def until(self, true: Callable[[], Any], what: str) -> Any:
        """Wait for something that has to happen while the sweep is followed."""

        def found() -> Any:
            self.follower.check_alive()
            return true()

        return wait(found, what, seconds=self.seconds(400), every=0.3)

    def followed(self) -> str:
        """Return the sweep's log as far as it was followed, without its line breaks."""
        return " ".join(self.follower.text().split())

    def cut_off(self) -> None:
        """Kill the following command and the tunnel; check that the sweep continues; attach."""
        before = self.num_done()
        self.follower.cut_off()
        self.tunnel.cut_off()
        limit = self.seconds(300)
        wait(lambda: self.num_done() > before, "a result while nobody follows", seconds=limit)
        self.tunnel = self.laptop.open_tunnel(HEAD, "tunnel-again")
        words = ["attach", "--address", ADDRESS]
        self.follower = self.laptop.start("attach", sys.executable, "-m", "sweeps", *words)
        self.until(lambda: "trials done" in self.follower.text(), "the log from its beginning")
        self.say("laptop cut off and back: the sweep continued, `sweeps attach` follows it")

    def half_trained(self) -> str | None:
        """Return an unfinished training on the worker that has a checkpoint in the bucket."""
        keys = self.keys("cams/")
        for cam in self.hosts[WORKER].home.glob(".cache/wsss/*/cams/*"):
            is_here = (cam / "stage.lock").exists() and not (cam / "done.json").exists()
            saved = [key for key in keys if f"/{cam.name}/checkpoints/" in key]
            if is_here and saved and not any(f"/{cam.name}/done.json" in key for key in keys):
                return cam.name
        return None

    def kill_worker(self) -> None:
        """Kill the worker's host in the middle of a training; later switch it on again."""
        worker = self.hosts[WORKER]
        cam = self.until(self.half_trained, f"a training on {WORKER} (are they too short? EPOCHS)")
        worker.kill()
        self.say(f"{WORKER} killed in the middle of training {cam}")
        self.until(lambda: "it resumes on another node" in self.followed(), "the loss in the log")
        self.say("the sweep noticed that a node went away")
        self.start_host(worker)
        self.say(f"{WORKER} is switched on again, without Ray")

    def finish(self) -> None:
        """Wait for the end of the sweep; nothing may count as a failure."""
        limit = self.seconds(900)
        wait(lambda: self.follower.process.poll() is not None, "the sweep's end", seconds=limit)
        text = self.follower.text()
        if self.follower.process.returncode:
            raise HostError(f"sweeps attach: {self.follower.process.returncode}\n{text[-5000:]}")
        if failures := [key for key in self.keys("runs/") if key.endswith("failure.json")]:
            raise HostError(f"failures in the bucket: {', '.join(failures)}")
        if restarts := re.findall(r".{0,200}restart \d of \d", self.followed()):
            raise HostError(f"the lost host was counted as a failure: {restarts}")
        if self.num_done() != NUM_CELLS:
            raise HostError(f"{self.num_done()} results in the bucket, not {NUM_CELLS}")
        self.say(f"the sweep has ended with exit code 0; the cluster has {self.nodes()} nodes")

    def compare(self) -> None:
        """Fetch the results, run the same sweep on the laptop alone, compare everything."""
        laptop = self.laptop
        laptop.sweeps(
            "fetch",
            "--store",
            STORE,
            "--to",
            str(self.fetched),
            "--address",
            ADDRESS,
            seconds=self.seconds(120),
            more=KEYS,
        )
        table = laptop.sweeps("table", "--store", str(self.fetched), seconds=self.seconds(60))
        self.say(f"sweeps fetch, sweeps table:\n{table}")
        data = ["--data", str(laptop.folder / PICTURES), "--store", str(self.local)]
        laptop.sweeps("run", *SWEEP, *data, seconds=self.seconds(900))
        self.say("the same sweep on the laptop alone has ended")
        alone = laptop.sweeps("table", "--store", str(self.local), seconds=self.seconds(60))
        if alone != table:
            raise HostError(f"on the laptop alone the table differs:\n{alone}")
        self.say(f"equal tables; equal stores: {equal_stores(self.fetched, self.local)}")
        access = laptop.mlflow_access()
        os.environ.update(access)
        compared = equal_tracking(
            access["MLFLOW_TRACKING_URI"], f"sqlite:///{self.local / 'mlflow.db'}"
        )
        self.say(f"equal in MLflow on PostgreSQL and in a local SQLite file: {compared}")

    def take_down(self) -> None:
        """End the cluster's Ray as docs/cluster.md says for shared hosts; the worker's ends too."""
        stop = "bash ~/wsss-sweeps/cluster/stop_ray.sh"
        self.laptop.run("ray", "exec", str(self.file), stop, seconds=self.seconds(120))

        def left() -> list[str]:
            found = [line for host in self.hosts.values() for line in host.processes()]
            return [line for line in found if "raylet" in line or "gcs_server" in line]

        wait(lambda: not left(), "the end of Ray on both hosts", seconds=self.seconds(180))
        self.say("Ray has ended on both hosts; everything else ends with the namespaces")
