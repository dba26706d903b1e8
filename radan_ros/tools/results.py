"""What `radan-reconstruct` writes of an image and its faces, file by file, under the names that 3DDFA's users know."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radan_ros import boxes, drawing, export
from radan_ros.camera import CameraModel
from radan_ros.face import Face
from radan_ros.paf import Anchors, paf_crop
from radan_ros.pictures import grey_depth, millimetres, write_picture
from radan_ros.pipeline import Pipeline
from radan_ros.rendering import Renderer
from radan_ros.rendering.compat import reference_depth_and_pncc
from radan_ros.scene import Scene, fitted
from radan_ros.texture import mirror_uv, sample_texture, unwrap

MESHES = ("ply", "obj", "glb")
OF_A_FACE = (*MESHES, "txt", "mat", "roibox", "paf", "crop")
OF_A_PICTURE = ("pose", "depth", "depth-mm", "pncc", "landmarks")
OF_A_VIDEO = ("overlay", "csv", "parquet")
ALL = (*OF_A_FACE, *OF_A_PICTURE, *OF_A_VIDEO)
# Sides of a texture, pixels: with --uv, and of a glTF without it.
_TEXTURE, _SMALL_TEXTURE = 1024, 512
# What 3DDFA's program writes unasked, and glTF, which is what opens everywhere today.
UNASKED = frozenset(("ply", "obj", "glb", "txt", "pose", "depth", "pncc", "landmarks"))


class Folder:
    """Where results go. No input is written over.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    inputs : iterable of Path
    """

    def __init__(self, path: Path, inputs: Iterable[Path] = ()) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._inputs = {file.resolve() for file in inputs}

    def file(self, name: str) -> Path:
        """The path for a result; ValueError when it is an input of this run."""
        path = self.path / name
        if path.resolve() in self._inputs:
            raise ValueError(f"{path}: is one of the inputs, choose another --out")
        return path


@dataclass(frozen=True)
class Results:
    """Writes what is wanted of an image and its faces.

    Attributes
    ----------
    folder : Folder
    pipeline : Pipeline
        That found the faces; with ``compat``, numbers and pictures are as 3DDFA's code has them of the same boxes,
        but for what it does not make itself: see ``docs/conventions.md``.
    renderer : Renderer
        Of the face model.
    field_of_view : float
        Assumed of all images, over their width, radians.
    uv : bool
        Whether meshes get a texture.
    anchors : Anchors, optional
        Needed for ``paf``.
    paf_size : int
        Side of its patches.
    """

    folder: Folder
    pipeline: Pipeline
    renderer: Renderer
    field_of_view: float = math.radians(60)
    uv: bool = False
    anchors: Anchors | None = None
    paf_size: int = 3
    _cameras: dict[tuple[int, int], CameraModel] = field(default_factory=dict)

    def camera(self, size: tuple[int, int]) -> CameraModel:
        """The assumed camera of images of this height and width."""
        if size not in self._cameras:
            self._cameras[size] = CameraModel.from_field_of_view(size, self.field_of_view)
        return self._cameras[size]

    def scene(
        self, image: NDArray[np.uint8], faces: Sequence[Face], ids: Sequence[int] | None = None
    ) -> tuple[Scene, list[str]]:
        """The image and those of its faces that have a pose, and why the others have none; by number, or as `ids`."""
        face_model, camera = self.pipeline.model.face_model, self.camera((image.shape[0], image.shape[1]))
        kept, metric, reasons = fitted(faces, face_model, camera)
        numbers = range(len(faces)) if ids is None else ids
        chosen = [faces[i] for i in kept]
        scene = Scene(image, camera, face_model, chosen, metric, self.renderer, [numbers[i] for i in kept])
        return scene, reasons

    def write(self, stem: str, scene: Scene, wanted: Iterable[str]) -> None:
        """Write files ``<stem>_<i>.<…>`` and ``<stem>_<…>`` of the kinds that are wanted.

        Raises
        ------
        OSError, ValueError
            Name the file that cannot be written; those after it are not written either.
        """
        kinds = set(wanted)
        for i in range(len(scene.faces)) if kinds & {*OF_A_FACE} or self.uv else ():
            self._write_face(f"{stem}_{scene.ids[i]}", scene, i, kinds)
        for name, picture in self._pictures(scene, kinds).items():
            self._write(write_picture, f"{stem}_{name}", picture)

    def _write_face(self, stem: str, scene: Scene, i: int, kinds: set[str]) -> None:
        face, compat = scene.faces[i], self.pipeline.compat
        placed = self.pipeline.vertices([face])[0] if "mat" in kinds or compat else np.zeros((0, 3), np.float32)
        self._write_meshes(stem, scene, i, kinds, placed)
        if "txt" in kinds:
            self._write(export.write_landmarks, f"{stem}.txt", face.landmarks)
        if "mat" in kinds:
            self._write(export.write_vertices, f"{stem}.mat", placed)
        if "roibox" in kinds:
            self._write(export.write_roibox, f"{stem}.roibox", face.roi)
        if kinds & {"paf", "crop"}:
            crop = (boxes.crop_reference if compat else boxes.crop)(scene.image, face.roi)
            if "crop" in kinds:
                self._write(write_picture, f"{stem}_crop.jpg", crop)
            if "paf" in kinds and self.anchors is not None:
                features = paf_crop(crop, face.parameters, self.anchors, self.paf_size, compat=compat)
                self._write(write_picture, f"{stem}_paf.jpg", features)

    def _write_meshes(self, stem: str, scene: Scene, i: int, kinds: set[str], placed: NDArray[np.float32]) -> None:
        triangles = scene.face_model.triangles
        wanted = [kind for kind in MESHES if kind in kinds]
        if self.pipeline.compat:
            for kind in [kind for kind in wanted if kind != "glb"]:  # which 3DDFA's code does not write
                self._write(export.write_reference_mesh, f"{stem}.{kind}", placed, triangles, scene.image)
            if "glb" not in wanted and not self.uv:
                return
            wanted = [kind for kind in wanted if kind == "glb"]
        uv = texture = colours = None
        if self.uv or "glb" in wanted:
            uv, mirror = unwrap(scene.face_model), mirror_uv(scene.face_model)
            seen = sample_texture(
                scene.image,
                scene.vertices_in_image[i],
                triangles,
                uv,
                size=_TEXTURE if self.uv else _SMALL_TEXTURE,
                mirror=mirror,
                depth=scene.rendering.depth,
            )
            texture = seen.picture
        if self.uv and texture is not None:
            self._write(write_picture, f"{stem}_visible.png", seen.visible.astype(np.uint8) * 255)
            texture_file = self.folder.file(f"{stem}_texture.png")
            if "obj" not in wanted:  # which brings it along
                write_picture(texture_file, texture)
        if set(wanted) - {"glb"}:
            colours = export.vertex_colours(scene.image, scene.vertices_in_image[i, :, :2])
        for kind in wanted:
            # Viewers of glTF show a texture; the colours of vertices many of them leave out.
            textured = self.uv or kind == "glb"
            upright = export.for_viewers(scene.vertices[i])
            path = self.folder.file(f"{stem}.{kind}")
            export.write_mesh(
                path, upright, triangles, colours, uv=uv if textured else None, texture=texture if textured else None
            )

    def _pictures(self, scene: Scene, kinds: set[str]) -> dict[str, NDArray[np.uint8] | NDArray[np.uint16]]:
        """The pictures that are wanted, by the end of their file names."""
        made: dict[str, NDArray[np.uint8] | NDArray[np.uint16]] = {}
        compat = self.pipeline.compat
        if "landmarks" in kinds:
            made["landmarks.jpg"] = scene.landmark_picture()
        if "pose" in kinds:
            made["pose.jpg"] = _reference_pose_picture(scene) if compat else scene.pose_picture()
        if "depth-mm" in kinds:
            made["depth_mm.png"] = millimetres(scene.rendering.depth)
        if kinds & {"depth", "pncc"}:
            grey, colour = self._depth_and_pncc(scene)
            if "depth" in kinds:
                made["depth.png"] = grey
            if "pncc" in kinds:
                made["pncc.png"] = np.ascontiguousarray(colour[..., ::-1])
        return made

    def _depth_and_pncc(self, scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if not self.pipeline.compat:
            return grey_depth(scene.rendering.depth), scene.rendering.colour
        face_model = scene.face_model
        towards = list(self.pipeline.vertices(scene.faces) * np.array([1, 1, -1], np.float32))
        depth, colour = reference_depth_and_pncc(towards, face_model.triangles, face_model.codes, scene.size)
        return np.rint(depth).astype(np.uint8), colour  # as OpenCV writes its floats

    def _write(self, writer: Callable[..., object], name: str, *content: NDArray[np.generic]) -> None:
        writer(self.folder.file(name), *content)


def _reference_pose_picture(scene: Scene) -> NDArray[np.uint8]:
    out = scene.image
    for face in scene.faces:
        out = drawing.draw_reference_pose_box(out, face.parameters[:12].reshape(3, 4), face.landmarks)
    return out
