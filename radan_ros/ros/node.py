"""The node: a lifecycle around what opens models, answers images and publishes. It holds no algorithm."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from radan_ros.errors import line
from radan_ros.ros import topics
from radan_ros.ros.answer import Answer
from radan_ros.ros.diagnostics import Report, Statistics, assess, diagnostic_array
from radan_ros.ros.ending import LAST_WORK, Ending
from radan_ros.ros.engine import OPEN_ERRORS, Engine, check, free_gpu, refusal
from radan_ros.ros.outputs import Outputs
from radan_ros.ros.parameters import Settings, changed, declare
from radan_ros.ros.services import Services
from radan_ros.ros.subscriptions import Arrival, Calibration, Input, image_topic
from radan_ros.ros.worker import STUCK, Answerer, Worker
from radan_ros.threads import limit_blas

DIAGNOSTIC_PERIOD = 1.0  # seconds


@dataclass
class Session:
    """What an active node has and an inactive one has not."""

    input: Input
    answerer: Answerer
    worker: Worker[Arrival]


class RadanNode(LifecycleNode):
    """Faces of a camera on topics. See the README for topics, services and parameters.

    configure opens model and detector and makes the publishers, activate subscribes and starts the worker; deactivate
    undoes that and leaves a GPU, cleanup frees all. One thread takes everything in, and one answers the images. (More
    do not go with a lifecycle: rclpy's multi-threaded executor fails when topics are removed beside it.)

    Raises
    ------
    rclpy.exceptions.ParameterException, ValueError
        For a parameter that is wrong in itself.
    """

    def __init__(self) -> None:
        super().__init__("radan")
        self.settings: Settings = declare(self)
        self.statistics = Statistics()
        self._report = Report(self.get_logger(), self.statistics)
        self._state = "unconfigured"
        self._problem = ""  # why the last transition failed
        self._engine: Engine | None = None
        self._outputs: Outputs | None = None
        self._calibration: Calibration | None = None
        self._session: Session | None = None
        self._patience: float | None = None  # for the last image
        self._diagnostics = topics.publisher(self, DiagnosticArray, "/diagnostics", topics.reliable())
        self.add_on_set_parameters_callback(self._on_parameters)
        Services(self, self)
        # Also while a simulation's clock stands.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTIC_PERIOD, self._diagnose, clock=steady)
        _refuse_impossible_transitions(self)

    # ------------------------------------------------------------------------------------------------- lifecycle

    def start(self) -> bool:
        """Configure and activate, as from outside: whether that worked."""
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open model and detector, pay for first use, make the publishers."""
        return self._transition("inactive", self._configure, undo=self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and start to work."""
        return self._transition("active", self._activate, undo=self._deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, end the worker, take back what is on show, leave the GPU. Refused while the worker is stuck."""
        try:
            self._end_worker()
        except RuntimeError as e:
            self.get_logger().error(f"not deactivated, {line(e)}")
            return TransitionCallbackReturn.FAILURE
        return self._transition("inactive", self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything."""
        return self._transition("unconfigured", self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, for good; an image that takes longer than `LAST_WORK` is not waited for."""
        self._patience = LAST_WORK
        return self._transition("finalized", self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A fault of ours: free everything; the node can be configured again."""
        problem = self._problem
        result = self._transition("unconfigured", self._release)
        self._problem = problem
        return result

    def _transition(
        self, state: str, action: Callable[[], object], undo: Callable[[], object] | None = None
    ) -> TransitionCallbackReturn:
        """Do what leads to a state. Without `undo` nothing of it may fail."""
        try:
            action()
        except Exception as e:
            expected = undo is not None and isinstance(e, OPEN_ERRORS)
            self._problem = f"cannot start: {line(e)}" if expected else f"{type(e).__name__}: {line(e)}"
            self.get_logger().error(self._problem)
            if undo is None or not expected:
                self.get_logger().error(traceback.format_exc())
                return TransitionCallbackReturn.ERROR
            undo()
            return TransitionCallbackReturn.FAILURE
        if state != self._state:
            self.get_logger().info(f"now {state}")
        self._state, self._problem = state, ""
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self._patience = None
        started = time.perf_counter()
        engine = self._engine = Engine(self.settings, self.get_logger())
        self._outputs = Outputs(self, self.settings)
        self._calibration = Calibration(self.resolve_topic_name("camera_info"), self.settings, self._report)
        model = engine.parts.model
        network, face_model = model.network, model.face_model
        self._outputs.announce(face_model)
        self.get_logger().info(
            f"model {model.name} ({network.name} on {network.device}), face model {face_model.name} "
            f"with {len(face_model.mean)} vertices, ready in {time.perf_counter() - started:.1f} s"
        )

    def _activate(self) -> None:
        assert self._outputs is not None and self._calibration is not None
        if self._engine is None:  # it was on a GPU
            self._engine = Engine(self.settings, self.get_logger())
            self._outputs.announce(self._engine.parts.model.face_model)
        topic = image_topic(self, self.settings)
        calibration = self._calibration
        answerer = Answerer(self._engine, self._outputs, self._report, self.get_clock(), topic, calibration.camera)
        worker = Worker(answerer)
        heard = Input(self, self.settings, self._report, calibration, worker.put)
        self._session = Session(heard, answerer, worker)
        worker.start()
        heard.open()
        self.get_logger().info(f"waiting for images on {topic}")

    def _deactivate(self) -> bool:
        """Whether the worker has ended."""
        ended = self._end_session()
        if self._engine is not None:
            self._engine.rest(wait=self._patience is None)
            if self._engine.device != "cpu":
                self._engine = None
                free_gpu()
        return ended

    def _end_worker(self) -> None:
        """By itself, as `_end_session`. RuntimeError where the worker is stuck: it goes on then."""
        session = self._session
        if session is not None and session.worker.alive():
            session.worker.call(session.worker.end)  # and not `stop`: that cannot be taken back

    def _end_session(self) -> bool:
        """By itself: nothing may refer to the engine any more when a GPU's memory is freed."""
        session, self._session = self._session, None
        if session is None:
            return True
        session.input.close()
        if not session.worker.stop(self._patience):
            session.answerer.give_up()
            return False
        session.answerer.forget()
        return True

    def _release(self) -> None:
        ended = self._deactivate()
        if self._outputs is not None and ended:  # else the worker is at them still
            self._outputs.destroy()
        self._outputs = self._engine = self._calibration = None
        self._report.forget()
        free_gpu()

    # ------------------------------------------------------------------------------------- parameters, services

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            settings = changed(self.settings, parameters)
            if settings != self.settings:
                self._change(settings)
        except Exception as e:  # what leaves a callback ends the program
            return SetParametersResult(successful=False, reason=refusal(e, self.get_logger()))
        return SetParametersResult(successful=True)

    def _change(self, settings: Settings) -> None:
        """Open what is new while images are answered; then go over to it between two of them, all at once."""
        engine, outputs, session = self._engine, self._outputs, self._session
        calibration = self._calibration
        parts = None
        if engine is None:
            check(self.settings, settings)
        elif session is None:
            parts = engine.prepare(settings)
        else:
            parts = session.input.meanwhile(lambda: engine.prepare(settings))

        renewed = engine is not None and parts is not None and parts.model is not engine.parts.model

        def go_over() -> None:
            if outputs is not None:
                outputs.change(settings)  # first: of all this it alone can fail
            if engine is not None and parts is not None:
                if renewed and session is not None:
                    session.answerer.forget()
                if renewed and outputs is not None:
                    outputs.announce(parts.model.face_model)
                engine.apply(parts, settings)
            if calibration is not None:
                calibration.change(settings)
            if session is not None:
                session.input.change(settings)

        if session is not None:
            session.worker.call(go_over)
        else:
            go_over()
        self.settings = settings
        if renewed:
            free_gpu()

    def reset(self) -> None:
        """Forget all faces."""
        session = self._active()
        session.worker.call(session.answerer.forget)

    def pause(self, paused: bool) -> None:
        """Leave images out, or take them again."""
        session = self._active()
        before, session.input.paused = session.input.paused, paused
        if paused:
            if session.worker.discard():
                self.statistics.count("paused")
            try:
                session.worker.call(session.answerer.hide)
            except RuntimeError:  # what is refused changes nothing
                session.input.paused = before
                raise

    def newest_answer(self) -> Answer | None:
        """The answer to the last image."""
        return self._active().answerer.newest

    def _active(self) -> Session:
        if self._session is None:
            raise RuntimeError(f"the node is {self._state}, not active")
        return self._session

    # ----------------------------------------------------------------------------------------------- diagnostics

    def _diagnose(self) -> None:
        state, silence, stuck, session, now = self._state, "", "", self._session, time.monotonic()
        if session is not None:
            session.input.check()
            if session.worker.busy() > STUCK:
                stuck = f"the worker has been at one image for {session.worker.busy():.0f} s"
                self._report.complain(stuck)
            if session.input.paused:
                state = "paused"
            else:
                silence = session.input.silence(self.settings.camera_timeout)
                if silence and session.answerer.shows and not stuck:
                    with contextlib.suppress(RuntimeError):  # the worker has ended
                        session.worker.call(session.answerer.vanish)
        bad = self.statistics.last_bad if self.statistics.bad_lately(now) else ""
        calibration = self._calibration.trouble() if self._calibration is not None else ""
        level, summary = assess(
            state, problem=self._problem, silence=silence, bad=bad, stuck=stuck, calibration=calibration
        )
        rate_in, rate_out = self.statistics.rates(now)
        values = {"state": state, "rate_in": f"{rate_in:.1f}", "rate_out": f"{rate_out:.1f}"}
        values |= self.statistics.values()
        values["topics_read"] = " ".join(self._topics_read())
        if self._calibration is not None:
            values["camera_info"] = self._calibration.state()
        device = ""
        if self._engine is not None:
            model, tracker, device = self._engine.parts.model, self._engine.tracker, self._engine.device
            values |= {
                "model": model.name,
                "face_model": model.face_model.name,
                "version": model.face_model.version,
                "network": model.network.name,
                "device": device,
                "detections": str(tracker.detections),
                "detector_ms_last": f"{1e3 * tracker.detector_seconds:.2f}",
            }
        stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name()
        self._diagnostics.publish(diagnostic_array(stamp, name, device, level, summary, values))

    def _topics_read(self) -> list[str]:
        """Topics with answers that somebody subscribes to."""
        read = set()
        for publisher in list(self.publishers):
            # Those of single faces are removed by the worker, at any time.
            with contextlib.suppress(InvalidHandle):
                if publisher is not self._diagnostics and publisher.get_subscription_count():
                    read.add(publisher.topic_name)
        return sorted(read - {"/parameter_events"})

    # ------------------------------------------------------------------------------------------------- the program

    def working(self) -> bool:
        """Whether an active node's worker runs; without it the node would only look alive."""
        session = self._session
        return session is None or session.worker.alive()

    def close(self) -> None:
        """End, from whatever state."""
        with contextlib.suppress(RuntimeError):  # it was shut down already
            self.trigger_shutdown()


def _refuse_impossible_transitions(node: LifecycleNode) -> None:
    """Answer a request for a transition that the state does not allow: Jazzy's rclpy lets it end the program."""
    service = getattr(node, "_service_change_state", None)
    if service is None:  # private: a later rclpy, which refuses them itself, may name it otherwise
        return
    change_state = service.callback

    def callback(request: Any, response: Any) -> Any:
        try:
            return change_state(request, response)
        except RuntimeError as e:
            node.get_logger().warning(f"no such transition from here: {line(e)}")
            response.success = False
            return response

    service.callback = callback


def main(args: list[str] | None = None, *, start: bool = True) -> int:
    """Run the node until SIGINT or SIGTERM. Returns the exit status: 1 when it could not start.

    Parameters
    ----------
    args : list of str, optional
        Default: the command line.
    start : bool
        Configure and activate the node; otherwise it waits to be told.
    """
    ending = Ending()
    limit_blas()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = RadanNode()
    except OPEN_ERRORS as e:
        rclpy.logging.get_logger("radan").fatal(f"cannot start: {line(e)}")
        rclpy.try_shutdown()
        return 1
    started = not start or node.start()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while started and not ending.asked() and node.working():
            executor.spin_once(timeout_sec=0.2)
        status = 0 if ending.asked() else 1
        if ending.asked():
            node.get_logger().info("told to end")
    finally:
        ending.finish()  # nothing blocks any more, and closing has limits of its own
        executor.shutdown()
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()
    return status


def main_lifecycle(args: list[str] | None = None) -> int:
    """Run the node unconfigured: it waits for the transitions that it is told."""
    return main(args, start=False)


if __name__ == "__main__":
    sys.exit(main())
