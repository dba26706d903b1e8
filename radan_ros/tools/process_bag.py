"""``radan-process-bag BAG... --out DIR``: bags in, the same bags with the node's topics out. No running ROS.

Each image is answered as the node answers it with `deterministic_ids`: by the same code, none dropped, stamped with the
image's header, and in the bag at the time of the image. The same bag gives the same bytes in each run, and after an
interruption (see `radan_ros.tools.segments`) the same as without it. A CameraInfo holds from its place in the bag on,
as for the node; but images before the first usable one are answered with that one, where the node would guess.

Exit status: 0 when everything was answered; 1 when a bag or an image was not, a bag is damaged (what could be read is
then in the output, and a line on stderr says what could not), or what it needs cannot be opened; 2 for a command line
that cannot be; 130
after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import multiprocessing
import os
import socket
import sqlite3
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from radan_ros.errors import line
from radan_ros.tools.bags import Bag, bag_name, is_bag
from radan_ros.tools.naming import distinct_names
from radan_ros.tools.progress import progress_bar
from radan_ros.tools.segments import (
    COMPRESSIONS,
    PROGRESS,
    STORAGES,
    BusyError,
    ForeignError,
    OtherJobError,
    SegmentedBag,
    discard,
    fingerprint,
    finished,
    partial_of,
)
from radan_ros.tools.signals import Signals
from radan_ros.tools.sources import SourceError
from radan_ros.workers import deaf_to_ctrl_c, end_with_parent

if TYPE_CHECKING:
    from radan_ros.ros.answer import Answer
    from radan_ros.ros.engine import Parts
    from radan_ros.ros.offline import Camera, Item, Message, Offline, Plan, Publication
    from radan_ros.ros.painters import Painters
    from radan_ros.ros.parameters import Settings

VIEWS = ("meshes", "depth", "pncc", "points", "markers", "overlay", "humans")
ALL = "all"
SEGMENT = 1800  # images: a minute of a camera, and what an interruption can cost
TICK = 0.5  # seconds between signs of life
AHEAD, BEHIND = 4, 8  # messages and answers that wait to be published, and to be written
HELD = 1 << 26  # bytes of images that are being drawn, and of what is to be written, but for one that is larger
LOT = 1 << 20  # bytes that are written at a time
FORMAT = 4  # of what is written; another one is another job
OWN = {"model", "device", "threads"}  # parameters that change nothing in the bag, or of which others tell

Tick = Callable[[int, int, int], None]
"""Told of progress: messages read, messages in all, images answered by this run."""


@dataclass(frozen=True)
class Job:
    """A bag to process. Goes to other processes, and machines.

    Attributes
    ----------
    bag, target : str
        Paths.
    parameters : dict
        The node's, by name.
    topics : tuple of str
        Of images; none for those of the cameras.
    publish : tuple of str
        Of ``faces``, ``tf`` and `VIEWS`.
    name, namespace : str
        Of the node that the topics look as if they came from.
    only_ours : bool
        Leave the bag's own messages out.
    storage, compression : str
    threads : int
        Threads and processes that work at the same time; 1: all in one thread.
    segment : int
        Images after which a segment ends.
    overwrite : bool
        Begin anew.
    """

    bag: str
    target: str
    parameters: dict[str, Any] = field(default_factory=dict)
    topics: tuple[str, ...] = ()
    publish: tuple[str, ...] = ("faces", "tf")
    name: str = "radan"
    namespace: str = "/"
    only_ours: bool = False
    storage: str = "mcap"
    compression: str = "zstd"
    threads: int = 2
    segment: int = SEGMENT
    overwrite: bool = False


@dataclass(frozen=True)
class Result:
    """What became of a bag.

    Attributes
    ----------
    images, answered, faces : int
        Images in the bag's topics, of these answered, and faces in them.
    seconds : float
        From the bag's first message to its last.
    took : float
        Seconds that the work took, this time.
    begun : int
        Images that an earlier run had answered.
    troubles : tuple of str
        What was lost, or could not be answered: the exit status is then 1.
    notes : tuple of str
        What else is worth telling.
    """

    images: int = 0
    answered: int = 0
    faces: int = 0
    seconds: float = 0.0
    took: float = 0.0
    begun: int = 0
    troubles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------------------- one bag


def process(job: Job, tick: Tick | None = None) -> Result:
    """Process a bag: what became of it. Whatever goes wrong with the bag is among its troubles.

    Raises
    ------
    KeyboardInterrupt
        The finished segments stay.
    """
    try:
        return _process(job, tick or (lambda *_: None))
    except SourceError as error:
        return Result(troubles=(str(error),))
    except OtherJobError as error:
        return Result(troubles=(f"{job.target} {error}; --overwrite makes it anew",))
    except (BusyError, ForeignError) as error:
        return Result(troubles=(f"{job.target} {error}",))
    except (OSError, sqlite3.Error) as error:
        return Result(troubles=(f"{job.target}: {line(error)}; run again to go on",))
    except (ValueError, ImportError, RuntimeError, MemoryError) as error:
        return Result(troubles=(f"{job.bag}: {line(error)}",))
    except Exception as error:  # of a damaged bag a library may make anything, and the other bags are to go on
        return Result(troubles=(f"{job.bag}: {type(error).__name__}: {line(error)}",))


def _process(job: Job, tick: Tick) -> Result:
    from radan_ros.ros.bag_node import Log
    from radan_ros.ros.offline import Offline

    bag, log = Bag(job.bag, salvage=True), Log()
    plan = _plan(job, bag, log)
    parts = _parts(replace(plan.settings, publish=()))
    target, started = Path(job.target), time.monotonic()
    described = _described(job, bag, plan, parts)
    before = None if job.overwrite else finished(target, described)
    if before is not None:
        return replace(_result(before), notes=(f"{target} was processed before",))
    work = Offline(bag, plan, parts, log)
    if job.overwrite:
        discard(target)  # now that nothing is wrong with the input
    out = SegmentedBag(target, described, storage=job.storage, compression=job.compression, threads=job.threads // 2)
    try:
        out.declare(work.topics)
        begun = None
        if out.summary is None:
            begun = _run(work, out, job.threads, tick)
        result = _result(out.summary or {})
        out.finish()
    finally:
        out.close()
    begun = result.images if begun is None else begun
    return replace(result, took=time.monotonic() - started, begun=begun, notes=tuple(log.notes))


def _result(summary: dict[str, Any]) -> Result:
    """What was counted, from a bag's metadata."""
    return Result(**{**summary, "troubles": tuple(summary["troubles"])})


