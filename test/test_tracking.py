"""Who is who from image to image: ids, confirmation, loss and return, crossing faces, clocks, the detector's thread.

Most of it in a world of coloured squares: a detector finds them, and a network answers a frontal face on the square
that fills most of its crop, as sure as that is bright and whole. Pipeline, crops and tracker are the real ones.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from conftest import frontal_parameters

from radan_ros import Detection, Model, Pipeline, open_detector
from radan_ros.cues import Motion, colours, difference, moved
from radan_ros.face import Face
from radan_ros.face_models import FaceModel
from radan_ros.model import Whitening
from radan_ros.smoothing import Smoothing
from radan_ros.tracking import State, Track, Tracker, TrackerSettings

SIDE = 100  # pixels of a square
BLUE, GREEN, RED = 0, 1, 2
PERIOD = 1 / 30
IN_LINE = TrackerSettings(deterministic=True, retain=0.5)


def world(*squares: tuple[int, float, float] | tuple[int, float, float, int]) -> np.ndarray:
    """An image of squares: colour, middle x, y, and brightness (255 if not given). Later ones lie in front."""
    image = np.zeros((480, 640, 3), np.uint8)
    for colour, x, y, *bright in squares:
        left, top = round(x - SIDE / 2), round(y - SIDE / 2)
        square = np.zeros((SIDE, SIDE, 3), np.uint8)
        square[..., colour] = (bright or [255])[0]
        square[60:75, 30:70] = square[60:75, 30:70] * 0.7  # a mouth
        low, high = np.clip([left, left + SIDE], 0, 640)
        image[top : top + SIDE, low:high] = square[:, low - left : high - left]
    return image


class Squares:
    """The detector of that world; of a square that is half covered it finds nothing."""

    name = "squares"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: np.ndarray) -> list[Detection]:
        self.calls += 1
        found = []
        for channel in cv2.split(image):
            _, _, statistics, _ = cv2.connectedComponentsWithStats((channel > 0).astype(np.uint8))
            for left, top, width, height, area in statistics[1:]:
                if area > 0.5 * SIDE**2:
                    found.append(Detection(np.array([left, top, left + width, top + height], np.float32), area / 1e4))
        return sorted(found, key=lambda detection: -detection.score)


class Eyes:
    """The network of that world."""

    name, device = "eyes", "cpu"

    def __init__(self, frontal: np.ndarray) -> None:
        self.frontal = frontal
        self.crops: list[int] = []  # in each call

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        return self.run(crops)[0]

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.crops.append(len(crops))
        answers, logits = np.repeat(self.frontal[None], len(crops), axis=0), np.full(len(crops), -8.0, np.float32)
        for crop, answer, k in zip(crops, answers, range(len(crops)), strict=True):
            masks = crop > np.maximum(crop.max(axis=(0, 1)) / 2, 10)
            colour = int(np.argmax(masks.sum(axis=(0, 1))))
            rows, columns = np.nonzero(masks[..., colour])
            if len(rows) < 500:
                continue
            size = (np.ptp(rows) + 1) / (120 / np.sqrt(2))
            # The answer is centred and fills the crop as following crops it: y is up, and pixels count from 1.
            answer[[0, 5, 10]] *= size
            middle = self.frontal[[3, 7]] - 60.5
            answer[3] = middle[0] * size + 60.5 + columns.mean() - 59.5
            answer[7] = middle[1] * size + 60.5 - (rows.mean() - 59.5)
            covered = np.divide(*sorted([np.ptp(rows), np.ptp(columns)]))
            sure = min(0.999, covered**8 * float(crop[..., colour].max()) / 255)
            logits[k] = np.log(sure / (1 - sure))
        return answers, logits


@pytest.fixture
def pipeline(small_face: FaceModel) -> Pipeline:
    whitening = Whitening(np.zeros(62, np.float32), np.ones(62, np.float32))
    model = Model("eyes", Eyes(frontal_parameters(small_face)), whitening, small_face)
    return Pipeline(model, Squares())


Make = Callable[..., Tracker]


@pytest.fixture
def tracker_of(pipeline: Pipeline) -> Iterator[Make]:
    """Makes trackers, by default with the detector in line, and closes them."""
    made: list[Tracker] = []

    def make(detector: object = None, **settings: object) -> Tracker:
        own = pipeline if detector is None else Pipeline(pipeline.model, detector)  # type: ignore[arg-type]
        made.append(Tracker(own, replace(IN_LINE, **settings)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for tracker in made:
        tracker.close()


def ids(tracks: list[Track]) -> list[int]:
    return [track.id for track in tracks]


def middle(face: Face) -> tuple[float, float]:
    left, top, right, bottom = face.box.tolist()
    return (left + right) / 2, (top + bottom) / 2


def where(tracks: list[Track]) -> dict[int, tuple[float, float]]:
    return {track.id: middle(track.face) for track in tracks}


# Detection, confirmation, loss.


def test_the_detector_runs_at_intervals_and_faces_are_followed_in_between(tracker_of: Make) -> None:
    tracker = tracker_of(detection_period=0.5, search_period=0.1, confirm_images=1)
    empty, face = world(), world((RED, 200, 200))
    for k in range(7):
        assert tracker(empty, 10 + PERIOD * k) == []
    assert tracker.detections == 3, "an empty room is searched ten times a second"
    answers = [tracker(face, 10 + PERIOD * k) for k in range(7, 40)]
    first = next(k for k, tracks in enumerate(answers) if tracks)
    assert first <= 2 and all(ids(tracks) == [0] for tracks in answers[first:])
    assert tracker.detections == 3 + 1 + 2, "twice a second while a face is followed"
    x, y = middle(answers[-1][0].face)
    assert abs(x - 199.5) < 2 and abs(y - 199.5) < 2
    assert answers[-1][0].face.score == 1.0 and answers[-1][0].age == pytest.approx(PERIOD * (32 - first), abs=1e-6)


def test_a_face_is_reported_from_its_nth_image_in_a_row_on(tracker_of: Make) -> None:
    tracker = tracker_of(confirm_images=3, search_period=0.0)
    there, gone = world((GREEN, 300, 200)), world()
    seen = [there, there, gone, there, there, there, there]
    assert [ids(tracker(image, PERIOD * k)) for k, image in enumerate(seen)] == [[], [], [], [], [], [0], [0]]
    assert tracker.tracks[0].state is State.TRACKED


def test_what_flashes_takes_no_id(tracker_of: Make) -> None:
    tracker = tracker_of(confirm_images=2, search_period=0.0)
    flash, gone = world((GREEN, 100, 100)), world()
    assert not any(tracker(flash if k % 2 else gone, PERIOD * k) for k in range(10))
    tracker(flash, 1.0)
    assert ids(tracker(flash, 1.03)) == [0]


@pytest.mark.parametrize(("gap", "expected"), [(0.3, 0), (0.45, 0), (0.9, 1)])
def test_a_lost_face_keeps_its_id_for_a_while(tracker_of: Make, gap: float, expected: int) -> None:
    tracker = tracker_of(retain=0.5)
    there, gone = world((GREEN, 300, 200)), world()
    assert ids([tracker(there, PERIOD * k) for k in range(10)][-1]) == [0]
    hidden = round(gap / PERIOD)
    for k in range(10, 10 + hidden):
        assert tracker(gone, PERIOD * k) == []
        assert not tracker.tracks or tracker.tracks[0].state is State.LOST
    back = [ids(tracker(there, PERIOD * k)) for k in range(10 + hidden, 20 + hidden)]
    assert back[-1] == [expected]
    if expected == 0:
        assert back[0] == [0], "it is looked for where it was, in every image, and needs no new confirmation"


def test_one_who_walks_behind_something_is_met_on_the_other_side(tracker_of: Make) -> None:
    """By where the motion leads: the detector would find nothing in time."""
    tracker = tracker_of(detection_period=1000.0, search_period=1000.0, retain=1.0)
    reported = []
    for k in range(60):
        x = 80 + 8.0 * k
        image = world((BLUE, x, 240))
        image[:, 230:360] = 0
        reported.append(ids(tracker(image, PERIOD * k)))
    assert tracker.detections == 1
    assert [] in reported[10:40] and reported[-1] == [0]
    assert {i for found in reported for i in found} == {0}


def test_a_stranger_in_the_place_of_a_lost_face_gets_an_id_of_their_own(tracker_of: Make) -> None:
    tracker = tracker_of()
    for k in range(10):
        tracker(world((GREEN, 300, 200)), PERIOD * k)
    tracker(world(), PERIOD * 10)
    answers = [ids(tracker(world((RED, 300, 200)), PERIOD * k)) for k in range(11, 20)]
    assert answers[-1] == [1]


def test_a_face_that_jumps_within_reach_is_found_by_the_detector_and_keeps_its_id(tracker_of: Make) -> None:
    tracker = tracker_of()
    for k in range(10):
        tracker(world((GREEN, 200, 200)), PERIOD * k)
    answers = [tracker(world((GREEN, 320, 200)), PERIOD * k) for k in range(10, 20)]
    assert ids(answers[-1]) == [0] and abs(middle(answers[-1][0].face)[0] - 319.5) < 2


@pytest.mark.parametrize("speed", [4.0, 8.0, 14.0])
@pytest.mark.parametrize("in_front", [0, 1])
def test_faces_that_cross_keep_their_ids(tracker_of: Make, speed: float, in_front: int) -> None:
    tracker = tracker_of(retain=2.0)
    owner: dict[int, int] = {}
    for k in range(int(400 / speed)):
        walker, sitter = (RED, 100 + speed * k, 240.0), (GREEN, 300.0, 250.0)
        pair = [sitter, walker] if in_front else [walker, sitter]
        tracks = tracker(world(*pair), PERIOD * k)
        for number, (x, _) in where(tracks).items():
            distances = [abs(x - walker[1]), abs(x - sitter[1])]
            if min(distances) < 15 and max(distances) > SIDE:
                owner.setdefault(number, int(np.argmin(distances)))
                assert owner[number] == int(np.argmin(distances)), f"image {k}: the ids have changed places"
    assert sorted(owner.values()) == [0, 1] and len(tracks) == 2


def test_faces_that_pass_each_other_in_different_heights_are_not_mixed_up(tracker_of: Make) -> None:
    tracker = tracker_of()
    heights = []
    for k in range(50):
        tracks = tracker(world((RED, 100 + 8 * k, 150), (GREEN, 500 - 8 * k, 255)), PERIOD * k)
        heights.append({number: round(y / 50) for number, (_, y) in where(tracks).items()})
    assert len(heights[1]) == 2 and all(now == heights[1] for now in heights[1:])


def test_two_tracks_on_one_face_become_one_and_the_older_stays(tracker_of: Make) -> None:
    class Twice(Squares):
        """Finds every square twice, a little apart."""

        def __call__(self, image: np.ndarray) -> list[Detection]:
            return [replace(d, box=d.box + shift) for d in super().__call__(image) for shift in (np.float32(0), 9)]

    tracker = tracker_of(Twice(), detection_period=0.0)
    answers = [ids(tracker(world((RED, 300, 240)), PERIOD * k)) for k in range(10)]
    assert answers[1:] == [[0]] * 9


def test_no_more_than_max_faces_and_the_detector_rests_when_they_are_sure(tracker_of: Make) -> None:
    image = world((RED, 100, 240), (GREEN, 300, 240), (BLUE, 500, 240))
    tracker = tracker_of(max_faces=2, detection_period=0.1)
    answers = [ids(tracker(image, PERIOD * k)) for k in range(30)]
    assert answers[-1] == [0, 1] and tracker.detections == 1
    tracker.apply(replace(tracker.settings, max_faces=3))
    assert ids([tracker(image, 1 + PERIOD * k) for k in range(9)][-1]) == [0, 1, 2]
    tracker.apply(replace(tracker.settings, max_faces=1))
    assert ids(tracker(image, 1.3)) == [0], "those who are known longest stay"


def test_a_face_that_detections_do_not_confirm_stays_only_if_the_network_is_sure(tracker_of: Make) -> None:
    class Once(Squares):
        def __call__(self, image: np.ndarray) -> list[Detection]:
            return super().__call__(image) if self.calls == 0 else []

    for bright, stays in ((255, True), (200, False)):
        tracker = tracker_of(Once(), detection_period=0.2)
        image = world((RED, 300, 240, bright))
        answers = [len(tracker(image, PERIOD * k)) for k in range(40)]
        assert answers[10] == 1 and answers[-1] == stays


def test_a_face_must_be_surer_to_begin_than_to_stay(tracker_of: Make) -> None:
    tracker = tracker_of(min_confidence=0.5, search_period=0.0)
    between, sure, unsure = (world((RED, 300, 240, round(255 * c))) for c in (0.58, 0.8, 0.45))
    assert not any(tracker(between, PERIOD * k) for k in range(5)), "not enough to begin"
    assert ids([tracker(sure, PERIOD * k) for k in range(5, 10)][-1]) == [0]
    assert all(tracker(between, PERIOD * k) for k in range(10, 15)), "enough to stay"
    assert not any(tracker(unsure, PERIOD * k) for k in range(15, 18))
    assert not any(tracker(between, PERIOD * k) for k in range(18, 21)), "not enough to come back"
    assert ids(tracker(sure, PERIOD * 21)) == [0]
    tracker.apply(replace(tracker.settings, min_confidence=0.9))
    assert tracker(sure, PERIOD * 22) == [], "a changed bound holds from the next image on"


class Script(Squares):
    """A detector that finds things only while it `sees`."""

    sees = True

    def __call__(self, image: np.ndarray) -> list[Detection]:
        found = super().__call__(image)
        return found if self.sees else []


HALF_SURE = round(0.85 * 255)  # less than SURE, enough to begin


def test_detections_that_miss_a_face_of_which_the_network_is_sure_are_not_counted(tracker_of: Make) -> None:
    detector = Script()
    tracker = tracker_of(detector, detection_period=0.2)
    play(tracker, [PERIOD * k for k in range(5)])
    detector.sees = False
    assert play(tracker, [PERIOD * k for k in range(5, 65)])[-1] == [0] and tracker.detections > 8
    dip = play(tracker, [PERIOD * k for k in range(65, 73)], world((RED, 300, 240, HALF_SURE)))
    assert dip == [[0]] * 8, "a detection missed it meanwhile, the first one that counts"
    dip = play(tracker, [PERIOD * k for k in range(73, 100)], world((RED, 300, 240, HALF_SURE)))
    assert dip[-1] == [], "and then too many"


def test_a_detected_face_begins_with_no_misses(tracker_of: Make) -> None:
    detector = Script()
    tracker = tracker_of(detector, detection_period=0.2, search_period=0.2)
    here, there = world((RED, 200, 240, HALF_SURE)), world((RED, 330, 240, HALF_SURE))
    play(tracker, [PERIOD * k for k in range(5)], here)
    detector.sees = False
    count = tracker.detections
    k = 5
    while tracker.detections < count + 2:  # two more are one too many
        assert play(tracker, [PERIOD * k], here) == [[0]]
        k += 1
    detector.sees = True
    while (found := play(tracker, [PERIOD * k], there)[0]) == []:
        k += 1
        assert k < 40
    detector.sees = False
    count = tracker.detections
    while tracker.detections < count + 2:
        k += 1
        assert found == [0] and play(tracker, [PERIOD * k], there) == [[0]]


@pytest.mark.parametrize("by", ["network", "detector"])
def test_a_face_that_detections_refuted_comes_back_when_it_is_sure_or_detected(tracker_of: Make, by: str) -> None:
    detector = Script()
    tracker = tracker_of(detector, detection_period=0.2, retain=5.0)
    unsure = world((RED, 300, 240, HALF_SURE))
    play(tracker, [PERIOD * k for k in range(5)], unsure)
    detector.sees = False
    k = 5
    while play(tracker, [PERIOD * k], unsure)[0]:
        k += 1
        assert k < 60
    assert [track.state for track in tracker.tracks] == [State.LOST], "its id is kept"
    assert not any(play(tracker, [PERIOD * i for i in range(k + 1, k + 20)], unsure)), "its own place is not enough"
    detector.sees = by == "detector"
    image = unsure if by == "detector" else world((RED, 300, 240))
    assert play(tracker, [PERIOD * i for i in range(k + 20, k + 28)], image)[-1] == [0]


def test_a_face_that_was_lost_long_ago_costs_nothing_and_is_known_again_when_it_is_detected(tracker_of: Make) -> None:
    tracker = tracker_of(retain=3600.0, detection_period=0.5, search_period=0.1)
    eyes = tracker.pipeline.model.network
    sitter, both = world((RED, 100, 240)), world((RED, 100, 240), (GREEN, 400, 240))
    assert play(tracker, [PERIOD * k for k in range(20)], both)[-1] == [0, 1]

    def load(images: range) -> tuple[int, int]:
        del eyes.crops[:]
        count = tracker.detections
        play(tracker, [PERIOD * k for k in images], sitter)
        return max(eyes.crops), tracker.detections - count

    assert load(range(20, 49)) == (2, 10), "looked for in every image, and ten times a second by the detector"
    load(range(49, 60))
    assert load(range(60, 120)) == (1, 4), "as if there had been one only"
    assert len(tracker.tracks) == 2
    assert play(tracker, [PERIOD * k for k in range(120, 140)], both)[-1] == [0, 1]


def test_no_more_lost_faces_than_max_faces_are_kept_the_newest(tracker_of: Make) -> None:
    tracker = tracker_of(max_faces=2, retain=3600.0)
    for number, square in enumerate([(RED, 100, 240), (GREEN, 250, 240), (BLUE, 400, 240), (RED, 550, 240)]):
        assert play(tracker, [number + 0.03 * k for k in range(10)], world(square))[-1] == [number]
    play(tracker, [4.0, 4.03], world())
    assert [track.id for track in tracker.tracks] == [2, 3]
    assert max(tracker.pipeline.model.network.crops) <= 4


# Clocks.


def play(tracker: Tracker, stamps: list[float], image: np.ndarray | None = None) -> list[list[int]]:
    return [ids(tracker(world((RED, 300, 240)) if image is None else image, stamp)) for stamp in stamps]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([3.0, 3.03], 1),  # a looped bag
        ([10.0, 10.03], 0),  # a clock set back a little
        ([10.6, 10.63], 0),  # some images missed
        ([25.0, 25.03], 1),  # a pause
        ([1e9, 1e9 + 0.03], 1),  # a clock set right
    ],
)
def test_stamps_that_jump(tracker_of: Make, stamps: list[float], expected: int) -> None:
    tracker = tracker_of(retain=0.5)
    assert play(tracker, [10 + PERIOD * k for k in range(10)])[-1] == [0]
    assert play(tracker, stamps)[-1] == [expected]
    if expected == 0:
        assert tracker.tracks[0].age > 0.3


@pytest.mark.parametrize("stamp", [0.0, 1e9])
def test_a_camera_without_stamps_counts_as_thirty_images_a_second(tracker_of: Make, stamp: float) -> None:
    tracker = tracker_of(detection_period=0.5)
    assert play(tracker, [stamp] * 46)[-1] == [0]
    assert tracker.detections == 4
    play(tracker, [stamp] * 30, world())
    assert tracker.tracks == [], "and a lost face is forgotten, too"


@pytest.mark.parametrize("broken", [0.0, -0.5], ids=["repeats", "goes back"])
def test_motion_is_smoothed_anew_where_a_stamp_repeats_or_goes_back(tracker_of: Make, broken: float) -> None:
    tracker = tracker_of(smoothing=Smoothing(), detection_period=1000.0)

    def shown(x: float, stamp: float) -> float:
        """By how much the smoothed landmarks are off."""
        [track] = tracker(world((RED, x, 240)), stamp)
        return float(np.abs(track.face.landmarks - track.raw.landmarks).max())

    tracker(world((RED, 100, 240)), 0.0)
    away = [shown(100 + 4 * k + 6 * (k % 2), PERIOD * k) for k in range(1, 30)]
    assert max(away[5:]) > 1
    stamp = PERIOD * 29 + broken
    assert shown(230, stamp) < 0.01, "the face as it is seen"
    assert shown(230, stamp + PERIOD) < 0.5, "without a speed"
    assert shown(236, stamp + 2 * PERIOD) > 1, "and then smoothed as ever"


def test_without_stamps_faces_are_not_smoothed(tracker_of: Make) -> None:
    tracker = tracker_of(smoothing=Smoothing())
    for k in range(20):
        for track in tracker(world((RED, 200 + 6 * (k % 2), 240)), 0.0):
            assert np.abs(track.face.landmarks - track.raw.landmarks).max() < 0.01
    assert [track.id for track in tracker.tracks] == [0]


@pytest.mark.parametrize("before", [PERIOD, 2.0])
def test_a_slow_camera_keeps_its_faces(tracker_of: Make, before: float) -> None:
    """A pause is what is long for this camera: after a change of rate, ids go on."""
    tracker = tracker_of(retain=0.5, detection_period=1000.0)
    slow = [100 + k for k in range(12)]
    answers = play(tracker, [99 - before * (10 - k) for k in range(10)] + [float(s) for s in slow])
    assert answers[-1] and all(found == answers[-1] for found in answers[-9:])


def test_reset_forgets_faces_but_not_ids(tracker_of: Make) -> None:
    tracker = tracker_of()
    play(tracker, [0.0, 0.03])
    tracker.reset()
    assert tracker.tracks == [] and play(tracker, [0.06, 0.09])[-1] == [1]


def test_an_image_of_another_size_begins_anew(tracker_of: Make) -> None:
    tracker = tracker_of()
    play(tracker, [0.0, 0.03])
    small = cv2.resize(world((RED, 300, 240)), (320, 240))
    assert tracker(small, 0.06) == [] and tracker.tracks == []


# The detector's thread.


class Gate(Squares):
    """A detector that waits in its thread until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, image: np.ndarray) -> list[Detection]:
        self.entered.set()
        assert self.open.wait(30)
        return super().__call__(image)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_followed_faces_do_not_wait_for_the_detector(tracker_of: Make) -> None:
    gate = Gate()
    tracker = tracker_of(gate, deterministic=False, detection_period=0.1)
    image = world((RED, 300, 240))
    assert tracker(image, 0.0) == [], "nothing yet, but at once"
    gate.open.set()
    until(lambda: not tracker.detecting)
    assert [ids(tracker(image, PERIOD * k)) for k in (1, 2)] == [[], [0]]
    gate.open.clear()
    gate.entered.clear()
    for k in range(3, 60):  # the detector stands still all the while
        assert ids(tracker(image, PERIOD * k)) == [0]
    assert gate.entered.wait(30) and tracker.detecting and tracker.detections == 1
    gate.open.set()
    until(lambda: not tracker.detecting)
    assert tracker.detections == 2 and tracker.detector_seconds > 0


