"""How long each stage takes, and how many times as long a plain implementation takes in the same run."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from radan_ros import Pipeline, boxes, open_detector
from radan_ros.astronaut import Astronaut
from radan_ros.benchmarks import plain
from radan_ros.benchmarks.answers import open_models
from radan_ros.benchmarks.timing import Range, interleaved
from radan_ros.detectors import Detector
from radan_ros.face import Detection, Face
from radan_ros.model import Model
from radan_ros.networks import PARAMETERS, Network, NetworkSpec, load_checkpoint, network_state
from radan_ros.networks.architecture import State, seeded_state
from radan_ros.networks.runtime import GRAPH_SUFFIXES, OpenVinoNetwork, TorchNetwork
from radan_ros.pictures import pictures_in, read_picture
from radan_ros.rendering import Renderer

BATCHES = (1, 4, 16, 64)
HEIGHTS = (120, 240, 480)  # of a face, in pixels
SIZE = (720, 1280)  # of the picture that faces are drawn into
SEEDED = (NetworkSpec("radan"), NetworkSpec("mobilenet_v1", 1.0))
_MOST_PICTURES = 8
_ROUNDS, _QUICK_ROUNDS = 7, 3
_SECONDS, _QUICK_SECONDS = 0.15, 0.04  # of a turn
_PAUSE = 0.1
_LONGEST_QUICK = 1.5  # seconds that one call of ours and of the plain one may take together in the quick mode


@dataclass(frozen=True)
class Row:
    """Times of one stage at one size, milliseconds.

    Attributes
    ----------
    stage, name, device : str
    size : float
        How many, or how large, in `unit`.
    unit : str
    ours : Range
    plain : Range or None
        Where there is no plain implementation (a network without torch): None.
    ratio : Range or None
        The plain implementation's time over ours, round by round.
    """

    stage: str
    name: str
    device: str
    size: float
    unit: str
    ours: Range
    plain: Range | None
    ratio: Range | None

    @property
    def label(self) -> str:
        """One line that tells the row."""
        return f"{self.stage}: {self.name}, {self.amount}, {self.device}"

    @property
    def amount(self) -> str:
        """The size and its unit."""
        return f"{self.size:g} {self.unit.removesuffix('s') if self.size == 1 else self.unit}"


@dataclass(frozen=True)
class _Job:
    stage: str
    name: str
    device: str
    size: float
    unit: str
    ours: Callable[[], object]
    plain: Callable[[], object] | None
    per: int = 1  # calls of the stage in one call of the job


def measure(
    folders: Sequence[Path] | None = None,
    *,
    data: Path | None = None,
    devices: Sequence[str] | None = None,
    threads: int = 2,
    quick: bool = False,
    progress: bool = False,
) -> tuple[list[Row], list[str]]:
    """Time all stages, ours and the plain implementation in turns.

    Parameters
    ----------
    folders : sequence of Path, optional
        Models; without them the built-in one. The first one's face model is reconstructed and drawn.
    data : Path, optional
        A folder of pictures, of which the first eight are used; without it scikit-image's astronaut.
    devices : sequence of str, optional
        'cpu', 'cuda', 'cuda:<i>'; without it the CPU, and CUDA where torch finds it.
    threads : int
        Of the networks on the CPU, ours and torch's.
    quick : bool
        Fewer rounds, and no batches that take long.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    rows : list of Row
    notes : list of str
        The machine, and what was left out and why.

    Raises
    ------
    ValueError, OSError, ImportError
        Say what is missing or wrong.
    """
    pictures = read_pictures(data)
    notes = [_machine(threads)]
    wanted = list(devices) if devices else ["cpu", *(["cuda"] if _has_cuda() else [])]
    has_torch = find_spec("torch") is not None
    if has_torch:
        import torch

        torch.set_num_threads(threads)
    else:
        notes.append("torch is not installed: networks have no plain implementation to compare with")
    detector = open_detector()
    rows: list[Row] = []
    bar = tqdm(unit="row", disable=not progress)
    for device in wanted:
        models = open_models(list(folders) if folders else [None], device, threads)
        model = next(iter(models.values()))
        found = {i: detector(picture) for i, picture in enumerate(pictures)}
        faces = _faces(model, pictures, found)
        for job in _jobs(models, model, pictures, found, faces, detector, device, threads, has_torch, notes):
            bar.set_description(f"{job.stage} {job.name} {job.size:g}")
            rows += _timed(job, quick, rows, notes)
            bar.update()
    bar.close()
    return rows, notes


def read_pictures(folder: Path | None) -> list[NDArray[np.uint8]]:
    """The pictures to time with: up to eight of a folder, or one frame of the astronaut's portrait; BGR."""
    if folder is None:
        return [Astronaut().frame(0)]
    return [read_picture(path) for path in pictures_in(folder)[:_MOST_PICTURES]]


