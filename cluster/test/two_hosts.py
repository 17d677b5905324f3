"""Test a real cluster: `make cluster-test` (Linux, root; about ten minutes).

Two hosts with sshd are made in namespaces of this machine. Then everything is done as in
docs/cluster.md, with cluster.onprem.yaml: `ray up`, a sweep on both hosts with an object store, and
MLflow with PostgreSQL; the laptop is cut off and comes back, and one host is killed in the middle
of a training. At the end, results, table and MLflow must equal those of a sweep on the laptop
alone.

    python cluster/test/two_hosts.py [--scratch FOLDER] [--keep] [--patience FACTOR]
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from hosts import INSIDE, HostError, enter, missing


def main() -> int:
    """Do all steps in new namespaces; 0 if all worked, 1 if not, 2 if they cannot be done here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, help="an empty folder; default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave logs and results in the scratch")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="factor of all time limits, for slow machines"
    )
    given = parser.parse_args()
    if INSIDE in os.environ:
        return _inside(given.patience)
    if lacking := missing():
        print("error: this test cannot run here:", *lacking, sep="\n  ", file=sys.stderr)
        return 2
    scratch = given.scratch or Path(tempfile.mkdtemp(prefix="wsss-two-hosts-"))
    scratch.mkdir(parents=True, exist_ok=True)
    if any(scratch.iterdir()):
        print(f"error: {scratch} is not empty; give an empty folder", file=sys.stderr)
        return 2
    try:
        code = enter(scratch.absolute())
    finally:  # the namespaces are gone, and with them what was mounted below the scratch folder
        if not given.keep:
            shutil.rmtree(scratch)
    if given.keep:
        print(f"logs and results are in {scratch}")
    return code


def _inside(patience: float) -> int:
    """Do the steps as the first process of the namespaces, which end with it."""
    from steps import Test

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        test = Test(patience)
        for step in (
            test.make_hosts,
            test.bring_up,
            test.examine,
            test.submit,
            test.cut_off,
            test.kill_worker,
            test.finish,
            test.compare,
            test.take_down,
        ):
            step()
    except HostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; ending everything", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