def test_a_late_detection_is_found_where_the_face_has_gone(tracker_of: Make) -> None:
    """The image it belongs to is copied; the track begins where the face is by now, and not at the old place."""
    gate = Gate()
    tracker = tracker_of(gate, deterministic=False, confirm_images=1)
    buffer = world((RED, 150, 240))
    tracker(buffer, 0.0)
    assert gate.entered.wait(30)
    buffer[:] = 0  # the caller may use its memory again
    gate.open.set()
    until(lambda: not tracker.detecting)
    [track] = tracker(world((RED, 300, 200)), 0.4)
    x, y = middle(track.face)
    assert abs(x - 299.5) < 3 and abs(y - 199.5) < 3


def test_a_late_detection_confirms_the_track_that_was_there_then(tracker_of: Make) -> None:
    gate = Gate()
    tracker = tracker_of(gate, deterministic=False, confirm_images=1, detection_period=0.2)
    gate.open.set()
    tracker(world((RED, 100, 240)), 0.0)
    until(lambda: not tracker.detecting)
    gate.open.clear()
    gate.entered.clear()
    for k in range(1, 40):  # meanwhile it walks on, and another one comes to its old place
        squares = [(RED, 100 + 10.0 * k, 240.0)] + ([(GREEN, 160.0, 240.0)] if k > 25 else [])
        tracks = tracker(world(*squares), PERIOD * k)
    assert ids(tracks) == [0] and gate.entered.is_set()
    gate.open.set()
    until(lambda: not tracker.detecting)
    assert ids(tracker(world((RED, 500, 240), (GREEN, 160, 240)), PERIOD * 40)) == [0], "one face, one track"
    for k in range(41, 60):
        tracks = tracker(world((RED, 500, 240), (GREEN, 160, 240)), PERIOD * k)
        until(lambda: not tracker.detecting)
    assert {number: round(x, -1) for number, (x, _) in where(tracks).items()} == {0: 500, 1: 160}


