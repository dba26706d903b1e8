"""``radan-reconstruct``: pictures, folders, videos, a webcam in; meshes, landmarks, pictures, tables out. No ROS."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from radan_ros import Pipeline, open_detector, open_model
from radan_ros.detectors.dlib_landmarks import DlibLandmarks
from radan_ros.paf import open_anchors
from radan_ros.rendering import Renderer
from radan_ros.smoothing import Smoothing
from radan_ros.tables import check_parquet
from radan_ros.threads import limit_blas
from radan_ros.tools.naming import distinct_names, without_results
from radan_ros.tools.options import FACES_OF_A_VIDEO, parse
from radan_ros.tools.results import ALL, OF_A_VIDEO, UNASKED, Folder, Results, one_line
from radan_ros.tools.sources import PICTURE_SUFFIXES, Clip, Webcam, open_source, pictures_in
from radan_ros.tools.stills import ERRORS, Still, StillOptions, reconstruct_stills
from radan_ros.tools.videos import VideoOptions, reconstruct_video
from radan_ros.tracking import TrackerSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit status: 0, 1 with a line for each input that failed, 130 after Ctrl-C."""
    options = parse(arguments)
    _silence_codecs()
    limit_blas()
    try:
        return _Run(options).all()
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, ImportError) as error:
        _complain(one_line(error))
        return 1


class _Run:
    """One call of the program. Raises OSError, ValueError or ImportError for what stops all of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.failed = False
        self.stills, self.videos, paths = self._inputs()
        model = open_model(options.model, device=options.device)
        self.open_detector = partial(
            open_detector, options.detector, min_face=options.min_face, threshold=options.threshold
        )
        landmarks = DlibLandmarks(options.dlib_landmark) if options.dlib_landmark else None
        needs_anchors = "paf" in self.wanted(UNASKED)
        self.of_videos = self._wanted_of_videos() if self.videos else set()
        self.results = Results(
            Folder(options.out, paths),
            Pipeline(model, self.open_detector(), landmarks=landmarks, compat=options.compat),
            # Rendering is cheap beside reading and writing files: the CPU will do.
            Renderer(model.face_model.triangles, model.face_model.codes),
            field_of_view=math.radians(options.field_of_view),
            uv=options.uv,
            anchors=open_anchors(model.face_model, options.model) if needs_anchors else None,
            paf_size=options.paf_size,
        )

    def wanted(self, unasked: Collection[str]) -> set[str]:
        """The kinds of results, from what comes unasked, --only and the switches."""
        kinds = set(unasked if self.options.only is None else self.options.only)
        for kind in ALL:
            switch = getattr(self.options, kind.replace("-", "_"))
            if switch is not None:
                (kinds.add if switch else kinds.discard)(kind)
        return kinds

    def all(self) -> int:
        """Do all inputs; returns the exit status."""
        self._do_stills()
        for source, name in self.videos:
            self._do_video(source, name)
        return 1 if self.failed else 0

    def _do_stills(self) -> None:
        options = self.options
        how = StillOptions(
            self.wanted(UNASKED) - {*OF_A_VIDEO}, options.batch, options.bbox_init == "two", options.max_faces
        )
        hidden = len(self.stills) < 2 or not sys.stderr.isatty()
        outcomes = reconstruct_stills(self.stills, self.open_detector, self.results, how)
        with tqdm(total=len(self.stills), unit="picture", disable=hidden) as bar, closing(outcomes):
            for outcome in outcomes:
                bar.update()
                for trouble in outcome.troubles:
                    self._fail(trouble)
                if outcome.faces:
                    bar.write(f"{outcome.still.path}: {_faces(outcome.faces)} -> {options.out / outcome.still.name}_*")

    def _do_video(self, text: str, name: str) -> None:
        options = self.options
        settings = TrackerSettings(
            max_faces=options.max_faces or FACES_OF_A_VIDEO,
            confirm_images=1,
            deterministic=True,
            smoothing=Smoothing() if options.smooth else None,
        )
        try:
            source = open_source(text)
            assert isinstance(source, (Clip, Webcam))
            of_results = VideoOptions(options.start, options.every, options.frames, settings)
            total = None if source.count is None else max(0, -(-(source.count - options.start) // options.every))
            total = options.frames if total is None else min(total, options.frames or total)
            with tqdm(total=total, unit="frame", desc=name, disable=not sys.stderr.isatty()) as bar:
                count = reconstruct_video(source, name, self.of_videos, self.results, of_results, bar)
        except ERRORS as error:
            text_of = one_line(error)
            self._fail(text_of if text in text_of else f"{text}: {text_of}")
            return
        print(f"{text}: {count.frames} frames, {_faces(count.people)} -> {options.out / name}*")
        if not count.faces:
            self._fail(f"{text}: no face found in {count.frames} frames")
        if count.without_pose:
            self._fail(f"{text}: {count.without_pose} faces in all frames were left out, for no pose fits them")

    def _wanted_of_videos(self) -> set[str]:
        """As `wanted`; without Parquet where it cannot be written and was not asked for."""
        kinds = self.wanted(OF_A_VIDEO)
        try:
            if "parquet" in kinds:
                check_parquet()
        except ImportError:
            if self.options.parquet or self.options.only:
                raise
            kinds.discard("parquet")
        return kinds

    def _inputs(self) -> tuple[list[Still], list[tuple[str, str]], list[Path]]:
        """Pictures, videos with names for their results, and all files; what is not there is complained of."""
        pictures: dict[Path, None] = {}
        videos: dict[str, Path] = {}
        for text in self.options.files:
            path = Path(text).expanduser()
            if path.is_dir():
                try:
                    pictures.update(dict.fromkeys(without_results(pictures_in(path))))
                except (OSError, ValueError) as error:
                    self._fail(one_line(error))
            elif text.isdigit() and not path.exists():
                videos[text] = Path(f"webcam{text}")
            elif not path.exists():
                self._fail(f"{path}: no such file or folder (a number is a webcam)")
            elif path.suffix.lower() in PICTURE_SUFFIXES:
                pictures[path] = None
            else:
                videos[text] = path
        paths = [*pictures, *videos.values()]
        names = distinct_names(paths)
        stills = [Still(path, name) for path, name in zip(pictures, names, strict=False)]
        return stills, list(zip(videos, names[len(stills) :], strict=True)), paths

    def _fail(self, text: str) -> None:
        self.failed = True
        _complain(text)


def _silence_codecs() -> None:
    """OpenCV and the codecs in it report damaged files on standard error by themselves, in many lines of their own."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _complain(text: str) -> None:
    tqdm.write(f"radan-reconstruct: {text}", file=sys.stderr)


def _faces(count: int) -> str:
    return f"{count} face" if count == 1 else f"{count} faces"


if __name__ == "__main__":
    sys.exit(main())
