"""``radan-reconstruct``: pictures, folders, videos, a webcam in; meshes, landmarks, pictures, tables out. No ROS."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
from collections.abc import Collection, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from radan_ros import Pipeline, open_detector, open_model
from radan_ros.detectors.dlib_landmarks import DlibLandmarks
from radan_ros.errors import line
from radan_ros.paf import open_anchors
from radan_ros.pictures import PICTURE_SUFFIXES, pictures_in, unread_in
from radan_ros.rendering import Renderer
from radan_ros.smoothing import Smoothing
from radan_ros.tables import check_parquet
from radan_ros.threads import limit_blas
from radan_ros.tools.naming import distinct_names, results_among, unrolled
from radan_ros.tools.options import FACES_OF_A_VIDEO, PART_OF_A_PICTURE, parse
from radan_ros.tools.progress import progress_bar
from radan_ros.tools.results import ALL, OF_A_VIDEO, UNASKED, Folder, Results
from radan_ros.tools.signals import Signals
from radan_ros.tools.sources import Clip, Webcam, open_source
from radan_ros.tools.stills import ERRORS, Still, StillOptions, reconstruct_stills
from radan_ros.tools.telling import tell
from radan_ros.tools.videos import VideoOptions, reconstruct_video
from radan_ros.tracking import TrackerSettings


class UsageError(ValueError):
    """A command line that asks for nothing, or for what is not there to have."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Returns
    -------
    int
        The exit status: 0; 1 with a line for each input that failed; 2 for a wrong command line; 130 after Ctrl-C, 143
        after SIGTERM and 129 after SIGHUP.
    """
    options = parse(arguments)
    _silence_codecs()
    limit_blas()
    with Signals() as signals:
        try:
            return _Run(options, signals).all()
        except KeyboardInterrupt:
            return signals.status
        except (*ERRORS, ImportError) as error:
            if signals.last is not None and isinstance(error, ImportError):  # what was loading made that of it
                return signals.status
            _complain(line(error))
            return 2 if isinstance(error, UsageError) else 1


class _Run:
    """One call of the program. Raises what ERRORS and ImportError are for what stops all of it."""

    def __init__(self, options: argparse.Namespace, signals: Signals) -> None:
        self.options, self.signals = options, signals
        self.failed = False
        self.stills, self.videos, paths = self._inputs()
        if options.compat and self.videos:
            raise UsageError(f"{self.videos[0][0]}: --compat is for pictures: faces are followed by our conventions")
        self.of_stills = self.wanted(UNASKED) - {*OF_A_VIDEO}
        self.of_videos = self._wanted_of_videos() if self.videos else set()
        for inputs, kinds in ((self.stills, self.of_stills), (self.videos, self.of_videos)):
            if inputs and not kinds and not options.uv:
                raise UsageError(f"nothing is asked for of {inputs[0][0]} (see --only and the switches of results)")
        model = open_model(options.model, device=options.device)
        opening = partial(open_detector, options.detector, min_face=options.min_face, threshold=options.threshold)
        self.open_detector = partial(opening, smallest_part=PART_OF_A_PICTURE)
        landmarks = DlibLandmarks(options.dlib_landmark, compat=options.compat) if options.dlib_landmark else None
        needs_anchors = "paf" in self.of_stills | self.of_videos
        self.results = Results(
            Folder(options.out, paths),
            Pipeline(model, opening(), landmarks=landmarks, compat=options.compat),
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
            self.signals.listen()  # a signal has ended the webcam before, and that alone
            self._do_video(source, name)
            if self.signals.last not in (None, signal.SIGINT):
                raise KeyboardInterrupt
        return 1 if self.failed else 0

    def _do_stills(self) -> None:
        options = self.options
        how = StillOptions(self.of_stills, options.batch, options.bbox_init == "two", options.max_faces)
        outcomes = reconstruct_stills(self.stills, self.open_detector, self.results, how)
        with (
            progress_bar(total=len(self.stills), unit="picture", hidden=len(self.stills) < 2) as bar,
            closing(outcomes),
        ):
            for outcome in outcomes:
                self.signals.check()
                bar.update()
                for trouble in outcome.troubles:
                    self._fail(trouble)
                if outcome.faces:
                    faces, results = _counted(outcome.faces, "face"), options.out / outcome.still.name
                    self._tell(f"{outcome.still.path}: {faces} -> {results}_*")

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
            with progress_bar(total=total, unit="frame", desc=name) as bar:
                count = reconstruct_video(
                    source, name, self.of_videos, self.results, of_results, bar, self.signals.check
                )
        except ERRORS as error:
            text_of = line(error)
            self._fail(text_of if text in text_of else f"{text}: {text_of}")
            return
        frames = _counted(count.frames, "frame")
        self._tell(f"{text}: {frames}, {_counted(count.people, 'face')} -> {options.out / name}*")
        if not count.faces:
            self._fail(f"{text}: no face found in {frames}")
        if count.without_pose:
            faces = _counted(count.without_pose, "face")
            self._fail(f"{text}: {faces} in all frames were left out, for no pose fits them")
        if count.missing:
            self._fail(count.missing)

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
        pictures: dict[Path, Path] = {}  # by where they are, so that none is taken twice
        videos: dict[str, Path] = {}
        of_folders: set[Path] = set()
        for text in self.options.files:
            path = Path(text).expanduser()
            if not text:  # a variable of a script that is not set, and no wish for the current folder
                self._fail("an empty name among -f: no file or folder")
            elif path.is_dir():
                try:
                    found = {unrolled(file): file for file in pictures_in(path)}
                except (OSError, ValueError) as error:
                    self._fail(line(error))
                    continue
                unread = unread_in(path)
                if unread:
                    kinds = ", ".join(sorted({file.suffix.lower() for file in unread}))
                    count = _counted(len(unread), "picture")
                    self._fail(f"{path}: {count} left out, of formats that are not read here: {kinds}")
                of_folders |= found.keys() - pictures.keys()
                pictures.update((place, file) for place, file in found.items() if place not in pictures)
            elif text.isdigit() and not path.exists():
                videos[text] = Path(f"webcam{text}")
            elif "://" in text:
                self._fail(f"{text}: streams are not read here; to the node they can come as any camera's images")
            elif not path.exists():
                self._fail(f"{path}: no such file or folder (a number is a webcam)")
            elif path.is_fifo():
                self._fail(f"{path}: is a pipe, not a file")
            elif path.suffix.lower() in PICTURE_SUFFIXES:
                pictures.setdefault(unrolled(path), path)
                of_folders.discard(unrolled(path))
            elif unrolled(path) not in map(unrolled, videos.values()):
                videos[text] = path
        for path in self._left_out([*pictures, *videos.values()], of_folders):
            del pictures[path]
        paths = [*pictures.values(), *videos.values()]
        names = distinct_names(paths)
        stills = [Still(path, name) for path, name in zip(pictures.values(), names, strict=False)]
        of_videos = list(zip(videos, names[len(stills) :], strict=True))
        for still in stills:
            for text, name in of_videos:
                if re.fullmatch(re.escape(name) + r"_\d{6,}", still.name):
                    raise UsageError(f"{still.path}: is named as a frame of {text}: do the two in runs of their own")
        return stills, of_videos, paths

    def _left_out(self, paths: Sequence[Path], of_folders: Collection[Path]) -> list[Path]:
        """Those pictures of folders that an earlier run made, by their names; said in one line.

        Raises
        ------
        UsageError
            When this run would write over them, and was not told to: a user's own may be named like that.
        """
        made = {path: kind for path, kind in results_among(paths, self.options.out).items() if path in of_folders}
        if not made:
            return []
        what = f"{_counted(len(made), 'picture')} in {self.options.out} named as results"
        over = self.wanted(UNASKED) | ({"texture", "visible"} if self.options.uv else set())
        doomed = [path.name for path, kind in made.items() if kind in over]
        if doomed and not self.options.overwrite:
            raise UsageError(f"{what} ({doomed[0]}): --overwrite writes over them, or choose another --out")
        tqdm.write(f"left out: {what} of an earlier run")
        return [*made]

    def _tell(self, text: str) -> None:
        self.failed |= not tell("radan-reconstruct", text)

    def _fail(self, text: str) -> None:
        self.failed = True
        _complain(text)


def _silence_codecs() -> None:
    """OpenCV and the codecs in it report damaged files on standard error by themselves, in many lines of their own."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _complain(text: str) -> None:
    tqdm.write(f"radan-reconstruct: {text}", file=sys.stderr)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


if __name__ == "__main__":
    sys.exit(main())