class Broken(Squares):
    """A detector that fails the second time."""

    def __call__(self, image: np.ndarray) -> list[Detection]:
        found = super().__call__(image)
        if self.calls == 2:
            raise OSError("the detector has lost its head")
        return found


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_the_detector_raises_surfaces_once_and_the_tracks_live_on(tracker_of: Make, deterministic: bool) -> None:
    tracker = tracker_of(Broken(), deterministic=deterministic, detection_period=0.1)
    image = world((RED, 300, 240))
    raised, last = 0, []
    for k in range(40):
        try:
            last = ids(tracker(image, PERIOD * k))
        except OSError as e:
            raised += 1
            assert "lost its head" in str(e)
        until(lambda: not tracker.detecting)
    assert raised == 1 and last == [0] and tracker.detections > 4


def detector_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("radan_detector")]


def test_close_ends_the_thread_and_a_forgotten_tracker_has_none(pipeline: Pipeline) -> None:
    assert detector_threads() == []
    tracker = Tracker(pipeline)
    assert detector_threads() == [], "no thread before the first image"
    tracker(world(), 0.0)
    assert len(detector_threads()) == 1
    tracker.close()
    assert detector_threads() == []
    tracker.close()
    assert tracker(world(), 1.0) == [] and len(detector_threads()) == 1, "it can be used again"
    del tracker
    gc.collect()
    until(lambda: detector_threads() == [])