def _summary_of(work: Offline) -> dict[str, Any]:
    """What was counted, as fields of a `Result`."""
    name = work.bag.name
    counts = [camera.counts for camera in work.cameras]
    bad = sum(count["bad"] for count in counts)
    # Sorted: they come from several threads.
    troubles = [f"{name}: {text}" for text in (*work.bag.losses, *sorted(work.log.errors))]
    if bad:
        troubles.append(f"{name}: {bad} images could not be answered ({work.reasons()})")
    without_pose = sum(count["failed_fits"] for count in counts)
    if without_pose:
        faces = f"{without_pose} face{'' if without_pose == 1 else 's'}"
        troubles.append(f"{name}: {faces} in all images were left out, for no pose fits them")
    return {
        "images": sum(count["images"] for count in counts),
        "answered": sum(count["answered"] for count in counts),
        "faces": sum(count["faces"] for count in counts),
        "seconds": work.bag.seconds,
        "troubles": troubles,
    }


def _run(work: Offline, out: SegmentedBag, threads: int, tick: Tick) -> int:
    """Read, answer and write; returns how many images were answered before."""
    from radan_ros.tools.ahead import WriteBehind, read_ahead

    first = []
    if out.state is None:
        first = work.announce()
    else:
        try:
            work.restore(out.state)
        except Exception as error:  # made by another version of this package
            raise OtherJobError(f"cannot be gone on with ({line(error)})") from None
    begun = work.images
    with contextlib.ExitStack() as stack:
        painters = work.painters(threads)
        if painters is not None:
            stack.callback(painters.close)
        items: Iterator[Item]
        store: Callable[..., Any] = _at_once
        if threads > 1:
            decoders = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="decoder"))
            items = stack.enter_context(contextlib.closing(read_ahead(work.items(decoders), AHEAD, _bytes_of)))
            # In its thread it ends, too: a database belongs to the thread that opened it.
            store = stack.enter_context(WriteBehind(BEHIND, HELD, out.abandon))
        else:
            items = work.items()
        line_up = _LineUp(work, out, store, painters)
        for message in first:
            line_up.add(message)
        last = 0.0
        for item in items:
            if item is not None:
                line_up.add(item)
            if time.monotonic() - last > TICK:
                last = time.monotonic()
                tick(work.read, work.total, work.images - begun)
        line_up.end()
        store(lambda: out.end(_summary_of(work)))
    return begun


