"""A video for `radan-reconstruct`: its faces are followed; overlay, tables and, where asked for, files a frame."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from radan_ros.tables import TABLES, Table, row
from radan_ros.tools.ahead import WriteBehind, read_ahead
from radan_ros.tools.movies import Movie
from radan_ros.tools.results import OF_A_VIDEO, Results
from radan_ros.tools.sources import Clip, Webcam
from radan_ros.tracking import Tracker, TrackerSettings

# Frames that wait before and behind the work: enough to level out the detector's, few enough for their memory.
_AHEAD = 6
_DRAWERS = 2  # threads: to draw a frame takes longer than to follow its faces or to encode it

TimedFrame = tuple[int, float, NDArray[np.uint8]]


@dataclass(frozen=True)
class VideoOptions:
    """What of a video is taken, and how faces are followed.

    Attributes
    ----------
    start : int
        Leave out so many frames at the beginning.
    every : int
        Take every so manyth frame from there.
    frames : int, optional
        End after so many frames.
    tracking : TrackerSettings
    """

    start: int
    every: int
    frames: int | None
    tracking: TrackerSettings


@dataclass
class VideoCount:
    """Frames done, faces in them (one in each of ten frames counts ten), people, and poses that were not found.

    `missing` is what to say where the video ended before its time.
    """

    frames: int = 0
    faces: int = 0
    people: int = 0
    without_pose: int = 0
    missing: str | None = None


def reconstruct_video(
    source: Clip | Webcam,
    stem: str,
    wanted: Collection[str],
    results: Results,
    options: VideoOptions,
    bar: tqdm,
    check: Callable[[], None],
) -> VideoCount:
    """Follow the faces of a video and write what is wanted of them. `check` is asked at each frame whether to go on.

    Reading, following, drawing and writing go on at the same time. Of a clip, Ctrl-C leaves nothing but the files
    of frames; a webcam goes on until it comes, and what was taken is then whole.

    Raises
    ------
    OSError, ValueError, ImportError
        Say what cannot be read or written; overlay and tables are then not there.
    """
    count = VideoCount()
    with ExitStack() as stack:
        movie, tables = _open_outputs(stack, source, stem, wanted, results, options)
        drawers = stack.enter_context(ThreadPoolExecutor(_DRAWERS, thread_name_prefix="drawer"))
        behind = stack.enter_context(WriteBehind(_AHEAD))
        tracker = stack.enter_context(closing(Tracker(results.pipeline, options.tracking)))
        frames = stack.enter_context(closing(read_ahead(_chosen(source, options), _AHEAD)))
        of_frames = set(wanted) - {*OF_A_VIDEO}
        time = 0.0
        try:
            for number, time, image in frames:
                check()
                tracks = tracker(image, time)
                scene, reasons = results.scene(image, [t.face for t in tracks], [t.id for t in tracks])
                for table in tables:
                    for i, face, metric in zip(scene.ids, scene.faces, scene.metric, strict=True):
                        table.add(row(number, time, i, face, metric))
                if movie is not None:
                    behind(_show, movie, drawers.submit(scene.overlay), time)
                if (of_frames or results.uv) and scene.faces:
                    behind(results.write, f"{stem}_{number:06d}", scene, of_frames)
                count.frames += 1
                count.faces += len(scene.faces)
                count.people = max([count.people, *(i + 1 for i in scene.ids)])
                count.without_pose += len(reasons)
                bar.update()
        except KeyboardInterrupt:
            if isinstance(source, Clip):
                raise
            bar.write(f"{source.name}: ended after {count.frames} frames")
        if not count.frames:
            raise ValueError(f"{source.name}: there is no frame {options.start}")
        if isinstance(source, Clip) and count.frames != options.frames:
            count.missing = source.missing(time + (options.every - 1) / source.fps)
    return count


def _chosen(source: Clip | Webcam, options: VideoOptions) -> Iterator[TimedFrame]:
    numbered = ((i, time, frame) for i, (time, frame) in enumerate(source.timed()))
    return islice(islice(numbered, options.start, None, options.every), options.frames)


def _open_outputs(
    stack: ExitStack, source: Clip | Webcam, stem: str, wanted: Collection[str], results: Results, options: VideoOptions
) -> tuple[Movie | None, list[Table]]:
    movie = None
    if "overlay" in wanted:
        path = results.folder.file(f"{stem}_overlay.mp4")
        movie = stack.enter_context(Movie(path, source.size, source.fps / options.every))
    modes = results.pipeline.model.face_model.modes
    tables = [
        stack.enter_context(make(results.folder.file(f"{stem}.{kind}"), modes))
        for kind, make in TABLES.items()
        if kind in wanted
    ]
    return movie, tables


def _show(movie: Movie, drawn: Future[NDArray[np.uint8]], time: float) -> None:
    movie.add(drawn.result(), time)