def test_close_waits_for_the_detection_under_way(pipeline: Pipeline) -> None:
    gate = Gate()
    tracker = Tracker(Pipeline(pipeline.model, gate))
    tracker(world((RED, 300, 240)), 0.0)
    assert gate.entered.wait(30)
    closing = threading.Thread(target=tracker.close)
    closing.start()
    assert closing.is_alive()
    gate.open.set()
    closing.join(30)
    assert not closing.is_alive() and detector_threads() == []


def test_close_without_waiting_returns_during_a_detection(pipeline: Pipeline) -> None:
    gate = Gate()
    tracker = Tracker(Pipeline(pipeline.model, gate))
    tracker(world((RED, 300, 240)), 0.0)
    assert gate.entered.wait(30)
    tracker.close(wait=False)
    assert len(detector_threads()) == 1 and not tracker.detecting
    gate.open.set()
    until(lambda: detector_threads() == [])


@pytest.mark.parametrize(("seconds", "done"), [(0.3, "done\n"), (600, "")])
def test_the_end_of_a_process_waits_for_a_detection_but_not_for_long(seconds: float, done: str) -> None:
    """Cutting off dlib's code aborts the process."""
    code = f"""
import threading
from radan_ros.detection_worker import DetectionWorker
entered = threading.Event()
worker = DetectionWorker()
worker.start(lambda image: [entered.set(), threading.Event().wait({seconds}), print("done", flush=True)], None)
assert entered.wait(30)
worker.close(wait=False)
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, check=True, stdout=subprocess.PIPE, text=True)
    assert ended.stdout == done


@pytest.mark.parametrize("forget", [Tracker.reset, lambda t: t(world(), -100.0)], ids=["reset", "looped"])
def test_a_detection_from_before_a_reset_counts_no_more(tracker_of: Make, forget: Callable[[Tracker], object]) -> None:
    gate = Gate()
    tracker = tracker_of(gate, deterministic=False, confirm_images=1)
    tracker(world((RED, 300, 240)), 0.0)
    assert gate.entered.wait(30)
    forget(tracker)
    gate.open.set()
    for k in range(5):
        assert tracker(world(), -99 + PERIOD * k) == []
        until(lambda: not tracker.detecting)
    assert tracker.tracks == []


def test_the_detector_can_be_replaced_between_images(tracker_of: Make) -> None:
    tracker = tracker_of(detection_period=0.0)
    play(tracker, [0.0, 0.03])
    other = Squares()
    tracker.pipeline = Pipeline(tracker.pipeline.model, other)
    assert play(tracker, [0.06])[-1] == [0] and other.calls == 1


# Smoothing.


def test_each_track_is_smoothed_by_itself_and_the_raw_face_is_kept(tracker_of: Make) -> None:
    tracker = tracker_of(smoothing=Smoothing())
    random = np.random.default_rng(0)
    shown: dict[int, list[float]] = {0: [], 1: []}
    raw: dict[int, list[float]] = {0: [], 1: []}
    for k in range(40):
        trembling = 200 + 2 * random.normal(), 450 + 2 * random.normal()
        for track in tracker(world((RED, trembling[0], 240), (GREEN, trembling[1], 240)), PERIOD * k):
            shown[track.id].append(middle(track.face)[0])
            raw[track.id].append(middle(track.raw)[0])
    for number in (0, 1):
        assert np.std(shown[number][10:]) < 0.75 * np.std(raw[number][10:])
        assert abs(np.mean(shown[number]) - np.mean(raw[number])) < 1


def test_smoothing_is_turned_off_and_on_between_images(tracker_of: Make) -> None:
    tracker = tracker_of(smoothing=Smoothing())
    play(tracker, [PERIOD * k for k in range(5)])
    tracker.apply(replace(tracker.settings, smoothing=None))
    [track] = tracker(world((RED, 303, 240)), PERIOD * 5)
    assert track.id == 0 and track.face is track.raw
    tracker.apply(replace(tracker.settings, smoothing=Smoothing()))
    for x, k in ((300, 6), (303, 7), (300, 8)):
        [track] = tracker(world((RED, x, 240)), PERIOD * k)
    assert track.id == 0 and not np.array_equal(track.face.landmarks, track.raw.landmarks)


# Bad input.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("detection_period", -1.0),
        ("search_period", float("nan")),
        ("retain", float("inf")),
        ("max_faces", 0),
        ("confirm_images", 0),
        ("min_confidence", 1.1),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        TrackerSettings(**{name: value})  # type: ignore[arg-type]


def test_wrong_images_and_a_missing_detector_are_said(tracker_of: Make, pipeline: Pipeline) -> None:
    tracker = tracker_of()
    play(tracker, [0.0, 0.03])
    with pytest.raises(ValueError, match="image"):
        tracker(np.zeros((4, 4), np.uint8), 0.06)
    assert play(tracker, [0.06]) == [[0]]
    with pytest.raises(ValueError, match="detector"):
        Tracker(Pipeline(pipeline.model))(world(), 0.0)


# Cues.


def test_motion_goes_ahead_with_one_who_walks_and_stays_with_one_who_shakes() -> None:
    square = np.array([100, 100, 200, 200], np.float32)
    walking = shaking = Motion.begin(square, 0.0)
    for k in range(1, 20):
        walking = walking.then(square + np.float32([8 * k, 0, 8 * k, 0]), PERIOD * k)
        shaking = shaking.then(square + np.float32([8 * (k % 2), 0, 8 * (k % 2), 0]), PERIOD * k)
    assert np.abs(walking.at(PERIOD * 20) - (square + [160, 0, 160, 0])).max() < 1
    assert np.array_equal(shaking.at(PERIOD * 20), shaking.square)
    far = walking.at(1000.0)
    assert np.isfinite(far).all() and far[0] < 100 + 152 + 300, "a motion is believed in for a second"


def test_colours_are_the_same_in_other_light_and_different_for_another(builtin: Model, couple: np.ndarray) -> None:
    pipeline = Pipeline(builtin, open_detector("dlib_hog", min_face=80))
    face, _ = pipeline(couple, two_step=True)
    own = colours(couple, face)
    dark = np.rint(couple * 0.6).astype(np.uint8)
    assert difference(own, colours(dark, face)) < 3
    assert difference(own, colours(couple[..., ::-1].copy(), face)) > 20
    beside = replace(face, landmarks=face.landmarks - np.float32([9000, 0, 0]))
    assert np.isnan(colours(couple, beside)).all() and difference(own, colours(couple, beside)) == 0


def test_a_box_is_found_in_a_later_image(astronaut: np.ndarray) -> None:
    later = np.roll(astronaut, (31, -57), axis=(0, 1))
    found = moved((181, 79, 273, 171), astronaut, later)
    assert np.abs(found - np.array([124, 110, 216, 202])).max() < 4
    assert np.array_equal(moved((181, 79, 273, 171), astronaut, np.zeros_like(astronaut)), [181, 79, 273, 171])
    assert np.array_equal(moved((600, 600, 700, 700), astronaut, later), [600, 600, 700, 700])


# Real faces.


def test_people_who_cross_keep_their_ids(builtin: Model, shared: Path, benchmark: ModuleType) -> None:
    pipeline = Pipeline(builtin, open_detector("dlib_hog", min_face=60))
    back, front = (benchmark.person(pipeline, shared / "video" / f"{n}.mp4", 120, 60) for n in ("s18", "d20"))
    scenes = list(benchmark.passing(back, front, 10.0))
    result = benchmark.run(Tracker(pipeline, replace(IN_LINE, retain=1.0)), scenes, paced=False)
    assert not all(scene.visible[0] for scene in scenes) and len(scenes) == 60
    assert result.switches == 0 and len(result.ids) == 2
    assert result.missed < 0.15 * result.visible


def test_the_same_images_give_the_same_answer_bit_for_bit(builtin: Model, shared: Path) -> None:
    pipeline = Pipeline(builtin, open_detector("dlib_hog", min_face=120))
    capture = cv2.VideoCapture(str(shared / "video" / "d20.mp4"))
    images = [capture.read()[1] for _ in range(25)]
    runs = []
    for _ in range(2):
        tracker = Tracker(pipeline, IN_LINE)
        runs.append([tracker(image, 5 + 0.04 * k) for k, image in enumerate(images)])
    assert len(runs[0][-1]) == 1
    for one, other in zip(*runs, strict=True):
        assert ids(one) == ids(other)
        for a, b in zip(one, other, strict=True):
            assert np.array_equal(a.face.landmarks, b.face.landmarks) and np.array_equal(a.raw.camera, b.raw.camera)


def test_a_followed_face_that_left_is_noticed_at_once(builtin: Model, couple: np.ndarray) -> None:
    pipeline = Pipeline(builtin, open_detector("dlib_hog", min_face=80))
    tracker = Tracker(pipeline, replace(IN_LINE, confirm_images=1, detection_period=1000.0, search_period=1000.0))
    tracks = tracker(couple, 0.0)
    assert len(tracks) == 2
    empty = couple.copy()
    for track in tracks:  # what is behind the people, as far as one can see
        left, top, right, bottom = (int(v) for v in track.face.roi)
        empty[max(0, top - 40) : bottom + 40, max(0, left - 40) : right + 40] = couple[60:90, 330:360].mean(axis=(0, 1))
    assert len(tracker(couple, 0.03)) == 2
    assert sum(len(tracker(empty, 0.06 + 0.03 * k)) for k in range(10)) <= 4
