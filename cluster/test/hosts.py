"""Test hosts on one machine: kernel namespaces with a network between them.

Everything is in one outer process namespace whose first process is the test itself: however it
ends, the kernel removes all processes, mounts and network links with it.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

INSIDE = "WSSS_CLUSTER_TEST"
"""Variable that is set within the namespaces, to the scratch folder."""
SCRATCH = Path("/media")
"""The scratch folder's path inside: short, and outside /tmp, of which each host has its own."""
LAPTOP = "10.77.0.1"
SPACES = ("--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
"""Options of unshare. When the first process of a process namespace ends, all in it end."""
PACKAGES = {
    "unshare": "util-linux",
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "make": "make",
    "runuser": "util-linux",
}
SSHD = """\
Port 22
ListenAddress {address}
HostKey {home}/.sshd/host_key
PidFile none
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
AuthorizedKeysFile {home}/.ssh/authorized_keys
StrictModes no
MaxStartups 100
MaxSessions 100
"""


class HostError(RuntimeError):
    """Something that the test needs is missing or did not happen; the message says what."""


def missing() -> list[str]:
    """Return what this machine lacks, each with its remedy."""
    found = []
    if sys.platform != "linux" or os.geteuid() != 0:
        found.append("namespaces and sshd need Linux and root: run it as root, e.g. by sudo")
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacking = sorted({PACKAGES[tool] for tool in PACKAGES if not shutil.which(tool, path=path)})
    if not [*Path("/usr/lib/postgresql").glob("*/bin/initdb")] and not shutil.which("initdb"):
        lacking.append("postgresql")
    if lacking:
        found.append(f"apt-get install {' '.join(lacking)}")
    return found


def enter(scratch: Path) -> int:
    """Run this program again as the first process of new namespaces; return its exit code."""
    words = ["unshare", *SPACES, sys.executable, *sys.argv]
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    env = os.environ | {INSIDE: str(scratch), "PATH": path}
    # Ctrl-C also reaches the inner process, which ends in order; this one waits for it.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    process = subprocess.Popen(words, env=env, preexec_fn=_die_with_parent)  # noqa: PLW1509
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def wait(true: Callable[[], Any], what: str, *, seconds: float, every: float = 0.5) -> Any:
    """Return what `true` returns once that is true. Raises HostError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            raise HostError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return found


def make_laptop(checkout: Path, hosts: dict[str, str]) -> Path:
    """Make this mount namespace the laptop's; return the folder that only it uses.

    checkout: replaced, within this namespace, by a copy of its files, which nobody edits meanwhile.
    hosts: name -> address, for /etc/hosts.
    """
    run("mount", "--make-rprivate", "/")
    run("mount", "--bind", os.environ[INSIDE], str(SCRATCH))
    laptop = SCRATCH / "laptop"
    copy = laptop / "checkout"
    shutil.copytree(checkout, copy, symlinks=True, ignore=partial(_left_out, checkout))
    (copy / ".venv").mkdir()
    run("mount", "--bind", str(checkout / ".venv"), str(copy / ".venv"))
    run("mount", "-o", "remount,bind,ro", str(copy / ".venv"))
    for folder in ("tmp", "home"):
        (laptop / folder).mkdir()
    (laptop / "tmp").chmod(0o1777)
    run("mount", "--bind", str(laptop / "tmp"), "/tmp")
    checkout.mkdir(parents=True, exist_ok=True)  # it may lie below /tmp
    run("mount", "--rbind", str(copy), str(checkout))
    names = "".join(f"{address} {name}\n" for name, address in hosts.items())
    (laptop / "hosts").write_text(f"127.0.0.1 localhost\n{LAPTOP} laptop\n{names}")
    run("mount", "--bind", str(laptop / "hosts"), "/etc/hosts")
    run("ip", "link", "set", "lo", "up")
    # A fixed hardware address: a bridge's own changes when hosts come and go, and the others would
    # look for the laptop at the old one for a while.
    run("ip", "link", "add", "br0", "address", "02:00:00:00:00:01", "type", "bridge")
    run("ip", "addr", "add", f"{LAPTOP}/24", "dev", "br0")
    run("ip", "link", "set", "br0", "up")
    os.chdir(checkout)
    return laptop


def _left_out(checkout: Path, folder: str, names: list[str]) -> set[str]:
    """Return the names in a folder of the checkout that the code does not need."""
    left_out = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
    if Path(folder) == checkout:
        left_out |= {".git", ".venv", "data", "results", "cluster.mine.yaml"}
    return left_out & set(names)


class Host:
    """A host with its own sshd, home folder and /tmp. It can be killed and started again."""

    def __init__(self, name: str, address: str, checkout: Path, public_key: str) -> None:
        self.name, self.address, self.checkout = name, address, checkout
        self.folder, self.link = SCRATCH / name, f"to-{name}"
        self.home = self.folder / "home"
        self.process: subprocess.Popen[bytes] | None = None
        for folder in (self.home / ".ssh", self.home / ".sshd", self.folder / "tmp"):
            folder.mkdir(parents=True, mode=0o700)
        (self.folder / "tmp").chmod(0o1777)
        (self.home / ".ssh" / "authorized_keys").write_text(public_key)
        key = str(self.home / ".sshd" / "host_key")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        config = SSHD.format(address=address, home=Path("~root").expanduser())
        (self.home / ".sshd" / "config").write_text(config)

    def start(self) -> None:
        """Switch the host on; its sshd answers a moment later."""
        shutil.rmtree(self.folder / "work", ignore_errors=True)  # of the overlay that is gone
        log = (self.folder / "sshd.log").open("ab")
        words = [self.name, self.address, LAPTOP, self.folder, self.checkout, sys.base_prefix]
        script = Path(__file__).with_name("host.sh")
        self.process = subprocess.Popen(
            ["unshare", *SPACES, "bash", str(script), *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        inner = wait(self.first_process, f"{self.name}: its first process", seconds=20)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "eth0", "netns", inner)
        run("ip", "link", "set", self.link, "master", "br0", "up")

    def kill(self) -> None:
        """End all processes and the network link of the host at once, as a power cut does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        gone = ["ip", "link", "show", self.link]
        wait(
            lambda: subprocess.run(gone, capture_output=True, check=False).returncode,
            f"{self.name}: the end of its link",
            seconds=30,
        )

    def processes(self) -> list[str]:
        """Return the command lines of what runs on the host."""
        assert self.process is not None
        found = []
        space = (Path("/proc") / str(self.first_process()) / "ns" / "pid").readlink()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "ns" / "pid").readlink() == space:
                    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(words.decode(errors="replace").strip())
            except OSError:
                continue
        return found

    def first_process(self) -> str | None:
        """Return the pid, as seen from here, of the first process in the host's namespaces.

        Raises HostError if the host has ended.
        """
        assert self.process is not None
        if self.process.poll() is not None:
            raise HostError(f"{self.name} ended: {(self.folder / 'sshd.log').read_text()[-500:]}")
        outer = self.process.pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return children[0] if children else None


def run(*words: str) -> None:
    """Run a command. Raises HostError with its error output if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
