"""What changed between Humble and now: the one way is here, the other one is played by taking the newer names away."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("radan_ros.msg", reason="needs ROS and the built package: make test")
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.subscription import Subscription
from ros_client import PATIENCE
from std_msgs.msg import Header

from radan_ros.ros import compat
from radan_ros.ros.compat import event_handler, with_message_info


@pytest.mark.parametrize("humble", [False, True])
def test_a_subscription_tells_what_it_knows_of_a_message(humble: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[Header, dict[str, Any]]] = []

    def take(message: Header, info: dict[str, Any]) -> None:
        got.append((message, info))

    with monkeypatch.context() as patch:
        if humble:
            patch.delattr(Subscription, "CallbackType")
        callback = with_message_info(take)
    rclpy.init()
    node = Node("compat")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        publisher = node.create_publisher(Header, "compat", 1)
        node.create_subscription(Header, "compat", callback, 1)
        until = time.monotonic() + PATIENCE
        while not got and time.monotonic() < until:
            publisher.publish(Header(frame_id="x"))
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()
    message, info = got[0]
    assert message.frame_id == "x"
    assert info == {} if humble else info["source_timestamp"] > 0


def test_event_callbacks_are_found_under_their_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    new = event_handler()
    assert new.__name__ == "rclpy.event_handler" and new.PublisherEventCallbacks(use_default_callbacks=False)
    with monkeypatch.context() as patch:
        patch.delattr(rclpy, "event_handler")
        patch.setitem(sys.modules, "rclpy.event_handler", None)
        patch.setitem(sys.modules, "rclpy.qos_event", old := type(sys)("rclpy.qos_event"))
        patch.setattr(rclpy, "qos_event", old, raising=False)
        assert event_handler() is old


@pytest.mark.parametrize("installed", [False, True])
def test_what_converts_colours_is_looked_for_once(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    class Finder:
        """Stands for a cv_bridge that is not there."""

        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name == "cv_bridge":
                looks.append(name)
                raise ImportError(name)

    class Bridge:
        def imgmsg_to_cv2(self, plain: Any, _encoding: str) -> np.ndarray:
            return np.repeat(plain.data[..., None], 3, axis=2)

    compat._converter.cache_clear()
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "cv_bridge", raising=False)
        if installed:
            module = type(sys)("cv_bridge")
            module.CvBridge, module.CvBridgeError = Bridge, RuntimeError
            patch.setitem(sys.modules, "cv_bridge", module)
        else:
            pytest.importorskip("rosbags.image")
            patch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
        for grey in (40, 200, 90):
            pixels = compat.convert_to_bgr("mono8", np.full((2, 3), grey, np.uint8))
            assert pixels.shape == (2, 3, 3) and (pixels == grey).all()
    compat._converter.cache_clear()
    assert looks == ([] if installed else ["cv_bridge"])
