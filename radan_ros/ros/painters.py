"""Processes that draw the views of answers, so that a bag keeps all cores busy. The same bytes as without them.

A view depends on its answer alone, but for what its `state` tells; that goes along with each answer, so that any
process can make any view. Each is begun as a new interpreter, not forked, since threads do not survive a fork, and not
through `multiprocessing`, which would load the program's main module once more. It is told what to do over a socket,
and ends when that closes: when the program has ended, however that was.
"""

from __future__ import annotations

import contextlib
import json
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

# In the same environment as the program, also where that has changed its path, which comes first over the socket.
_CODE = """import json, signal, socket, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
lead = socket.socket(fileno=int(sys.argv[1]))
path = lead.makefile("rb", buffering=0).readline()
path or sys.exit()
sys.path[:] = json.loads(path)
from radan_ros.ros.painters import main
main(lead)"""
_SIZES = struct.Struct("=QQ")  # bytes of what is pickled, and of the plain bytes behind it
_PATIENCE = 5.0  # seconds until what has closed its socket is known to have ended


@dataclass(frozen=True)
class Scenery:
    """What painters know of a camera's node.

    Attributes
    ----------
    name, namespace : str
        Of the node.
    settings : Settings
        Whose `publish` names what is to be drawn: of `radan_ros.ros.outputs.Outputs.drawn`.
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

    Raises
    ------
    OSError, RuntimeError
        When a process or a thread cannot be begun.
    """

    def __init__(self, number: int, face_model: FaceModel, scenes: Sequence[Scenery]) -> None:
        self.number = number
        self._painters: list[tuple[subprocess.Popen[bytes], socket.socket]] = []
        self._idle: queue.SimpleQueue[tuple[subprocess.Popen[bytes], socket.socket]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="painter")
        try:
            for _ in range(number):
                self._begin()
            told = pickle.dumps((face_model, list(scenes)))
            for painter in self._painters:
                # In a thread of its own: a process takes it when it has loaded what it needs.
                self._threads.submit(self._introduce, painter, told)
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-c", _CODE, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # what goes wrong comes over the socket
                    start_new_session=True,  # Ctrl-C is for the program
                )
            except BaseException:
                ours.close()
                raise
        self._painters.append((process, ours))

    def _introduce(self, painter: tuple[subprocess.Popen[bytes], socket.socket], told: bytes) -> None:
        try:
            path = [entry for entry in sys.path if isinstance(entry, str)]
            painter[1].sendall(json.dumps(path).encode() + b"\n")
            _send(painter[1], told)
        except OSError:  # whoever asks it to paint will hear why
            pass
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
            Its error is a RuntimeError when the process could not, or was ended from outside.

        Raises
        ------
        RuntimeError
            After `close`.
        """
        return self._threads.submit(self._paint, camera, answer, state)

    def _paint(self, camera: int, answer: Answer, state: dict[str, Any]) -> Painted:
        told = pickle.dumps(
            (camera, state, answer.image.shape, answer.header, answer.camera, answer.tracks, answer.metric)
        )
        painter = self._idle.get()
        process, lead = painter
        heard = None
        try:
            _send(lead, told, np.ascontiguousarray(answer.image).data.cast("B"))
            heard = _receive(lead)
        except OSError:
            pass
        except BaseException:  # in the midst of something: it is of no use any more
            _hang_up(lead)
            raise
        finally:
            self._idle.put(painter)
        if heard is None:
            raise RuntimeError(f"a process that draws {_end_of(process)}; run again to go on")
        error, names, lengths, failed = pickle.loads(heard[0])
        if error:
            raise RuntimeError(f"a process that draws: {error}")
        messages, begin = [], 0
        for name, length in zip(names, lengths, strict=True):
            messages.append((name, heard[1][begin : begin + length]))
            begin += length
        return Painted(messages, failed)

    def close(self) -> None:
        """End the processes, also in the midst of an answer."""
        for process, lead in self._painters:
            _hang_up(lead)
            process.kill()  # it owns nothing
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process, lead in self._painters:
            lead.close()
            process.wait()


def _hang_up(lead: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        lead.shutdown(socket.SHUT_RDWR)


def _end_of(process: subprocess.Popen[bytes]) -> str:
    try:
        status = process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        return "does not answer"
    return f"was ended from outside (signal {-status}; memory?)" if status < 0 else f"ended with status {status}"


# ------------------------------------------------------------------------------------------------- in such a process


def main(lead: socket.socket) -> None:
    """What a painter does: draws whatever comes from a socket, until that closes."""
    import cv2

    from radan_ros.threads import limit_blas

    with lead, contextlib.suppress(OSError):  # the program has ended
        try:
            limit_blas()
            cv2.setNumThreads(1)  # there is a painter for each core
            told = _receive(lead)
            if told is None:
                return
            painter = _Painter(*pickle.loads(told[0]))
            while (told := _receive(lead)) is not None:
                names, parts, failed = painter.paint(told)
                _send(lead, pickle.dumps(("", names, [len(part) for part in parts], failed)), *parts)
        except OSError:
            raise
        except Exception as error:  # told to whoever asks next
            _send(lead, pickle.dumps((line(error), [], [], {})))
            while _receive(lead) is not None:
                pass


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