def varied_crops(image: NDArray[np.uint8], square: NDArray[np.floating], count: int) -> NDArray[np.uint8]:
    """Crops (count, 120, 120, 3) around a face: shifted, sized, mirrored and shaded, the same ones each time."""
    random = np.random.default_rng(0)
    side = float(square[2] - square[0])
    crops = []
    for number in range(count):
        moved = square + side * random.uniform(-0.05, 0.05, 4)
        crop = boxes.crop(image, moved)[:, :: 1 - 2 * (number % 2)]
        crops.append(crop * random.uniform(0.5, 1))
    return np.ascontiguousarray(np.stack(crops), np.uint8)


def _faces(model: Model, pictures: Sequence[NDArray[np.uint8]], found: dict[int, list[Detection]]) -> list[list[Face]]:
    faces = Pipeline(model).many(pictures, [found[i] for i in range(len(pictures))])
    if not any(faces):
        raise ValueError("no face was found in any of the pictures (--data)")
    return faces


def _jobs(
    models: dict[str, Model],
    model: Model,
    pictures: Sequence[NDArray[np.uint8]],
    found: dict[int, list[Detection]],
    faces: list[list[Face]],
    detector: Detector,
    device: str,
    threads: int,
    has_torch: bool,
    notes: list[str],
) -> Iterator[_Job]:
    on_cpu = device == "cpu"
    plain_detector = plain.detector()
    count = len(pictures)
    one = next(f for of_picture in faces for f in of_picture)
    image = pictures[next(i for i, of_picture in enumerate(faces) if of_picture)]
    unit = f"picture of {image.shape[1]}x{image.shape[0]}" if count == 1 else "pictures"
    if on_cpu:
        yield _Job(
            "detector", detector.name, device, count, unit,
            partial(_each, detector, pictures), partial(_each, plain_detector, pictures), count,
        )  # fmt: skip
    plain_networks: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {}
    crops = varied_crops(image, one.roi, max(BATCHES))
    for name, ours, weights in _networks(models, device, threads, has_torch, notes):
        if weights is not None and has_torch:
            plain_networks[name] = plain.network(*weights, device)
        for batch in BATCHES:
            other = plain_networks.get(name)
            part = np.ascontiguousarray(crops[:batch])
            yield _Job(
                "network", name, device, batch, "crops",
                partial(ours, part), None if other is None else partial(other, part),
            )  # fmt: skip
    face_model = model.face_model
    reconstruct = plain.reconstruction(face_model)
    pipeline = Pipeline(model, detector)
    label = f"{face_model.name} ({len(face_model.mean)} vertices)"
    if on_cpu:
        for number in BATCHES:
            several = [one] * number
            yield _Job(
                "reconstruction", label, device, number, "faces",
                partial(pipeline.vertices, several),
                partial(reconstruct, [one.camera] * number, [one.coefficients] * number),
            )  # fmt: skip
    try:
        renderer = Renderer(face_model.triangles, face_model.codes, device)
    except (ImportError, RuntimeError) as error:
        notes.append(f"no rendering on {device}: {' '.join(str(error).split())}")
        return
    for height in HEIGHTS:
        mesh = [plain.placed(face_model.mean, height, SIZE[1] / 2, 0.3, SIZE)]
        yield _Job(
            "rendering", label, device, height, "px high",
            partial(renderer.render, mesh, SIZE),
            partial(plain.depth_and_codes, mesh, face_model.triangles, face_model.codes, SIZE),
        )  # fmt: skip
    other = plain_networks.get(next(iter(models)))
    for detects in (True, False):
        given = None if detects else found
        mine = partial(_whole, pipeline, renderer, pictures, given)
        theirs = None
        if other is not None:
            theirs = partial(_whole_plain, plain_detector, other, model, reconstruct, pictures, given)
        name = "with the detector" if detects else "boxes known"
        yield _Job("pipeline", f"{next(iter(models))}, {name}", device, count, unit, mine, theirs, count)


def _networks(
    models: dict[str, Model], device: str, threads: int, has_torch: bool, notes: list[str]
) -> Iterator[tuple[str, Network, tuple[NetworkSpec, State] | None]]:
    """Name, ours, and weights for the plain one: of the models, and of the other architectures with seeded weights."""
    for name, model in models.items():
        path = model.network_file
        weights = None
        if path is not None and path.suffix.lower() not in GRAPH_SUFFIXES:
            weights = network_state(load_checkpoint(path))
        else:
            notes.append(f"{name} is an exported graph: no plain network to compare with")
        yield name, model.network, weights
    for spec in SEEDED:
        state = seeded_state(spec)
        name = f"{spec} (seeded)"
        if device == "cpu":
            from radan_ros.networks.openvino_graphs import build

            yield name, OpenVinoNetwork(build(spec, state), name, threads), (spec, state)
        elif has_torch:
            yield name, TorchNetwork(spec, state, device), (spec, state)