class _LineUp:
    """What is not written yet, in its order: messages, answers that are being drawn, and ends of segments.

    Messages are written by the lot: to wake another thread for each of a thousand a second would take longer.
    """

    def __init__(self, work: Offline, out: SegmentedBag, store: Callable[..., Any], painters: Painters | None) -> None:
        self._work, self._out, self._store, self._painters = work, out, store, painters
        self._waiting: deque[Message | Publication | tuple[bytes, list[dict[str, Any]]]] = deque()
        self._drawn = self._held = 0  # answers, and bytes of their images and of the messages behind them
        self._most = 0 if painters is None else 2 * painters.number
        self._lot: list[Message] = []
        self._size = 0

    def add(self, item: Message | tuple[Camera, int, Answer] | bytes) -> None:
        """Add the next item; waits for the first one while there are too many."""
        if isinstance(item, bytes):
            self._waiting.append((item, self._work.shown()))
        elif isinstance(item[2], bytes | memoryview):
            self._waiting.append(item)
            self._held += len(item[2])
        else:
            publication = self._work.publish(item, self._painters)
            self._waiting.append(publication)
            self._drawn, self._held = self._drawn + 1, self._held + publication.size
        while self._waiting and self._due(self._waiting[0]):
            self._write_next()

    def end(self) -> None:
        """Have all of it written."""
        while self._waiting:
            self._write_next()
        self._flush()

    def _due(self, first: Any) -> bool:
        return isinstance(first, tuple) or first.done or self._drawn > self._most or self._held > HELD

    def _write_next(self) -> None:
        item = self._waiting.popleft()
        if not isinstance(item, tuple):
            messages = self._work.messages(item)
            self._drawn, self._held = self._drawn - 1, self._held - item.size
        elif len(item) == 2:
            self._flush()
            self._store(self._out.end_segment, self._work.sealed(*item))
            return
        else:
            messages = [item]
            self._held -= len(item[2])
        self._lot += messages
        self._size += sum(len(raw) for _, _, raw in messages)
        if self._size > LOT:
            self._flush()

    def _flush(self) -> None:
        lot, size, self._lot, self._size = self._lot, self._size, [], 0
        if lot:
            self._store(_write, self._out, lot, size=size)


def _bytes_of(item: Item) -> int:
    """What an item holds, about."""
    if item is None or isinstance(item, bytes):
        return len(item or b"")
    return len(item[2]) if isinstance(item[2], bytes | memoryview) else int(item[2].image.nbytes)


def _at_once(function: Callable[..., Any], *arguments: Any, size: int = 0) -> None:
    function(*arguments)


def _write(out: SegmentedBag, messages: Sequence[Message]) -> None:
    for topic, time_ns, raw in messages:
        out.write(topic, time_ns, raw)


def _plan(job: Job, bag: Bag, log: Any) -> Plan:
    from radan_ros.ros import compat, offline
    from radan_ros.ros.parameters import from_values

    cameras = bag.cameras(job.topics)
    if not job.topics:
        offline.tell_uncalibrated(bag, cameras, log)
        cameras = offline.without_depth(bag, cameras, log)
    views = [view for view in VIEWS if view in job.publish or (ALL in job.publish and view != "humans")]
    if ALL in job.publish and compat.has_hri_msgs() and len(cameras) == 1:
        views.append("humans")
    if "humans" in views and not compat.has_hri_msgs():
        raise SourceError("humans needs the messages of the package hri_msgs, which is not installed")
    settings = from_values({**job.parameters, "publish": views})
    everything = ALL in job.publish
    return offline.Plan(
        tuple(cameras),
        settings,
        faces=everything or "faces" in job.publish,
        transforms=everything or "tf" in job.publish,
        name=job.name,
        namespace=job.namespace,
        copy=not job.only_ours,
        segment=job.segment,
    )


