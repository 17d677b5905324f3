"""What the user does on the laptop: commands, a tunnel, following a sweep."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from hosts import LAPTOP, HostError, wait

JOBS, MLFLOW, BUCKET_PORT = 8265, 5000, 9000
BUCKET = "results"
STORE = f"s3://{BUCKET}/lab"
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": f"http://{LAPTOP}:{BUCKET_PORT}",
}


class Background:
    """A command that runs in the background, with its output in a file."""

    def __init__(self, words: list[str], log: Path, env: dict[str, str]) -> None:
        self.log, self.words = log, words
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    def text(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(errors="replace")

    def cut_off(self) -> None:
        """Kill it, as an empty battery would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def check_alive(self) -> None:
        """Raise HostError if it has ended."""
        if self.process.poll() is not None:
            raise HostError(f"{' '.join(self.words)}: ended early:\n{self.text()[-3000:]}")


class Laptop:
    """A home folder, the project, and the environment that docs/cluster.md asks for."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.folder, self.checkout = folder, checkout
        self.home = folder / "home"
        self.key = self.home / ".ssh" / "id_ed25519"
        self.key.parent.mkdir(mode=0o700)
        bin_folder = checkout / ".venv" / "bin"
        self.env = {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "COLUMNS": "200",
            "NO_PROXY": "*",
            "RAY_AUTH_MODE": "token",
            "RAY_UP_enable_autoscaler_v2": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        self.number = 0

    def run(self, *words: str, seconds: float, more: dict[str, str] | None = None) -> str:
        """Run a command to its end; return its standard output.

        Raises HostError with the end of its output if it fails or takes longer.
        """
        self.number += 1
        log = self.folder / f"{self.number:02d}-{Path(words[0]).name}.log"
        with log.open("w+") as file:
            try:
                done = subprocess.run(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    text=True,
                    env=self.env | (more or {}),
                    timeout=seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                said = (error.stdout or b"")[-2000:].decode(errors="replace")
                said += log.read_text(errors="replace")[-2000:]
                raise HostError(f"{' '.join(words)}: longer than {seconds:.0f} s\n{said}") from None
        with log.open("a") as file:
            file.write(done.stdout)
        if done.returncode:
            said = log.read_text(errors="replace")[-5000:]
            raise HostError(f"{' '.join(words)}: exit code {done.returncode}\n{said}")
        return done.stdout

    def sweeps(self, *words: str, seconds: float, more: dict[str, str] | None = None) -> str:
        """Run `sweeps ...` as `run` does."""
        return self.run(sys.executable, "-m", "sweeps", *words, seconds=seconds, more=more)

    def start(self, name: str, *words: str, more: dict[str, str] | None = None) -> Background:
        """Start a command in the background."""
        return Background(list(words), self.folder / f"{name}.log", self.env | (more or {}))

    def ssh(self, *options: str) -> list[str]:
        """Return an ssh command with this laptop's key."""
        accept = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        return ["ssh", "-i", str(self.key), *accept, "-o", "LogLevel=ERROR", *options]

    def open_tunnel(self, head: str, name: str) -> Background:
        """Open the tunnel to the head's job server and MLflow, and wait until both answer."""
        ports = [f"-L{port}:127.0.0.1:{port}" for port in (JOBS, MLFLOW)]
        words = self.ssh("-N", "-o", "ExitOnForwardFailure=yes", *ports, f"root@{head}")
        tunnel = self.start(name, *words)
        for port, path in ((JOBS, "/api/version"), (MLFLOW, "/health")):
            wait(partial(_answers, port, path), f"port {port} of the tunnel", seconds=60)
            tunnel.check_alive()
        return tunnel

    def start_bucket(self) -> None:
        """Start an object store that every host reaches, with an empty bucket."""
        import boto3

        program = str(self.checkout / ".venv" / "bin" / "moto_server")
        self.start("moto", program, "-H", LAPTOP, "-p", str(BUCKET_PORT))
        wait(lambda: _answers(BUCKET_PORT, "/moto-api/", LAPTOP), "moto", seconds=120)
        os.environ.update(KEYS)
        boto3.client("s3").create_bucket(Bucket=BUCKET)

    def mlflow_access(self) -> dict[str, str]:
        """Return the variables with which MLflow's client reaches the head's server."""
        return {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{MLFLOW}",
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": (
                self.home / ".config" / "wsss" / "mlflow_password"
            ).read_text(),
        }


def _answers(port: int, path: str, host: str = "127.0.0.1") -> bool:
    """Whether something answers HTTP there, even with an error."""
    import requests

    try:
        requests.get(f"http://{host}:{port}{path}", timeout=5)
    except requests.RequestException:
        return False
    return True
