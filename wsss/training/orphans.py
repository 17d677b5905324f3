"""Ends a training's process when the Ray node that started it is dead."""

import os
import threading
import time

CHECK_SECONDS = 2.0


def end_with_raylet() -> bool:
    """Let this process of Ray's end when its raylet is dead; return whether that is watched.

    Ray looks for this itself, but takes a raylet for alive whose exit nobody has collected, as in
    containers whose first process collects none. Its trials would wait for ever to report, and
    keep their training locked and their GPU occupied. Whose parent is no raylet is left alone.
    """
    parent = os.getppid()
    if os.environ.get("RAY_RAYLET_PID") != str(parent):
        return False
    name = "end-with-raylet"
    if not any(thread.name == name for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(parent,), name=name, daemon=True).start()
    return True


def _watch(parent: int) -> None:
    while os.getppid() == parent:  # a dead parent's children are given another one at once
        time.sleep(CHECK_SECONDS)
    os._exit(1)  # threads of Ray wait for the raylet, so no orderly end would come