def _timed(job: _Job, quick: bool, rows: Sequence[Row], notes: list[str]) -> list[Row]:
    """The row of a job; none where it would take too long for the quick mode, by what the size before took."""
    before = next((r for r in reversed(rows) if (r.stage, r.name, r.device) == (job.stage, job.name, job.device)), None)
    if quick and before is not None and job.unit == "crops":
        expected = (before.ours.median + (before.plain.median if before.plain else 0)) * job.size / before.size / 1e3
        if expected > _LONGEST_QUICK:
            notes.append(f"left out in the quick mode: {job.stage} {job.name}, {job.size:g} {job.unit}")
            return []
    jobs = {"ours": job.ours} | ({} if job.plain is None else {"plain": job.plain})
    times = interleaved(
        jobs,
        seconds=_QUICK_SECONDS if quick else _SECONDS,
        rounds=_QUICK_ROUNDS if quick else _ROUNDS,
        pause=_PAUSE,
    )
    ours = times["ours"] / job.per
    other = times["plain"] / job.per if "plain" in times else None
    return [
        Row(
            job.stage,
            job.name,
            job.device,
            job.size,
            job.unit,
            Range.of(ours),
            None if other is None else Range.of(other),
            None if other is None else Range.of(other / ours),
        )  # fmt: skip
    ]


def _each(call: Callable[[NDArray[np.uint8]], object], pictures: Sequence[NDArray[np.uint8]]) -> None:
    for picture in pictures:
        call(picture)


def _whole(
    pipeline: Pipeline,
    renderer: Renderer,
    pictures: Sequence[NDArray[np.uint8]],
    found: dict[int, list[Detection]] | None,
) -> None:
    """Ours from pictures to depth and PNCC pictures."""
    for i, picture in enumerate(pictures):
        faces = pipeline.many([picture], [pipeline.detections(picture) if found is None else found[i]])[0]
        renderer.render(pipeline.vertices(faces), picture.shape[:2])


def _whole_plain(
    detect: Callable[[NDArray[np.uint8]], list[NDArray[np.float64]]],
    network: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    model: Model,
    reconstruct: plain.Reconstruct,
    pictures: Sequence[NDArray[np.uint8]],
    found: dict[int, list[Detection]] | None,
) -> None:
    """The plain stages in a row."""
    face_model = model.face_model
    for i, picture in enumerate(pictures):
        face_boxes = detect(picture) if found is None else [d.box for d in found[i]]
        if not face_boxes:
            continue
        squares = [boxes.square_from_detection(box) for box in face_boxes]
        crops = np.stack([boxes.crop_reference(picture, square) for square in squares])
        answers = model.whitening.undo(network(crops)[:, :PARAMETERS])
        cameras = [plain.place(answer, square) for answer, square in zip(answers, squares, strict=True)]
        meshes = reconstruct(cameras, list(answers[:, 12:]))
        plain.depth_and_codes(meshes, face_model.triangles, face_model.codes, picture.shape[:2])


def speed_text(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The rows as a table in Markdown, and the notes."""
    lines = [
        "| stage | what | size | device | ms: median (least to most) | plain, ms | times as long as ours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ours = f"{row.ours.median:.2f} ({row.ours.least:.2f} to {row.ours.most:.2f})"
        other = ratio = "-"
        if row.plain is not None and row.ratio is not None:
            other = f"{row.plain.median:.2f}"
            ratio = f"{row.ratio.median:.1f} ({row.ratio.least:.1f} to {row.ratio.most:.1f})"
        lines.append(f"| {row.stage} | {row.name} | {row.amount} | {row.device} | {ours} | {other} | {ratio} |")
    lines += [
        "",
        "detector and pipeline: ms a picture; else ms a call. Plain: dlib on the picture enlarged to twice its size; "
        "eager torch, float32, a crop a call; NumPy, a face after another; a Numba loop over triangles, depth and "
        "colour in two passes. The detectors do not do the same work: enlarged, dlib finds smaller faces than ours is "
        "asked for; so it is in the pipeline with the detector. Detector and reconstruction run on the CPU alone.",
        *notes,
    ]
    return "\n".join(lines)


def speed_json(rows: Sequence[Row], notes: Sequence[str]) -> dict[str, Any]:
    """The same for machines; times in milliseconds."""

    def as_dict(row: Row) -> dict[str, Any]:
        return {k: vars(v) if isinstance(v, Range) else v for k, v in vars(row).items()}

    return {"rows": [as_dict(row) for row in rows], "notes": list(notes)}


def _machine(threads: int) -> str:
    from openvino import Core

    name = str(Core().get_property("CPU", "FULL_DEVICE_NAME")) or platform.processor()
    blas = os.environ.get("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "as many as it likes"))
    busy = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{busy}; networks on {threads} threads, NumPy on {blas}"


def _has_cuda() -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())
