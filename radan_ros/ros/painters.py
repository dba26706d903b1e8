"""Processes that draw the views of answers, so that a bag keeps all cores busy. The same bytes as without them.

A view depends on its answer alone, but for what its `state` tells; that goes along with each answer, so that any
process can make any view. Each is begun as a new interpreter, not forked, since threads do not survive a fork, and not
through `multiprocessing`, which would load the program's main module once more. It is told what to do over a socket,
and ends when that closes: when the program has ended, however that was.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from radan_ros.errors import line
from radan_ros.face_models import FaceModel
from radan_ros.rendering import Renderer
from radan_ros.ros.answer import Answer
from radan_ros.ros.bag_node import BagNode, Log
from radan_ros.ros.outputs import Outputs
from radan_ros.ros.parameters import Settings

VIEWS = ("meshes", "pncc", "depth", "markers", "points", "overlay")
"""Views that painters can make."""
_SIZES = struct.Struct("=QQ")  # bytes of what is pickled, and of the plain bytes behind it
_PATIENCE = 5.0  # seconds that a process has to end by itself


@dataclass(frozen=True)
class Scenery:
    """What painters know of a camera's node.

    Attributes
    ----------
    name, namespace : str
        Of the node.
    settings : Settings
        Whose `publish` names what is to be drawn, all of `VIEWS`.
    """

    name: str
    namespace: str
    settings: Settings


@dataclass(frozen=True)
class Painted:
    """What was made of an answer.

    Attributes
    ----------
    messages : list of (str, bytes-like)
        Topic and message.
    failed : dict
        Views that could not be made, and why.
    """

    messages: list[tuple[str, memoryview]]
    failed: dict[str, str]


class Painters:
    """So many processes that draw.

    Parameters
    ----------
    number : int
    face_model : FaceModel
    scenes : sequence of Scenery
        One a camera.
    """

    def __init__(self, number: int, face_model: FaceModel, scenes: Sequence[Scenery]) -> None:
        self.number = number
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sockets: list[socket.socket] = []
        self._idle: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="painter")
        try:
            for _ in range(number):
                self._begin()
            told = pickle.dumps((face_model, list(scenes)))
            for ours in self._sockets:
                # In a thread of its own: a process takes it when it has loaded what it needs.
                self._threads.submit(self._introduce, ours, told)
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        self._sockets.append(ours)
        with theirs:
            # In the same environment as this one, also where a program has changed its path.
            code = f"import sys; sys.path[:] = {sys.path!r}; from radan_ros.ros import painters; painters.main()"
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", code, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for the program
                )
            )

    def _introduce(self, painter: socket.socket, told: bytes) -> None:
        try:
            _send(painter, told)
        finally:
            self._idle.put(painter)

    def paint(self, camera: int, answer: Answer, state: dict[str, Any]) -> Future[Painted]:
        """Have the views of an answer drawn.

        Parameters
        ----------
        camera : int
            Index of its camera.
        answer : Answer
        state : dict
            Of the views, before this answer.

        Returns
        -------
        Future of Painted
            Raises RuntimeError when the process was ended from outside.
        """
        return self._threads.submit(self._paint, camera, answer, state)

    def _paint(self, camera: int, answer: Answer, state: dict[str, Any]) -> Painted:
        told = pickle.dumps(
            (camera, state, answer.image.shape, answer.header, answer.camera, answer.tracks, answer.metric)
        )
        painter = self._idle.get()
        try:
            _send(painter, told, np.ascontiguousarray(answer.image).data.cast("B"))
            heard = _receive(painter)
        except OSError:
            heard = None
        finally:
            self._idle.put(painter)
        if heard is None:
            raise RuntimeError("a process that draws was ended from outside (memory?); run again to go on")
        names, lengths, failed = pickle.loads(heard[0])
        messages, begin = [], 0
        for name, length in zip(names, lengths, strict=True):
            messages.append((name, heard[1][begin : begin + length]))
            begin += length
        return Painted(messages, failed)

    def close(self) -> None:
        """End the processes, also in the midst of an answer."""
        for ours in self._sockets:
            with contextlib.suppress(OSError):  # it is gone already
                ours.shutdown(socket.SHUT_RDWR)
        self._threads.shutdown(wait=True, cancel_futures=True)
        for ours in self._sockets:
            ours.close()
        for process in self._processes:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# ------------------------------------------------------------------------------------------------- in such a process


def main() -> None:
    """What a painter does: draws whatever comes from the socket whose number is the first argument, until it closes."""
    import cv2

    from radan_ros.threads import limit_blas

    limit_blas()
    cv2.setNumThreads(1)  # there is a painter for each core
    with socket.socket(fileno=int(sys.argv[1])) as lead:
        try:
            told = _receive(lead)
            if told is None:
                return
            painter = _Painter(*pickle.loads(told[0]))
            while (told := _receive(lead)) is not None:
                names, parts, failed = painter.paint(told)
                _send(lead, pickle.dumps((names, [len(part) for part in parts], failed)), *parts)
        except OSError:  # the program has ended
            return


class _Painter:
    def __init__(self, face_model: FaceModel, scenes: Sequence[Scenery]) -> None:
        self._face_model = face_model
        self._renderer = Renderer(face_model.triangles, face_model.codes)
        self._nodes = [BagNode(scene.name, scene.namespace, Log(), lambda _: True) for scene in scenes]
        pairs = zip(self._nodes, scenes, strict=True)
        self._outputs = [Outputs(node, scene.settings) for node, scene in pairs]

    def paint(self, told: tuple[bytes, memoryview]) -> tuple[list[str], list[bytes], dict[str, str]]:
        """The topics and messages of an answer, and the views that could not be made."""
        number, state, shape, header, camera, tracks, metric = pickle.loads(told[0])
        image = np.frombuffer(told[1], np.uint8).reshape(shape)
        answer = Answer.of(header, image, camera, self._face_model, tracks, metric, self._renderer)
        node, outputs = self._nodes[number], self._outputs[number]
        outputs.restore(state)
        failed = {view: line(error) for view, error in outputs.publish_views(answer).items()}
        written, node.written = node.written, []
        return [topic.name for topic, _ in written], [raw for _, raw in written], failed


# -------------------------------------------------------------------------------------------------------- the socket


def _send(to: socket.socket, pickled: bytes, *plain: Any) -> None:
    to.sendall(_SIZES.pack(len(pickled), sum(len(part) for part in plain)) + pickled)
    for part in plain:
        to.sendall(part)


def _receive(source: socket.socket) -> tuple[bytes, memoryview] | None:
    """What was sent; None when the other side has closed."""
    sizes = _read(source, _SIZES.size)
    if sizes is None:
        return None
    pickled, plain = (_read(source, size) for size in _SIZES.unpack(sizes))
    return None if pickled is None or plain is None else (bytes(pickled), plain)


def _read(source: socket.socket, size: int) -> memoryview | None:
    whole = memoryview(bytearray(size))
    done = 0
    while done < size:
        count = source.recv_into(whole[done:], 0, socket.MSG_WAITALL)
        if not count:
            return None
        done += count
    return whole
