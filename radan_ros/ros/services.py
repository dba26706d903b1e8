"""The node's services: reset, pause, save_meshes. They answer in every state, with a reason where they cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from radan_ros.export import FORMATS, for_viewers, vertex_colours, write_mesh
from radan_ros.ros.answer import Answer
from radan_ros.ros.engine import refusal
from radan_ros.srv import SaveMeshes


class Actions(Protocol):
    """What the services ask of the node. RuntimeError says why it cannot be done now."""

    def reset(self) -> None:
        """Forget all faces."""
        ...

    def pause(self, paused: bool) -> None:
        """Leave images out, or take them again."""
        ...

    def newest_answer(self) -> Answer | None:
        """The answer to the last image."""
        ...


class Services:
    """Offers the services on a node."""

    def __init__(self, node: Node, actions: Actions) -> None:
        self._actions = actions
        logger = node.get_logger()
        node.create_service(Trigger, "~/reset", _answered(self._reset, logger))
        node.create_service(SetBool, "~/pause", _answered(self._pause, logger))
        node.create_service(SaveMeshes, "~/save_meshes", _answered(self._save_meshes, logger))

    def _reset(self, _request: Trigger.Request, _response: Trigger.Response) -> str:
        self._actions.reset()
        return "all faces are forgotten"

    def _pause(self, request: SetBool.Request, _response: SetBool.Response) -> str:
        self._actions.pause(request.data)
        return "paused" if request.data else "running"

    def _save_meshes(self, request: SaveMeshes.Request, response: SaveMeshes.Response) -> str:
        answer = self._actions.newest_answer()
        if answer is None:
            raise RuntimeError("no image has been answered yet, or what was seen is forgotten")
        files = save_meshes(answer, request.folder, request.format)
        response.files = [str(path) for path in files]
        return f"{len(files)} written to {files[0].parent}"


def save_meshes(answer: Answer, folder: str, file_format: str) -> list[Path]:
    """Write the meshes of an answer, a file a face: ``<folder>/face_<id>_<stamp in ns>.<format>``.

    Parameters
    ----------
    answer : Answer
    folder : str
        Made if it is not there; empty: the current directory.
    file_format : str
        ``ply`` or ``obj``; empty: ``ply``.

    Returns
    -------
    list of Path
        Absolute.

    Raises
    ------
    ValueError
        For an unknown format, or when the answer has no face.
    OSError
        When a file cannot be written; names it.
    """
    name = file_format.lower() or "ply"
    if name not in FORMATS:
        raise ValueError(f"format '{file_format}' is unknown (known: {', '.join(FORMATS)})")
    stamp = answer.header.stamp
    if not answer.tracks:
        raise ValueError(f"there is no face in the newest image (stamp {stamp.sec}.{stamp.nanosec:09d})")
    target = Path(folder).expanduser().absolute()
    target.mkdir(parents=True, exist_ok=True)
    nanoseconds = stamp.sec * 10**9 + stamp.nanosec
    return [
        write_mesh(
            target / f"face_{track.id}_{nanoseconds}.{name}",
            for_viewers(vertices),
            answer.face_model.triangles,
            vertex_colours(answer.image, placed[:, :2]),
        )
        for track, vertices, placed in zip(answer.tracks, answer.vertices, answer.vertices_in_image, strict=True)
    ]


def _answered(action: Callable[[Any, Any], str], logger: Any) -> Callable[[Any, Any], Any]:
    """A service callback with success and message as the action returns or raises them."""

    def callback(request: Any, response: Any) -> Any:
        try:
            response.message = action(request, response)
            response.success = True
        except Exception as e:  # what leaves a callback ends the program
            response.message = refusal(e, logger)
        return response

    return callback