@cache
def _parts(settings: Settings) -> Parts:
    """Model, renderer and detector, for all bags of a process."""
    import cv2

    from radan_ros.ros.bag_node import Log
    from radan_ros.ros.engine import Engine
    from radan_ros.threads import limit_blas

    limit_blas()
    cv2.setNumThreads(1)  # crops are so small that its threads take longer to wake
    return Engine(settings, Log()).parts


def _described(job: Job, bag: Bag, plan: Plan, parts: Parts) -> dict[str, Any]:
    """All that the output depends on."""
    model = parts.model
    network = model.network_file
    files = [] if network is None else [network, network.with_suffix(".bin")]
    return {
        "format": FORMAT,
        "bag": [_known_by(p) for p in _files(bag.path, logs=True)],
        "topics": [camera.name for camera in plan.cameras],
        "parameters": {k: v for k, v in asdict(plan.settings).items() if k not in OWN},
        "publish": [plan.faces, plan.transforms],
        "node": [job.namespace, job.name],
        "only ours": job.only_ours,
        "storage": [job.storage, job.compression],
        "segment": job.segment,
        "model": [model.name, model.face_model.version, *(zlib.crc32(f.read_bytes()) for f in files if f.is_file())],
        "device": model.network.device.partition(":")[0],  # a GPU's last digits are not a processor's
    }


def _known_by(path: Path) -> list[str | int]:
    """Name and fingerprint of a file of a bag; of one that cannot be read, which the bag itself tells, the name."""
    try:
        return [path.name, *fingerprint(path)]
    except OSError:
        return [path.name]


def _files(path: Path, *, logs: bool = False) -> list[Path]:
    """The files of a bag; with what a database has not yet taken over from its log, and metadata."""
    from radan_ros.tools.salvage import data_files

    files = data_files(path) if path.is_dir() else [path]
    if logs:
        others = [file.with_name(f"{file.name}-wal") for file in files] + [path / "metadata.yaml"]
        files = [*files, *(file for file in others if file.is_file())]
    return files


# --------------------------------------------------------------------------------------------------------- many bags


class Runner(Protocol):
    """Has jobs done by others."""

    def submit(self, job: Job, sign: str) -> Future[Result]:
        """Begin with a job, which writes its progress into the file `sign`."""
        ...

    def stop(self) -> None:
        """End at once: what is not finished is gone on with another time."""
        ...


def process_with_sign(job: Job, sign: str) -> Result:
    """`process` in another process, or on another machine: tells its progress by a file."""
    file = Path(sign)

    def tick(read: int, total: int, images: int) -> None:
        with contextlib.suppress(OSError):
            file.write_text(json.dumps([read, total, images]), encoding="utf-8")

    return process(job, tick)


class Processes:
    """Runs jobs in processes of this machine."""

    def __init__(self, number: int) -> None:
        # A new interpreter each: threads and a GPU do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(number, context, initializer=end_with_parent, initargs=(os.getpid(),))

    def submit(self, job: Job, sign: str) -> Future[Result]:
        """Begin with a job when a process is free."""
        with deaf_to_ctrl_c():
            return self._pool.submit(process_with_sign, job, sign)

    def stop(self) -> None:
        """Kill the processes."""
        for process_ in list((self._pool._processes or {}).values()):
            process_.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)


