"""Follow faces from image to image by their own landmarks: who is who, from when on, and until when.

The detector runs beside, in a thread of its own and only now and then; what it finds in an older image is brought
forward into the present one. A track is NEW until it was seen in several images in a row, TRACKED while it is seen,
LOST while it is not; a lost face is looked for where it should be by now, and is then forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros import boxes
from radan_ros.cues import GOES_ON, Motion, colours, difference, moved
from radan_ros.detection_worker import DetectionWorker
from radan_ros.face import Detection, Face
from radan_ros.pipeline import Pipeline, check_image
from radan_ros.smoothing import FaceSmoother, Smoothing

# A track that more than this many detections in a row did not confirm is lost unless the network is this sure of it: a
# frontal detector misses turned faces that are followed well. It comes back only if the network is that sure again, or
# if it is detected.
MAX_MISSES = 2
SURE = 0.9
# A track begins, and comes back, only this share of the way surer than it must stay: no flicker at the bound.
SURER = 0.3
# Stamps may step back a little (clocks set right, unordered drivers); from here on a bag was started again.
RESTART = 1.0  # seconds
# A silence longer than `retain`, than this, and than three times the one before it, breaks all tracks.
PAUSE = 0.5  # seconds
PAUSE_RATIO = 3.0
STANDING = 1 / 30  # seconds that an image counts whose stamp does not advance (a camera that sets none)
CLOSE = 0.005  # seconds: stamps of a camera jitter about multiples of its period
# Overlap from which a detection and a followed face, or the boxes of two followed faces, are the same one.
SAME_FACE = 0.3
DUPLICATE = 0.4
TOUCHING = 0.05  # overlap of two faces from which one may hide, and draw away, the other
# Differences of colours (`cues.difference`), measured on clips of two people who cross: of a face to what is remembered
# of it 8 % at the median and 20 % at the 95th percentile, to the other's 21 % or more in 19 of 20 images.
STRANGER = 25.0  # percent: a lost face differs less from one that it can be
MISS = 15.0  # percent of colour that weigh as much as a face that is a side of its square away from where it should be
MARGIN = 5.0  # percent by which a lost face must fit better to take over one that is followed under another id
REACH = 1.5  # sides of the square within which a detection can be a lost face
GROWTH = 1.6  # ratio of the sides of their squares up to which it can be
COLOURS_PERIOD = 0.2  # seconds between looks at the colours of a face
COLOURS_SHARE = 0.2  # of a new look in what is remembered: a face is known by its last second
REMEMBERED = 1.0  # seconds for which the motion before faces touched still tells where they go


class State(Enum):
    """What is known of a followed face: not sure yet, seen in the last image, or not seen there."""

    NEW = "new"
    TRACKED = "tracked"
    LOST = "lost"


@dataclass(frozen=True)
class Track:
    """A followed face in one image.

    Attributes
    ----------
    id : int
        Counted from 0 in the order of confirmation, and never given again; -1 while the face is NEW.
    face : Face
        What is to be shown: smoothed where smoothing is on.
    raw : Face
        The network's own answer.
    state : State
    age : float
        Seconds of stamps since the face was seen first.
    """

    id: int
    face: Face
    raw: Face
    state: State = State.TRACKED
    age: float = 0.0


@dataclass(frozen=True)
class TrackerSettings:
    """How faces are followed. Raises ValueError for a value out of its range, by its name.

    Attributes
    ----------
    detection_period : float
        Seconds of image stamps between detections while all faces are followed; 0 detects as often as it can.
    search_period : float
        The same while there is no face, or one was lost within the last second (`cues.GOES_ON`): how late a face may
        be noticed, against the load of an empty room. Not more than `detection_period`.
    max_faces : int
        Most faces that are followed. Those that are stay; of new ones the detector's surest get the places that are
        left. As many lost ones are remembered, the newest.
    min_confidence : float
        0 .. 1: a face that the network is less sure of counts as not seen. A face begins, or comes back, only
        somewhat above it.
    confirm_images : int
        Images in a row in which a face must be seen before it is reported.
    retain : float
        Seconds of stamps for which a face that is not seen keeps its id. For the first second it is looked for in
        every image where it should be by now, later only among what the detector finds.
    deterministic : bool
        The detector runs in line, and every image waits for it: the same images give the same ids and the same
        landmarks, bit for bit.
    smoothing : Smoothing, optional
        Without it, faces are reported as the network sees them. So they are, but for their shape, which is a mean,
        in images whose stamp does not advance: smoothing needs to know how much time has passed.
    """

    detection_period: float = 0.5
    search_period: float = 0.1
    max_faces: int = 10
    min_confidence: float = 0.5
    confirm_images: int = 2
    retain: float = 1.0
    deterministic: bool = False
    smoothing: Smoothing | None = None

    def __post_init__(self) -> None:
        least = {"detection_period": 0, "search_period": 0, "retain": 0, "max_faces": 1, "confirm_images": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= bound):
                raise ValueError(f"{name} is {value}, not at least {bound}")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence is {self.min_confidence}, not 0 .. 1")


class _Followed:
    """A face from its first image to its last."""

    def __init__(self, time: float, score: float, looks: NDArray[np.float32], smoother: FaceSmoother | None) -> None:
        self.id = -1
        self.state = State.NEW
        self.images = 0  # in a row
        self.misses = 0  # detections in a row that did not confirm it while the network was not sure of it
        self.looks = 1
        self.first = self.seen = self.looked = time
        self.score = score
        self.colours = looks
        self.smoother = smoother
        self.raw: Face
        self.face: Face
        self.motion: Motion
        self.clear: Motion  # the motion when the face was last seen well and alone

    @property
    def confirmed(self) -> bool:
        return self.id >= 0

    @property
    def snapshot(self) -> Track:
        return Track(self.id, self.face, self.raw, self.state, self.seen - self.first)

    def sought(self, time: float) -> bool:
        """Whether to look for it where it should be; a face that was lost long ago is left to the detector."""
        return self.state is not State.LOST or time - self.seen <= GOES_ON + CLOSE

    def refuted(self, face: Face) -> bool:
        """Whether an answer at its own place is not enough for it to stay, or to come back."""
        return self.misses > MAX_MISSES and not face.confidence >= SURE

    def expected(self, time: float) -> NDArray[np.float32]:
        """Where the face should be, by its motion before another face came near."""
        trusted = self.clear if time - self.clear.time <= REMEMBERED else self.motion
        return trusted.at(time)

    def strangeness(self, face: Face, looks: NDArray[np.float32], time: float) -> float:
        """How little an answer and its colours are what this track expects, in percent of colour."""
        missed = _distance(boxes.square_from_landmarks(face.landmarks), self.expected(time))
        lost = MARGIN if self.state is State.LOST else 0.0
        return difference(looks, self.colours) + MISS * min(missed, 1.0) + lost

    def accept(self, image: NDArray[np.uint8], face: Face, time: float, alone: bool) -> None:
        """The face was seen. With `alone`, and only then, its motion and colours are its own."""
        square = boxes.square_from_landmarks(face.landmarks)
        first = self.images == 0 and not self.confirmed
        self.motion = Motion.begin(square, time) if first else self.motion.then(square, time)
        if first or alone:
            self.clear = self.motion
        if alone and time - self.looked >= COLOURS_PERIOD:
            self.looked, self.looks = time, self.looks + 1
            now, before = colours(image, face), self.colours
            # The first few count alike, then the older the less; places that were outside the image begin with now.
            mixed = before + max(COLOURS_SHARE, 1 / self.looks) * (now - before)
            self.colours = np.where(np.isfinite(mixed), mixed, np.where(np.isfinite(now), now, before))
        if face.confidence >= SURE:
            self.misses = 0
        self.images += 1
        self.seen = time
        self.raw = replace(face, score=self.score)
        self.face = self.raw if self.smoother is None else self.smoother(self.raw, time)

    def lose(self) -> None:
        """The face was not seen: from now on it is looked for where its undisturbed motion leads."""
        if self.state is not State.LOST and self.seen - self.clear.time <= REMEMBERED:
            self.motion = self.clear
        self.state = State.LOST
        self.images = 0


@dataclass(frozen=True)
class _Job:
    """A detection under way, its image, and where the followed faces were in it."""

    answer: Future[list[Detection]]
    image: NDArray[np.uint8]
    places: list[tuple[_Followed, NDArray[np.float32]]]


class _Clock:
    """Seconds that only go forward, from the stamps that cameras set.

    Attributes
    ----------
    time : float
        Seconds since the first image.
    known : bool
        Whether the last step is the time that passed; not if the stamp repeated or went back.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.known = True
        self._stamp: float | None = None
        self._usual = 0.0

    def advance(self, stamp: float, retain: float) -> bool:
        """Take the next image's stamp. False where what was known before it no longer counts."""
        last, self._stamp = self._stamp, stamp
        if last is None:
            return True
        step = stamp - last
        if step < -RESTART:
            return False
        self.known = step > 0
        step = step if self.known else STANDING
        usual, self._usual = self._usual, step
        self.time += step
        return step <= max(retain, PAUSE, PAUSE_RATIO * usual)


