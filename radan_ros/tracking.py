"""Follow faces from frame to frame by their own landmarks, so that the detector runs only now and then."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from radan_ros import boxes
from radan_ros.face import Detection, Face
from radan_ros.pipeline import Pipeline
from radan_ros.pose import consistency

# A frontal detector misses turned faces that are followed well: a track outlives this many misses of it.
MAX_MISSES = 2
# A network that looks at no face answers with a camera that is no scaled rotation, or with a face that is smaller than
# the square it was cropped by. Ratio of the camera's two scales, and of the sides of two squares in a row, measured on
# single photographs with the built-in network: 642 faces at least 0.97 and 0.96 but for 0.5 % of them, on
# clips of strong expressions at least 0.92 and 0.92; 520 pieces of background 0.95 and 0.84 at the median. Both bounds
# together let 16 % of the background through, in every image anew. With 3DDFA_V2's MobileNet: faces at least 0.94 and
# 0.94, background 0.62 and 0.87 at the median.
LEAST_CONSISTENCY = 0.90
LEAST_SIZE = 0.90
# Stamps may step back a little (clocks set right, unordered drivers); from here on a bag was started again.
RESTART = 1.0  # seconds
CLOSE = 0.005  # seconds: stamps of a camera jitter about multiples of its period
# Overlap from which a detection and a followed face, or two followed faces, are the same one.
SAME_FACE = 0.3
DUPLICATE = 0.4


@dataclass
class Track:
    """A followed face: its identity, its last answer, and how many detections in a row did not confirm it."""

    id: int
    face: Face
    misses: int = 0


class Follower:
    """Detects at intervals and follows in between.

    Parameters
    ----------
    pipeline : Pipeline
        With a detector.
    detection_period : float
        Seconds of image stamps between detections while faces are followed; 0 detects in every image.
    search_period : float
        The same while there is no face: how late a face may be noticed, against the load of an empty room.
    max_faces : int
        Faces beyond this many are left out, the least sure first.
    """

    def __init__(
        self, pipeline: Pipeline, *, detection_period: float = 0.5, search_period: float = 0.1, max_faces: int = 10
    ) -> None:
        self.pipeline = pipeline
        self.detection_period = detection_period
        self.search_period = min(search_period, detection_period)
        self.max_faces = max_faces
        self._next_id = 0
        self._detected_at: float | None = None
        self._last_stamp: float | None = None
        self.tracks: list[Track] = []

    def reset(self) -> None:
        """Forget all faces; ids go on from where they were."""
        self.tracks = []
        self._detected_at = None
        self._last_stamp = None

    def __call__(self, image: NDArray[np.uint8], stamp: float) -> list[Track]:
        """Faces of the next image.

        Parameters
        ----------
        image : (H, W, 3) uint8
            BGR.
        stamp : float
            Seconds of the image's header. One that goes back by over a second (a looped bag) forgets all faces; one
            that does not advance (a camera that sets none) runs the detector.

        Returns
        -------
        list of Track
        """
        last = self._last_stamp
        if last is not None and stamp < last - RESTART:
            self.reset()
        self._last_stamp = stamp
        period = self.detection_period if self.tracks else self.search_period
        stands = last is not None and stamp <= last
        if self._detected_at is None or stands or stamp - self._detected_at >= period - CLOSE:
            self._detected_at = stamp
            self._match(image)
        squares = [boxes.square_from_landmarks(track.face.landmarks) for track in self.tracks]
        followed = [(t, s) for t, s in zip(self.tracks, squares, strict=True) if boxes.usable(s, image.shape[:2])]
        faces = self.pipeline.regress(image, [s for _, s in followed], [t.face.score for t, _ in followed])
        if len(faces) != len(followed):  # an answer that was not finite: rare enough to start over
            self.tracks = []
            return []
        answers = [Track(t.id, face, t.misses) for (t, _), face in zip(followed, faces, strict=True)]
        self.tracks = _without_duplicates([track for track in answers if is_face(track.face)])
        return self.tracks

    def _match(self, image: NDArray[np.uint8]) -> None:
        """Run the detector; confirm the tracks it finds again, drop those it misses too often, start new ones."""
        if self.pipeline.detector is None:
            raise ValueError("following faces needs a pipeline with a detector")
        for track in self.tracks:
            track.misses += 1
        new: list[Detection] = []
        for detection in self.pipeline.detector(image):
            overlaps = [boxes.iou(detection.box, track.face.box) for track in self.tracks]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best >= 0 and overlaps[best] >= SAME_FACE:
                track = self.tracks[best]
                self.tracks[best] = Track(track.id, replace(track.face, score=detection.score))
            else:
                new.append(detection)
        self.tracks = [track for track in self.tracks if track.misses <= MAX_MISSES]
        new = new[: max(0, self.max_faces - len(self.tracks))]
        squares = [boxes.square_from_detection(detection.box) for detection in new]
        for face in self.pipeline.regress(image, squares, [detection.score for detection in new]):
            self.tracks.append(Track(self._next_id, face))
            self._next_id += 1


def is_face(face: Face) -> bool:
    """Whether an answer for a square around a face looks as if one had been there."""
    left, _, right, _ = boxes.square_from_landmarks(face.landmarks)
    size = float(right - left) / float(face.roi[2] - face.roi[0])
    return consistency(face.camera) >= LEAST_CONSISTENCY and size >= LEAST_SIZE


def _without_duplicates(tracks: list[Track]) -> list[Track]:
    """Two tracks that ended on one face are that face: the older one stays."""
    kept: list[Track] = []
    for track in tracks:
        if all(boxes.iou(track.face.roi, other.face.roi) < DUPLICATE for other in kept):
            kept.append(track)
    return kept
