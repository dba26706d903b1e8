"""The thread that answers images: it takes the newest one, asks the tracker, and publishes. No algorithm here."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # a class of its own in Python 3.10
from typing import Any, Generic, TypeVar

from rclpy.clock import Clock

from radan_ros.camera import CameraModel
from radan_ros.ros.answer import Answer
from radan_ros.ros.diagnostics import STAGES, Report
from radan_ros.ros.engine import Engine
from radan_ros.ros.images import to_bgr
from radan_ros.ros.outputs import Outputs
from radan_ros.ros.subscriptions import Arrival, seconds_of
from radan_ros.tracking import Track

# Seconds: an image takes a few at most, on the slowest machine with the largest image.
STUCK = 5.0  # at one thing, from which on that is said
PATIENCE = 10.0  # until it takes a call, which would otherwise keep the executor waiting for ever

Item = TypeVar("Item")
Result = TypeVar("Result")


class Worker(Generic[Item]):
    """A thread that works on the newest item left for it, and runs calls between two items.

    Parameters
    ----------
    work : callable
        Takes an item; must not raise.
    """

    def __init__(self, work: Callable[[Item], None]) -> None:
        self._work = work
        self._condition = threading.Condition()
        self._item: Item | None = None
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._stopping = False
        self._since: float | None = None  # when it began what it is at
        self._thread = threading.Thread(target=self._run, name="radan_worker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def put(self, item: Item) -> bool:
        """Leave an item; True when one that nobody took was replaced."""
        with self._condition:
            replaced = self._item is not None
            self._item = item
            self._condition.notify()
            return replaced

    def discard(self) -> bool:
        """Take back an item that nobody took; whether there was one."""
        with self._condition:
            waited = self._item is not None
            self._item = None
            return waited

    def busy(self) -> float:
        """For how many seconds it has been at its item, or its call."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def call(self, function: Callable[[], Result]) -> Result:
        """Run a function in the thread, between two items: what it returns or raises, however long it takes then.

        Raises
        ------
        RuntimeError
            When the thread ends before it gets to it, or does not get to it within `PATIENCE`: it is not run then.
        """
        done: Future[Result] = Future()
        with self._condition:
            if self._stopping or not self.alive():
                raise RuntimeError("the worker has ended")
            self._calls.append((function, done))
            self._condition.notify()
        try:
            return done.result(PATIENCE)
        except FutureTimeoutError:
            if done.cancel():
                raise RuntimeError(f"refused: the worker has been at an image for {self.busy():.0f} s") from None
            return done.result()  # it has begun, or raised a timeout of its own

    def end(self) -> None:
        """Take nothing any more: for a call, after which no item follows then."""
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def stop(self, timeout: float | None = None) -> bool:
        """Let it finish its item, and end it: whether it has ended within `timeout` seconds (default: for ever)."""
        self.end()
        self._thread.join(timeout)
        return not self.alive()

    def _run(self) -> None:
        try:
            while True:
                with self._condition:
                    self._condition.wait_for(lambda: self._stopping or self._calls or self._item is not None)
                    if self._stopping:
                        return
                    call = self._calls.popleft() if self._calls else None
                    item = None
                    if call is None:
                        item, self._item = self._item, None
                    self._since = time.monotonic()
                if call is not None:
                    _fulfil(*call)
                elif item is not None:
                    self._work(item)
                self._since = None
        finally:
            with self._condition:
                self._stopping = True
                for _, done in self._calls:
                    if done.set_running_or_notify_cancel():
                        done.set_exception(RuntimeError("the worker has ended"))


def _fulfil(function: Callable[[], Any], done: Future[Any]) -> None:
    if not done.set_running_or_notify_cancel():
        return  # whoever called has given up
    try:
        done.set_result(function())
    except Exception as e:  # whoever called gets it
        done.set_exception(e)


