"""Notice that a trial's node will be taken away, as clouds give it of a spot machine."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import ray
from ray._private.state import state

_LOOK_SECONDS = 5.0
"""How often Ray is asked. AWS gives two minutes of notice, Google Cloud and Kubernetes half of one."""


@contextlib.contextmanager
def notice() -> Iterator[Callable[[], bool]]:
    """Watch for the notice while a trial, or one of its workers, runs here: for Ray draining this node.

    In a thread of its own, so that no step waits for an answer: Ray's may take long just then.

    Yields:
        Whether to save a checkpoint now. True once at each look that finds the node draining: so the
        trial goes on as long as it can, and little of that is lost when the node goes.
    """
    node = ray.get_runtime_context().get_node_id()
    is_over, is_due = threading.Event(), threading.Event()

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            with contextlib.suppress(Exception):  # Ray's head is away: it is asked again
                if node in state.get_draining_nodes():
                    is_due.set()

    def is_asked() -> bool:
        due = is_due.is_set()
        if due:
            is_due.clear()
        return due

    threading.Thread(target=watch, name="notice", daemon=True).start()
    try:
        yield is_asked
    finally:
        is_over.set()
