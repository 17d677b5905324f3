"""What one trial brings from a bucket before it starts, and takes there as it goes on.

With a local store, nothing of it happens. Only the first rank uploads.
"""

from pathlib import Path

from sweeps.plan.counted import FILE_NAME, inference_key
from sweeps.store.lease import Lease
from sweeps.store.remote import Remote
from sweeps.store.store import Store, read_json
from wsss.config import RunConfig
from wsss.identity import cam_id, run_id
from wsss.training.process import Process


def start_together(
    remote: Remote, training_id: str, process: Process, *, room: str = "cams"
) -> None:
    """Give all ranks the checkpoints of the first, which has brought its own and the bucket's.

    room: the store's folder of trainings of this kind.
    """
    checkpoints = remote.mirror / room / training_id / "checkpoints"
    own = (remote.machine(), [path.name for path in checkpoints.glob("epoch_*.pt")])
    machine, names = process.gather(own)[0]
    if machine != remote.machine():
        remote.take_over_training(f"{room}/{training_id}", names)


class RemoteTrial:
    """One rank's part in keeping bucket and mirror equal.

    lease: what the first rank holds the training by; it is checked before anything is uploaded.
    """

    def __init__(
        self, store: Store, config: RunConfig, process: Process, lease: Lease | None
    ) -> None:
        self.store, self.config, self.process, self.lease = store, config, process, lease
        self.cam_id, self.run_id = cam_id(config), run_id(config)
        self.remote = store.remote

    def start(self) -> bool:
        """Bring here what the bucket has, and there what it lacks; return whether there is work.

        All ranks then go on from the checkpoints of the first, whatever their mirrors held.
        """
        if self.remote is None:
            return self._unfinished()
        if self.process.is_first:
            self.remote.pull_folder(self._run_folder)
            self.remote.pull_training(f"cams/{self.cam_id}")
            self.push_training()
            if not self._unfinished():  # finished here before it could be uploaded
                self.remote.push_run(self.run_id)
        start_together(self.remote, self.cam_id, self.process)
        return bool(self.process.gather(self._unfinished())[0])

    def after_save(self, path: Path) -> None:
        """Upload the records and the checkpoint just saved."""
        self.push_training()

    def push_training(self) -> None:
        """Upload what the bucket lacks of the training. Raises StoreError after some tries."""
        if self.remote:
            self._check_lease()
            self.remote.push_training(f"cams/{self.cam_id}")

    def pull_counts(self) -> None:
        """Bring here the run whose pixel counts may serve this one too."""
        if self.remote is None:
            return
        known = read_json(self.store.cam(self.cam_id).path / FILE_NAME) or {}
        if other := known.get(inference_key(self.config)):
            self.remote.pull_folder(f"runs/{other}")

    def finish(self) -> None:
        """Upload the finished run, metrics.json last, and that its counts may be used."""
        if self.remote and self.process.is_first:
            self._check_lease()
            self.remote.push_run(self.run_id)
            self.push_training()

    @property
    def _run_folder(self) -> str:
        return f"runs/{self.run_id}"

    def _check_lease(self) -> None:
        if self.lease:
            self.lease.check()

    def _unfinished(self) -> bool:
        return self.store.run(self.run_id).metrics() is None
