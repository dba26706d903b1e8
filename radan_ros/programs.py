"""How the programs start: signals and threads are seen to before anything is loaded that takes time."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from functools import partial
from types import FrameType


def run(module: str, function: str = "main", *, node: bool = False) -> int:
    """Load a program and run it.

    Parameters
    ----------
    module, function : str
        What to call; it takes no arguments and returns an exit status.
    node : bool
        A program that runs until it is told to end, with handlers of its own for that (`radan_ros.ros.ending`).
        Interrupted it has done what it was asked to, and its status is 0; one that should have made files has not: 130,
        and 143 after SIGTERM.

    Returns
    -------
    int
        The exit status.
    """

    def status(number: int) -> int:
        return 0 if node else 128 + number

    later: dict[signal.Signals, Callable[[int, FrameType | None], object] | signal.Handlers]
    later = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if not node:  # one that runs in the background of a script leaves the script's Ctrl-C alone
        later = {number: handler for number, handler in later.items() if signal.getsignal(number) != signal.SIG_IGN}
    # A signal while modules load ends it without a traceback.
    for number in later:
        signal.signal(number, lambda number, _: os._exit(status(number)))
    # The matrices here are too small for several threads: OpenBLAS would wake them for each product, and a frame that
    # takes 1 ms takes 8 ms now and then. Before NumPy is imported; the network has threads of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What OpenCV warns of on standard error, a damaged picture for instance, is told by us, with its name.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    main = getattr(importlib.import_module(module), function)
    from radan_ros.fastdds import use_profile

    use_profile()
    try:
        if not node:  # which says itself what a signal does
            for number, handler in later.items():
                signal.signal(number, handler)
        ended = int(main())
    except KeyboardInterrupt as interrupt:  # before or after what the program does about it
        ended = status(*interrupt.args or (signal.SIGINT,))
    for number in later:  # Python's own ending has no handlers any more, and would die of one
        signal.signal(number, signal.SIG_IGN)
    return ended


# The programs that need no running ROS: under these names in setup.py.
reconstruct = partial(run, "radan_ros.tools.reconstruct")
process_bag = partial(run, "radan_ros.tools.process_bag")
benchmark = partial(run, "radan_ros.tools.benchmark")
export = partial(run, "radan_ros.tools.export")
face_model = partial(run, "radan_ros.tools.face_model")
prepare = partial(run, "radan_ros.tools.prepare")
train = partial(run, "radan_ros.tools.train")
train_presence = partial(run, "radan_ros.tools.presence")
label = partial(run, "radan_ros.tools.label")
mark = partial(run, "radan_ros.tools.mark")
evaluate = partial(run, "radan_ros.tools.evaluate")