class Answerer:
    """Answers one image after the other, in the worker's thread.

    Parameters
    ----------
    engine : Engine
    outputs : Outputs
    report : Report
    clock : Clock
        The node's.
    topic : str
        Of the images.
    camera_of : callable
        Takes (height, width) and frame of an image: its `CameraModel`.

    Attributes
    ----------
    engine : Engine
    newest : Answer or None
        The last one, until its faces are hidden or forgotten.
    shows : bool
        Whether the views may show faces.
    """

    def __init__(
        self,
        engine: Engine,
        outputs: Outputs,
        report: Report,
        clock: Clock,
        topic: str,
        camera_of: Callable[[tuple[int, int], str], CameraModel],
    ) -> None:
        self.engine = engine
        self.newest: Answer | None = None
        self.shows = False
        self._outputs = outputs
        self._report = report
        self._clock = clock
        self._topic = topic
        self._camera_of = camera_of

    def __call__(self, arrival: Arrival) -> None:
        """Answer an image; whatever goes wrong is reported, and the next one is answered."""
        try:
            self._answer(arrival)
        except Exception as e:  # the node outlives whatever one image does to it
            if not self._outputs.closed:
                self._bad(self._topic, e)

    def give_up(self) -> None:
        """Publish nothing any more, not even of the image that the worker is still at."""
        self._outputs.closed = True

    def forget(self) -> None:
        """Forget the faces that are followed, and take them from the views."""
        self.engine.tracker.reset()
        self.vanish()

    def vanish(self) -> None:
        """As far as the node can tell, nobody is there any more."""
        self.newest = None
        self.hide()

    def hide(self) -> None:
        """Take the faces from the views, until the next image."""
        self.shows = False
        self._report.statistics.forget_faces()
        self._outputs.clear()

    def _answer(self, arrival: Arrival) -> None:
        message, header = arrival.message, arrival.message.header
        sent, taken = seconds_of(header), self._now()
        clock = [time.perf_counter()]

        def lap() -> float:
            clock.append(time.perf_counter())
            return clock[-1] - clock[-2]

        seconds = {"waiting": taken - arrival.time}
        if sent:  # a camera without a clock sends 0, from which it would be decades
            seconds["transport"] = arrival.time - sent
        try:
            image = to_bgr(message)
        except ValueError as e:
            self._report.bad(f"{self._topic}: {e}")
            return
        seconds["decoding"] = lap()
        camera = self._camera_of((image.shape[0], image.shape[1]), header.frame_id)
        answer = self.engine.answer(header, image, camera, self._left_out, seconds)
        lap()
        if self._outputs.closed:
            return
        self.newest = answer
        # What a robot steers by goes out first; pictures and meshes of the same image follow.
        self.shows = True
        self._outputs.faces.publish(answer)
        if sent:
            seconds["stamp_to_faces"] = self._now() - sent
        seconds["publishing"] = lap()
        for view, error in self._outputs.publish_views(answer).items():
            self._bad(f"publishing {view}", error)
        seconds["publishing_views"] = lap() - seconds.get("rendering", 0.0)
        ids = frozenset(track.id for track in answer.tracks)
        self._report.statistics.answered(ids, seconds)
        if answer.metric:
            self._report.once("first face", f"first face: {answer.metric[0].pose.translation[2]:.2f} m away")
        self._report.logger.debug(
            f"{len(answer.metric)} faces; ms: "
            + " ".join(f"{stage} {1e3 * seconds[stage]:.1f}" for stage in STAGES if stage in seconds)
        )

    def _bad(self, where: str, error: Exception) -> None:
        self._report.bad(f"{where}: {type(error).__name__}: {error}")
        self._report.logger.debug("".join(traceback.format_exception(type(error), error, error.__traceback__)))

    def _left_out(self, track: Track, error: ValueError) -> None:
        self._report.statistics.count("failed_fits")
        self._report.complain(f"face {track.id}: {error}")

    def _now(self) -> float:
        return float(self._clock.now().nanoseconds) * 1e-9
