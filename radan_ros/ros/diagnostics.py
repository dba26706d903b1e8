"""Counters and latencies of the node, and the diagnostics message made of them."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

# From the header's stamp to the node, in the box, the work in its order, and from the stamp to the published faces.
STAGES = (
    "transport",
    "waiting",
    "detection_and_network",
    "metric",
    "publishing_faces",
    "rendering",
    "publishing_pictures",
    "stamp_to_faces",
)
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


@dataclass
class Statistics:
    """What happened to the images so far. Counted from two threads, hence the lock.

    Attributes
    ----------
    received, dropped, processed, bad : int
        Images that came; that a newer one replaced before they were looked at; that were answered;
        messages that could not be used.
    lost : int
        Images that the camera sent and the node never saw: Fast DDS keeps the newest for it, and loses fragments.
    failed_fits : int
        Faces that were left out because no pose fitted them.
    rendered : int
        Images for which depth or PNCC were drawn, because somebody subscribes to them.
    faces : int
        Faces in the last image.
    last_bad : str
        Why the last bad message was bad.
    """

    received: int = 0
    dropped: int = 0
    processed: int = 0
    bad: int = 0
    lost: int = 0
    failed_fits: int = 0
    rendered: int = 0
    faces: int = 0
    last_bad: str = ""
    seconds: dict[str, deque[float]] = field(default_factory=lambda: {stage: deque(maxlen=300) for stage in STAGES})
    lock: threading.Lock = field(default_factory=threading.Lock)
    _last_bad_at: float | None = None

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        with self.lock:
            setattr(self, name, getattr(self, name) + number)

    def bad_message(self, reason: str) -> None:
        """Count a message that could not be used, and keep why."""
        with self.lock:
            self.bad += 1
            self.last_bad = reason
            self._last_bad_at = time.monotonic()

    def bad_lately(self, now: float) -> bool:
        """Whether a message was bad in the `LATELY` seconds before `now` (time.monotonic)."""
        with self.lock:
            return self._last_bad_at is not None and now - self._last_bad_at < LATELY

    def values(self) -> dict[str, str]:
        """All of it as text, for the diagnostics."""
        with self.lock:
            out = {
                name: str(getattr(self, name))
                for name in ("received", "processed", "dropped", "lost", "bad", "failed_fits", "rendered", "faces")
            }
            out["last_bad_message"] = self.last_bad
            for stage, samples in self.seconds.items():
                if samples:
                    p50, p99 = np.percentile(np.array(samples) * 1e3, (50, 99))
                    out[f"{stage}_ms_p50"], out[f"{stage}_ms_p99"] = f"{p50:.2f}", f"{p99:.2f}"
        return out


def diagnostic_array(
    stamp: object, name: str, hardware_id: str, level: bytes, summary: str, values: dict[str, str]
) -> DiagnosticArray:
    """One status as a diagnostics message."""
    status = DiagnosticStatus(level=level, name=name, message=summary, hardware_id=hardware_id)
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message
