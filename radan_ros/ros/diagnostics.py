"""Counters and latencies of the node, and the diagnostics message made of them."""

from __future__ import annotations

import threading
from collections import deque
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
    rendered: int = 0
    faces: int = 0
    last_bad: str = ""
    seconds: dict[str, deque[float]] = field(default_factory=lambda: {stage: deque(maxlen=300) for stage in STAGES})
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        with self.lock:
            setattr(self, name, getattr(self, name) + number)

    def bad_message(self, reason: str) -> None:
        """Count a message that could not be used, and keep why."""
        with self.lock:
            self.bad += 1
            self.last_bad = reason

    def values(self) -> dict[str, str]:
        """All of it as text, for the diagnostics."""
        with self.lock:
            out = {
                name: str(getattr(self, name))
                for name in ("received", "processed", "dropped", "lost", "bad", "rendered", "faces")
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
