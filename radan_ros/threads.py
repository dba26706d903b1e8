"""Threads of the libraries underneath."""

from __future__ import annotations

import math
import os
from pathlib import Path


def limit_blas() -> None:
    """Let NumPy's BLAS compute on one thread in this process, from now on: for programs to call, not for the library.

    Where it splits a product between threads depends on their number, and with it the last digits: the same images
    would not give the same bytes on another machine. Beside OpenVINO's threads, which spin, its own also wait: of
    the meshes of single faces, which take 0.1 ms, some took 12.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")


def available_cores() -> int:
    """How many cores this process may use: those that it may run on, or as many as its container's quota is worth."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not a Linux
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no quota ("max"), or no container
        return cores
