"""Times of jobs that take turns, so that a change of the machine's pace meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Range:
    """Least, median and most of some rounds."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, rounds: ArrayLike) -> Range:
        """Of the rounds (R,), at least one."""
        given = np.asarray(rounds, np.float64)
        return cls(float(given.min()), float(np.median(given)), float(given.max()))

    def values(self) -> tuple[float, float, float]:
        """The three numbers."""
        return self.least, self.median, self.most


def interleaved(
    jobs: Mapping[str, Callable[[], object]], *, seconds: float = 0.0, rounds: int = 5, pause: float = 0.0
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of one call of each job, a number for each round; the jobs take turns.

    Parameters
    ----------
    jobs : dict of callables
        Each is called once before the first round.
    seconds : float
        For each job in each round: it is called until they are over, at least once, and the median counts.
    rounds : int
    pause : float
        Seconds before each turn: threads of a runtime that had the turn before spin for a while.

    Returns
    -------
    dict of (rounds,) float64
    """
    for job in jobs.values():
        job()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            time.sleep(pause)
            mine: list[float] = []
            end = time.perf_counter() + seconds
            while not mine or time.perf_counter() < end:
                start = time.perf_counter()
                job()
                mine.append(1e3 * (time.perf_counter() - start))
            times[name].append(float(np.median(mine)))
    return {name: np.array(of_job) for name, of_job in times.items()}