class RayTasks:
    """Runs jobs on a Ray cluster, or on one of `number` workers that is made here.

    The machines must see bags and outputs under the same paths, and their Ray be started with this package in its
    environment (``scripts/env ray start ...``, or a sourced workspace).
    """

    def __init__(self, address: str, number: int, threads: int, gpu: bool) -> None:
        _check_there(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a robot tells nobody; a cluster's own word counts
        try:
            import ray
        except ImportError as error:
            raise SourceError(f"--ray needs the package ray: pip install ray ({error})") from None
        self._ray = ray
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        # Ray puts the folder that it begins in on its workers' path: of a checkout that would be our folder radan_ros,
        # which has no messages.
        here = os.getcwd()
        os.chdir(tempfile.gettempdir())
        try:
            if address:
                try:
                    ray.init(address=address, **quiet)
                except ConnectionError:
                    raise SourceError(f"--ray {address}: no Ray cluster is found (ray start --head)") from None
            else:
                ray.init(num_cpus=number * threads, include_dashboard=False, **quiet)
        finally:
            os.chdir(here)
        # By its module's name: of the program that runs, workers do not know more.
        task = importlib.import_module("radan_ros.tools.process_bag").process_with_sign
        self._task = ray.remote(task).options(num_cpus=threads, num_gpus=int(gpu), max_retries=2)

    def submit(self, job: Job, sign: str) -> Future[Result]:
        """Begin with a job when a worker is free; one that died is begun again, and goes on where it was."""
        job = replace(job, bag=os.path.abspath(job.bag), target=os.path.abspath(job.target))
        done: Future[Result] = self._task.remote(job, os.path.abspath(sign)).future()
        return done

    def stop(self) -> None:
        """Leave the cluster, which ends its tasks."""
        self._ray.shutdown()


def _check_there(address: str) -> None:
    """Raise SourceError where no machine listens: Ray would wait for a minute, and say nothing."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise SourceError(f"--ray {address}: nothing answers there ({line(error)})") from None


def process_all(
    jobs: Sequence[Job],
    runner: Runner | None,
    tell: Callable[[Job, Result], None],
    check: Callable[[], None],
) -> None:
    """Process bags, here or by a runner, with a progress bar over all of them.

    `tell` hears of each that is done; `check` is asked again and again whether to go on, and raises if not.

    Raises
    ------
    KeyboardInterrupt
    """
    from tqdm import tqdm

    sizes = [_size_of(Path(job.bag)) for job in jobs]
    bar = progress_bar(total=sum(sizes), unit="B", unit_scale=True, leave=False)
    counted = [0] * len(jobs)
    images = [0] * len(jobs)
    began = time.monotonic()

    def show(number: int, read: int, total: int, seen: int) -> None:
        check()
        done = min(sizes[number], sizes[number] * read // max(1, total))
        bar.update(max(0, done - counted[number]))
        counted[number], images[number] = max(done, counted[number]), seen
        bar.set_postfix_str(f"{sum(images) / max(1e-9, time.monotonic() - began):.0f} images/s")

    def ended(number: int, result: Result) -> None:
        show(number, 1, 1, result.images - result.begun if result.took else 0)
        with tqdm.external_write_mode(file=sys.stderr):
            tell(jobs[number], result)

    with bar:
        if runner is None:
            for number, job in enumerate(jobs):
                ended(number, process(job, lambda *told, number=number: show(number, *told)))  # type: ignore[misc]
            return
        signs = [str(partial_of(Path(job.target)) / PROGRESS) for job in jobs]
        waiting = {runner.submit(job, sign): k for k, (job, sign) in enumerate(zip(jobs, signs, strict=True))}
        try:
            while waiting:
                for future in wait(waiting, timeout=TICK, return_when="FIRST_COMPLETED").done:
                    number = waiting.pop(future)
                    ended(number, _result_of(future, jobs[number]))
                for number in waiting.values():
                    with contextlib.suppress(OSError, ValueError):
                        show(number, *json.loads(Path(signs[number]).read_text(encoding="utf-8")))
        finally:
            runner.stop()
            for sign in signs:
                Path(sign).unlink(missing_ok=True)


def _size_of(bag: Path) -> int:
    """Bytes of a bag's files; 0 where they cannot be had, which is told when its turn comes."""
    try:
        return sum(path.stat().st_size for path in _files(bag))
    except OSError:
        return 0


def _result_of(future: Future[Result], job: Job) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        return Result(troubles=(f"{job.bag}: its process was ended from outside (memory?); run again to go on",))
    except Exception as error:  # Ray's errors are of many kinds
        return Result(troubles=(f"{job.bag}: {type(error).__name__}: {line(error)}",))


# ---------------------------------------------------------------------------------------------------------- program


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``radan-process-bag``; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    with Signals() as signals:
        try:
            _check_ros()
            jobs, missing = _jobs(options)
        except KeyboardInterrupt:
            return signals.status
        except (SourceError, ValueError, ImportError, OSError) as error:
            if signals.last is not None:  # what was loading made that of it
                return signals.status
            print(f"{parser.prog}: {line(error)}", file=sys.stderr)
            return 2
        return _process_bags(jobs, missing, options, signals)


def _process_bags(jobs: Sequence[Job], missing: Sequence[str], options: argparse.Namespace, signals: Signals) -> int:
    program, status = "radan-process-bag", 0
    for text in missing:
        print(f"{program}: {text}", file=sys.stderr)
        status = 1

    def tell(job: Job, result: Result) -> None:
        nonlocal status
        for text in (*result.notes, *result.troubles):
            print(f"{program}: {text}", file=sys.stderr)
        status = 1 if result.troubles else status
        if result.images:
            print(_summary(job, result), flush=True)

    try:
        Path(options.out).mkdir(parents=True, exist_ok=True)
        runner: Runner | None = None
        workers = min(options.workers, len(jobs))
        if options.ray is not None and jobs:
            gpu = str(jobs[0].parameters.get("device", "")).startswith("cuda")
            runner = RayTasks(options.ray, workers, jobs[0].threads, gpu)
        elif workers > 1:
            runner = Processes(workers)
        process_all(jobs, runner, tell, signals.check)
    except KeyboardInterrupt:
        print(f"{program}: interrupted; run again to go on", file=sys.stderr)
        return signals.status
    except (SourceError, OSError, ConnectionError) as error:
        print(f"{program}: {line(error)}", file=sys.stderr)
        return 1
    return status


def _check_ros() -> None:
    """Load what needs ROS, or raise ImportError with the way to have it."""
    try:
        import rclpy.serialization  # noqa: F401

        import radan_ros.msg
    except ImportError as error:
        raise ImportError(
            f"needs ROS 2's Python packages and this package's messages ({error}): source a workspace, or in a "
            "checkout 'make build', and then scripts/env radan-process-bag"
        ) from None
    import radan_ros.ros.offline  # noqa: F401


def _jobs(options: argparse.Namespace) -> tuple[list[Job], list[str]]:
    """The jobs of a command line, and what is wrong with the bags that are none."""
    from radan_ros.ros.offline import check_names
    from radan_ros.threads import available_cores

    there, missing = [], []
    if "" in options.bags:  # a variable of a script that is not set, and no wish for the current folder
        missing.append("an empty name among the bags: no file or folder")
    for path in dict.fromkeys(Path(os.path.expanduser(text)) for text in options.bags if text):
        try:
            if is_bag(str(path)):
                there.append(path)
            else:
                missing.append(f"{path}: {'no rosbag2' if path.exists() else 'no such file or folder'}")
        except (OSError, RuntimeError) as error:  # a folder that is not to be read, a home of nobody
            text = line(error)
            missing.append(text if str(path) in text else f"{path}: {text}")
    out = Path(options.out)
    parameters = _parameters(options)
    check_names(options.name, options.namespace)
    shared = max(1, available_cores() // max(1, min(options.workers, len(there))))
    threads = options.threads or (2 if options.ray else shared)
    jobs = []
    for path, name in zip(there, distinct_names(there, bag_name), strict=True):
        _check_apart(out / name, there)
        jobs.append(
            Job(
                bag=str(path),
                target=str(out / name),
                parameters=parameters,
                topics=tuple(options.topics),
                publish=tuple(options.publish),
                name=options.name,
                namespace=options.namespace,
                only_ours=options.only_ours,
                storage=options.storage,
                compression=options.compression,
                threads=threads,
                segment=options.segment,
                overwrite=options.overwrite,
            )
        )
    return jobs, missing


def _check_apart(target: Path, bags: Sequence[Path]) -> None:
    """Raise ValueError where an output would lie in a recording, or a recording in what is removed for an output."""
    for bag in bags:
        recording = bag.resolve()
        if (recording.parent / "metadata.yaml").is_file():  # a file of a bag
            recording = recording.parent
        for place in (target.resolve(), partial_of(target.resolve())):
            if place.is_relative_to(recording) or bag.resolve().is_relative_to(place):
                raise ValueError(f"{bag}: --out is where the bag lies: name another folder")


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The node's parameters of a command line: file, then --set, then the options of their own.

    Raises
    ------
    ValueError, OSError
        Names the parameter or the file.
    """
    import yaml

    from radan_ros.ros.parameters import from_values

    values: dict[str, Any] = {}
    if options.params_file is not None:
        text = Path(options.params_file).expanduser().read_text(encoding="utf-8")
        try:
            told = yaml.safe_load(text) or {}
            full = f"{options.namespace.rstrip('/')}/{options.name}"
            for node in ("/**", options.name, full):
                values.update(told.get(node, {}).get("ros__parameters", {}))
        except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{options.params_file}: is no file of parameters: {line(error)}") from None
        for name in [n for n in values if n == "use_sim_time" or n.startswith("qos_overrides")]:
            del values[name]
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: write name=value")
        if name == "publish":
            raise ValueError(f"--set {text}: what is published is named by --publish")
        try:
            values[name] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError as error:
            raise ValueError(f"--set {text}: {line(error)}") from None
    values.pop("publish", None)  # the node's views; --publish has more names
    for name in ("model", "device"):
        if getattr(options, name) is not None:
            values[name] = getattr(options, name)
    from_values(values)
    return values


def _summary(job: Job, result: Result) -> str:
    new = result.images - result.begun
    speed = f", {new / result.took:.0f} images/s" if result.took and new else ""
    if result.took and not result.begun and result.seconds:
        speed += f", {result.seconds / result.took:.1f} times real time"
    return f"{job.target}: {result.answered} of {result.images} images answered, {result.faces} faces{speed}"


def _parser() -> argparse.ArgumentParser:
    from radan_ros.tools.numbers import positive_integer

    parser = argparse.ArgumentParser(
        prog="radan-process-bag",
        description="Find the faces in the images of rosbag2 recordings, and write the recordings with the node's "
        "topics in them. A run that was interrupted goes on when it is started again.",
        epilog="Of several cameras in a bag each gets topics beside its own (/left/radan/faces) and frames with its "
        "name (left_face_0). Exit status: 0; 1 when something was lost or not answered, or a bag, topic, model "
        "or device cannot be opened; 2 for a command line that cannot be (an option, parameter, name or place); 130 "
        "after Ctrl-C and 143 after SIGTERM.",
    )
    parser.add_argument("bags", nargs="+", metavar="BAG", help="rosbag2 folder, or an .mcap or .db3 file of one")
    parser.add_argument("--out", required=True, type=os.path.expanduser, metavar="DIR", help="folder for the bags")
    parser.add_argument("--only-ours", action="store_true", help="write the node's topics alone")
    parser.add_argument(
        "--topics", nargs="+", default=(), metavar="TOPIC", help="image topics (default: those of the cameras)"
    )
    parser.add_argument(
        "--publish",
        nargs="+",
        default=("faces", "tf"),
        choices=("faces", "tf", *VIEWS, ALL),
        metavar="NAME",
        help=f"what to write besides the topology: faces, tf (these are the default), {', '.join(VIEWS)}, or {ALL}",
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="node parameters")
    parser.add_argument("--params-file", metavar="FILE", help="node parameters, as for the node")
    parser.add_argument("--model", metavar="FOLDER", help="model (default: the built-in one)")
    parser.add_argument("--device", help="auto (default), cpu, cuda or cuda:<i>")
    parser.add_argument("--name", default="radan", help="name of the node in the topics (default radan)")
    parser.add_argument("--namespace", default="/", help="namespace of the node in the topics (default /)")
    parser.add_argument("--storage", choices=STORAGES, default=STORAGES[0], help=f"default {STORAGES[0]}")
    parser.add_argument("--compression", choices=COMPRESSIONS, default="zstd", help="default zstd")
    parser.add_argument("--workers", type=positive_integer, default=1, metavar="N", help="bags at a time (default 1)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="through Ray: on a cluster (auto, or its address), or on --workers of this machine",
    )
    parser.add_argument(
        "--threads",
        type=positive_integer,
        metavar="N",
        help="cores for each bag (default: those that there are, divided by --workers; 2 on a cluster)",
    )
    parser.add_argument(
        "--segment",
        type=positive_integer,
        default=SEGMENT,
        metavar="N",
        help=f"images in a file of the output, which an interruption can cost (default {SEGMENT})",
    )
    parser.add_argument("--overwrite", action="store_true", help="begin anew, also where the output is there")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