_STATE = ("_next_id", "_clock", "_size", "_followed", "_detected_at")


class Tracker:
    """Follows the faces of one camera.

    Parameters
    ----------
    pipeline : Pipeline
        With a detector. It may be replaced between images by one with another detector and the same model.
    settings : TrackerSettings, optional
    """

    def __init__(self, pipeline: Pipeline, settings: TrackerSettings | None = None) -> None:
        self.pipeline = pipeline
        self._settings = settings or TrackerSettings()
        self._worker = DetectionWorker()
        self._next_id = 0
        self._clock = _Clock()
        self._size: tuple[int, ...] | None = None
        self._followed: list[_Followed] = []
        self._job: _Job | None = None
        self._detected_at: float | None = None

    @property
    def settings(self) -> TrackerSettings:
        """The settings in use."""
        return self._settings

    @property
    def detections(self) -> int:
        """How often the detector ran."""
        return self._worker.count

    @property
    def detector_seconds(self) -> float:
        """What its last run took; NaN before the first."""
        return self._worker.seconds

    @property
    def detecting(self) -> bool:
        """Whether a detection is under way."""
        return self._job is not None and not self._job.answer.done()

    @property
    def tracks(self) -> list[Track]:
        """All tracks after the last image, NEW and LOST ones included."""
        return [track.snapshot for track in self._followed]

    def apply(self, settings: TrackerSettings) -> None:
        """Change the settings from the next image on; faces and ids stay."""
        before, self._settings = self._settings, settings
        if settings.smoothing != before.smoothing:
            for track in self._followed:
                track.smoother = self._smoother()
        if settings.deterministic and not before.deterministic:
            self._drop_job()

    def reset(self) -> None:
        """Forget all faces; ids go on from where they were."""
        self._clock = _Clock()
        self._forget()

    def state(self) -> dict[str, Any] | None:
        """What the next images depend on, to be pickled; None while a detection is not taken in yet.

        Whoever pickles it leaves the face model out, to which the smoothing of each face refers.
        """
        if self._job is not None:
            return None
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another tracker with the same pipeline and settings was."""
        self._drop_job()
        for name in _STATE:
            setattr(self, name, state[name])

    def close(self, wait: bool = True) -> None:
        """Forget all faces and end the detector's thread; without `wait`, that ends after the detection that runs."""
        self._forget()
        self._worker.close(wait)

    def __call__(self, image: NDArray[np.uint8], stamp: float) -> list[Track]:
        """Faces of the next image.

        Parameters
        ----------
        image : (H, W, 3) uint8
            BGR. Not kept.
        stamp : float
            Seconds of the image's header. One that goes back by over a second (a looped bag), or that follows a long
            silence, forgets all faces. One that does not advance (a camera that sets none) counts a thirtieth of a
            second, and starts the motion of the smoothed faces again: a camera that sets no stamps is not smoothed.

        Returns
        -------
        list of Track
            The confirmed faces that are seen in this image, the longest known first.

        Raises
        ------
        ValueError
            For an image of the wrong shape or type, or a pipeline without a detector.
        Exception
            Whatever the detector raised on an earlier image. The tracks are as they were before the call.
        """
        check_image(image)
        if self.pipeline.detector is None:
            raise ValueError("following faces needs a pipeline with a detector")
        self._raise_failure()
        counts = self._clock.advance(stamp, self._settings.retain)
        if not counts or image.shape != self._size:
            self._forget()
        self._size = image.shape
        if not self._clock.known:
            for track in self._followed:
                if track.smoother is not None:
                    track.smoother.restart()
        now = self._clock.time
        seen = self._follow(image, now)
        self._detect_if_due(image, now, seen)
        seen += self._found(image, now, seen)
        seen = self._one_track_a_face(image, now, seen)
        for track, face in seen:
            alone = all(boxes.iou(face.box, other.box) < TOUCHING for _, other in seen if other is not face)
            track.accept(image, face, now, alone and self._fits(face, start=True))
            if track.confirmed:
                track.state = State.TRACKED
            elif track.images >= self._settings.confirm_images:
                track.id, track.state = self._next_id, State.TRACKED
                self._next_id += 1
        return [track.snapshot for track in self._followed if track.state is State.TRACKED]

    def _forget(self) -> None:
        self._followed = []
        self._detected_at = None
        self._drop_job()

    def _drop_job(self) -> None:
        if self._job is not None:
            self._job.answer.cancel()
            self._job = None

    def _raise_failure(self) -> None:
        """Raise what the detector raised, once."""
        if self._job is not None and self._job.answer.done():
            failure = self._job.answer.exception()
            if failure is not None:
                self._job = None
                raise failure

    def _follow(self, image: NDArray[np.uint8], now: float) -> list[tuple[_Followed, Face]]:
        """Look for all tracks where they should be; those that are not there turn LOST or end."""
        self._forget_old(now)
        sought = [track for track in self._followed if track.sought(now)]
        faces = self._regress(image, [track.motion.at(now) for track in sought])
        seen = []
        for track, face in zip(sought, faces, strict=True):
            if face is not None and self._fits(face, start=track.state is not State.TRACKED):
                if track.state is not State.LOST or self._returns(image, track, face):
                    seen.append((track, face))
                    continue
            self._lose(track)
        # More than that only where a lost face comes back into a full image, or the parameter was lowered.
        seen.sort(key=lambda pair: pair[0].state is State.LOST)
        for track, _ in seen[self._settings.max_faces :]:
            self._followed.remove(track)
        return seen[: self._settings.max_faces]

    @staticmethod
    def _returns(image: NDArray[np.uint8], track: _Followed, face: Face) -> bool:
        """Whether what is in the place of a lost face is that face again."""
        return not track.refuted(face) and difference(colours(image, face), track.colours) < STRANGER

    def _forget_old(self, now: float) -> None:
        """Forget lost faces after `retain`, and all but the newest `max_faces` of them."""
        lost = [track for track in self._followed if track.state is State.LOST]
        newest = sorted(lost, key=lambda track: -track.seen)[: self._settings.max_faces]
        old = [t for t in lost if t not in newest or now - t.seen > self._settings.retain + CLOSE]
        self._followed = [track for track in self._followed if track not in old]

    def _detect_if_due(self, image: NDArray[np.uint8], now: float, seen: list[tuple[_Followed, Face]]) -> None:
        settings, detector = self._settings, self.pipeline.detector
        assert detector is not None
        if self._job is not None:
            return
        if len(seen) >= settings.max_faces and all(face.confidence >= SURE for _, face in seen):
            return
        period = settings.detection_period
        if len(seen) < max(1, sum(track.sought(now) for track in self._followed)):
            period = min(period, settings.search_period)
        if self._detected_at is not None and now - self._detected_at < period - CLOSE:
            return
        self._detected_at = now
        places = [(track, face.box) for track, face in seen]
        if settings.deterministic:
            self._job = _Job(self._worker.run(detector, image), image, places)
        else:
            kept = image.copy()  # the caller may use the memory of this one again
            self._job = _Job(self._worker.start(detector, kept), kept, places)

    def _found(
        self, image: NDArray[np.uint8], now: float, seen: list[tuple[_Followed, Face]]
    ) -> list[tuple[_Followed, Face]]:
        """What a finished detection adds: faces that are not followed yet, and lost ones."""
        job = self._job
        if job is None or not job.answer.done() or job.answer.exception() is not None:
            return []
        self._job = None
        unknown = self._confirm(job)
        refuted = [track for track, face in seen if track.refuted(face)]
        seen[:] = [pair for pair in seen if pair[0] not in refuted]
        for track in refuted:
            self._lose(track)
        unknown = unknown[: max(0, self._settings.max_faces - len(seen))]
        places = [d.box if job.image is image else moved(d.box, job.image, image) for d in unknown]
        # Twice, since a detector's box is a coarse one.
        firsts = self._regress(image, [boxes.square_from_detection(place) for place in places])
        begun = [(d, boxes.square_from_landmarks(f.landmarks)) for d, f in zip(unknown, firsts, strict=True) if f]
        found: list[tuple[_Followed, Face]] = []
        for (detection, _), answer in zip(begun, self._regress(image, [s for _, s in begun]), strict=True):
            if answer is not None and self._fits(answer, start=True):
                taken = [track for track, _ in seen + found]
                found.append((self._track_of(image, answer, detection.score, now, taken), answer))
        return found

    def _confirm(self, job: _Job) -> list[Detection]:
        """Tell the tracks which of them the detector saw, too; returns what it saw besides."""
        for track, _ in job.places:
            track.misses += 1
        unknown = []
        for detection in job.answer.result():
            overlaps = [boxes.iou(detection.box, box) for _, box in job.places]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best >= 0 and overlaps[best] >= SAME_FACE:
                track = job.places[best][0]
                track.misses, track.score = 0, detection.score
                if track in self._followed and track.state is not State.LOST:
                    continue
            unknown.append(detection)
        return unknown

    def _track_of(
        self, image: NDArray[np.uint8], face: Face, score: float, now: float, taken: list[_Followed]
    ) -> _Followed:
        """The lost track that a found face belongs to, but for those that have one, or a new track."""
        looks = colours(image, face)
        square = boxes.square_from_landmarks(face.landmarks)
        near = [
            track
            for track in self._followed
            if track.state is State.LOST
            and track not in taken
            and _distance(square, track.motion.at(now)) < REACH
            and 1 / GROWTH < (square[2] - square[0]) / (track.motion.square[2] - track.motion.square[0]) < GROWTH
            and difference(looks, track.colours) < STRANGER
        ]
        if near:
            track = min(near, key=lambda t: t.strangeness(face, looks, now))
        else:
            track = _Followed(now, score, looks, self._smoother())
            self._followed.append(track)
        track.misses, track.score = 0, score
        return track

    def _one_track_a_face(
        self, image: NDArray[np.uint8], now: float, seen: list[tuple[_Followed, Face]]
    ) -> list[tuple[_Followed, Face]]:
        """Two tracks that ended on one face are that face: the one stays to which it is less strange."""
        kept: list[tuple[_Followed, Face]] = []
        for track, face in sorted(seen, key=lambda pair: (not pair[0].confirmed, self._followed.index(pair[0]))):
            rival = next((k for k in kept if boxes.iou(face.box, k[1].box) >= DUPLICATE), None)
            if rival is None:
                kept.append((track, face))
            elif track.confirmed and self._strangeness(image, now, track, face) < self._strangeness(image, now, *rival):
                kept[kept.index(rival)] = (track, face)
                self._lose(rival[0])
            else:
                self._lose(track)
        return kept

    def _strangeness(self, image: NDArray[np.uint8], now: float, track: _Followed, face: Face) -> float:
        return track.strangeness(face, colours(image, face), now)

    def _lose(self, track: _Followed) -> None:
        if track.confirmed:
            track.lose()
        elif track in self._followed:
            self._followed.remove(track)

    def _regress(self, image: NDArray[np.uint8], squares: Sequence[ArrayLike]) -> list[Face | None]:
        """Faces in squares, in one batch; None where there is nothing to crop, or no finite answer."""
        usable = [i for i, square in enumerate(squares) if boxes.usable(square, image.shape[:2])]
        faces: list[Face | None] = [*self.pipeline.regress(image, [squares[i] for i in usable])]
        if len(faces) < len(usable):  # not finite: rare enough to ask one by one
            faces = [next(iter(self.pipeline.regress(image, [squares[i]])), None) for i in usable]
        answers = dict(zip(usable, faces, strict=True))
        return [answers.get(i) for i in range(len(squares))]

    def _fits(self, face: Face, *, start: bool) -> bool:
        """Whether an answer is sure enough for a face that begins or comes back (`start`), or is followed."""
        least = self._settings.min_confidence
        return face.confidence >= (least + SURER * (1 - least) if start else least)

    def _smoother(self) -> FaceSmoother | None:
        if self._settings.smoothing is None:
            return None
        return FaceSmoother(self.pipeline.model.face_model, self._settings.smoothing)


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Distance of the middles of two squares, in sides of the second."""
    apart = (a - b).reshape(2, 2).mean(axis=0)
    return float(np.hypot(*apart) / (b[2] - b[0]))
