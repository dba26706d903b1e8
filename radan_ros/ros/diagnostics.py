"""Counters, rates and latencies of the node, what it says of its troubles, and the diagnostics made of them."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

# From the header's stamp to the node, in the box, the work in its order, and from the stamp to the published faces.
# The detector has a thread of its own: what it takes is in no other stage, unless `deterministic_ids` is on.
STAGES = (
    "transport",
    "waiting",
    "decoding",
    "network",
    "metric",
    "publishing",
    "rendering",
    "publishing_views",
    "stamp_to_faces",
    "detection",
)
COUNTERS = (
    "received", "skipped", "paused", "dropped", "processed", "lost", "bad",
    "failed_fits", "rendered", "tracks_new", "tracks_lost",
)  # fmt: skip
RATES = 5.0  # seconds over which images a second are counted
LATELY = 10.0  # seconds for which a bad message makes the status a warning
REPEAT = 60.0  # seconds after which a complaint of one kind is logged again
KINDS = 100  # complaints remembered; the oldest is forgotten


class Complaints:
    """Logs what goes wrong at once, but the same kind at most once a minute: a camera may be wrong for a week.

    Texts that differ in numbers only are of one kind.
    """

    def __init__(self) -> None:
        self._kinds: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def line(self, text: str, now: float) -> str | None:
        """What to log for a complaint at time `now` (seconds), or None for nothing."""
        kind = re.sub(r"\d+", "#", text)
        last, repeats = self._kinds.get(kind, (None, 0))
        if last is not None and now - last < REPEAT:
            self._kinds[kind] = (last, repeats + 1)
            return None
        self._kinds[kind] = (now, 0)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        return f"{text} (and {repeats} more since the last such line)" if repeats else text


class Report:
    """Tells the log and the diagnostics what is going on. Used from several threads.

    Parameters
    ----------
    logger
        The node's.
    statistics : Statistics
    """

    def __init__(self, logger: Any, statistics: Statistics) -> None:
        self.logger = logger
        self.statistics = statistics
        self._complaints = Complaints()
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def bad(self, reason: str) -> None:
        """A message could not be used: counted, and complained of."""
        self.statistics.bad_message(reason)
        self.complain(reason)

    def complain(self, text: str) -> bool:
        """Warn, but of one kind of trouble at most once a minute; whether it was said now."""
        with self._lock:
            line = self._complaints.line(text, time.monotonic())
        if line is not None:
            self.logger.warning(line)
        return line is not None

    def forget(self) -> None:
        """What was told once is told again: the node begins anew."""
        with self._lock:
            self._said.clear()

    def once(self, what: str, text: str = "", *, warn: bool = False) -> None:
        """Log a text (default: `what`) the first time that `what` is told."""
        with self._lock:
            if what in self._said or len(self._said) >= KINDS:
                return
            self._said.add(what)
        if warn:  # on lines of their own: rclpy allows a line of code one severity
            self.logger.warning(text or what)
        else:
            self.logger.info(text or what)


@dataclass
class Statistics:
    """What happened to the images so far. Counted from two threads, hence the lock.

    Attributes
    ----------
    counters : dict
        received, skipped, paused, dropped, processed: images that came; of these left out for `max_rate`, while
        paused, because a newer one replaced them before they were looked at; and answered.
        lost: images that the camera sent and the node never saw: Fast DDS keeps the newest for it, and loses fragments.
        bad: messages that could not be used. failed_fits: faces that were left out because no pose fitted them.
        rendered: images for which depth or PNCC were drawn, because somebody subscribes to them.
        tracks_new, tracks_lost: faces that were published for the first, and for the last time.
    faces : int
        Faces in the last image.
    last_bad : str
        Why the last bad message was bad.
    seconds : dict
        What the latest images took, by stage.
    """

    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    faces: int = 0
    last_bad: str = ""
    seconds: dict[str, deque[float]] = field(default_factory=lambda: {stage: deque(maxlen=300) for stage in STAGES})
    lock: threading.Lock = field(default_factory=threading.Lock)
    _last_bad_at: float | None = None
    _ids: frozenset[int] = frozenset()
    _marks: deque[tuple[float, int, int]] = field(default_factory=deque)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        with self.lock:
            self.counters[name] += number

    def bad_message(self, reason: str) -> None:
        """Count a message that could not be used, and keep why."""
        with self.lock:
            self.counters["bad"] += 1
            self.last_bad = reason
            self._last_bad_at = time.monotonic()

    def bad_lately(self, now: float) -> bool:
        """Whether a message was bad in the `LATELY` seconds before `now` (time.monotonic)."""
        with self.lock:
            return self._last_bad_at is not None and now - self._last_bad_at < LATELY

    def answered(self, ids: frozenset[int], seconds: Mapping[str, float]) -> None:
        """Count an image that was answered with the faces `ids`, and what its stages took."""
        with self.lock:
            self.counters["processed"] += 1
            self.counters["rendered"] += "rendering" in seconds
            self.counters["tracks_new"] += len(ids - self._ids)
            self.counters["tracks_lost"] += len(self._ids - ids)
            self._ids, self.faces = ids, len(ids)
            for stage, value in seconds.items():
                self.seconds[stage].append(value)

    def forget_faces(self) -> None:
        """No face is followed any more, without an image that would say so."""
        with self.lock:
            self.counters["tracks_lost"] += len(self._ids)
            self._ids, self.faces = frozenset(), 0

    def rates(self, now: float) -> tuple[float, float]:
        """Images a second that came and that were answered, over the last seconds before `now` (time.monotonic)."""
        with self.lock:
            self._marks.append((now, self.counters["received"], self.counters["processed"]))
            while len(self._marks) > 2 and now - self._marks[1][0] >= RATES:
                self._marks.popleft()
            then, received, processed = self._marks[0]
            lasted = max(now - then, 1e-9)
            return (self.counters["received"] - received) / lasted, (self.counters["processed"] - processed) / lasted

    def values(self) -> dict[str, str]:
        """All of it but the rates as text, for the diagnostics."""
        with self.lock:
            out = {name: str(value) for name, value in self.counters.items()}
            out |= {"faces": str(self.faces), "last_bad_message": self.last_bad}
            for stage, samples in self.seconds.items():
                if samples:
                    p50, p99 = np.percentile(np.array(samples) * 1e3, (50, 99))
                    out[f"{stage}_ms_p50"], out[f"{stage}_ms_p99"] = (f"{p50:.2f}", f"{p99:.2f}")
        return out


def assess(
    state: str, *, problem: str, silence: str, bad: str, stuck: str = "", calibration: str = ""
) -> tuple[bytes, str]:
    """Level (of a DiagnosticStatus) and summary of a node.

    Parameters
    ----------
    state : str
        Of the lifecycle (unconfigured, inactive, active, finalized), or paused.
    problem, silence, bad, stuck, calibration : str
        Why the last transition failed; why no image comes; why a message of the last seconds could not be used; at what
        the worker is for so long; why the CameraInfo does not go with the images.
    """
    if problem:
        return DiagnosticStatus.ERROR, problem
    if state in ("active", "paused") and stuck:
        return DiagnosticStatus.WARN, stuck
    if state == "active" and silence:
        return DiagnosticStatus.WARN, silence
    if state == "active" and bad:
        return DiagnosticStatus.WARN, f"bad messages: {bad}"
    if state == "active" and calibration:
        return DiagnosticStatus.WARN, calibration
    return DiagnosticStatus.OK, state


def diagnostic_array(
    stamp: object, name: str, hardware_id: str, level: bytes, summary: str, values: dict[str, str]
) -> DiagnosticArray:
    """One status as a diagnostics message."""
    status = DiagnosticStatus(level=level, name=name, message=summary, hardware_id=hardware_id)
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message
