"""Write a rosbag2 piece by piece, so that a run that was interrupted at any point goes on behind its last whole piece.

While it is written, a bag NAME lies in the folder ``NAME.partial``:

- ``job.json``: what it is made from, and how. A run with another job does not go on with it.
- ``NAME_0``, ``NAME_1``, ...: finished segments. Each is a bag by itself, and holds in ``state`` what the program that
  makes the messages needs to go on behind it, and in ``seal`` of what sizes its files are.
- ``writing/NAME_2``: the segment that is being written. It becomes a finished one by being renamed, or is thrown away.
- ``lock``: held by the program that writes, so that no two do.

At the end the files of the segments move up, ``metadata.yaml`` names them all, and the folder is renamed to NAME. Each
step can be repeated: a program that is killed in the midst of any of them leaves what the next one goes on with. Where
segments end depends on the messages alone, never on time: the bag is the same, byte by byte, however often the work
was interrupted. All of a step is on the disk before the next one begins, so that a power cut is an interruption, too;
a segment whose files are not as its seal says is made again, with those behind it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

STORAGES = ("mcap", "sqlite3")
COMPRESSIONS = ("none", "zstd")
KEY = "radan_process_bag"
"""Name, in the metadata of a finished bag, of what it was made from and what was counted."""
PROGRESS = "progress"
"""Name of a file in the folder of an unfinished bag, for the program's own use; it is removed at the end."""
_END = b"end"  # begins the state of the last segment
_PIECE = 1 << 16  # bytes at either end of a file of ours by which it is known
_READ = 1 << 20  # bytes of any other file that are read at a time


class BusyError(RuntimeError):
    """Another program writes this bag."""


class OtherJobError(RuntimeError):
    """What is there was made from something else, or otherwise."""


class ForeignError(RuntimeError):
    """What is there was not made by this program, and is not touched."""


@dataclass(frozen=True)
class OutTopic:
    """A topic of the bag to write.

    Attributes
    ----------
    name, type : str
        The type as "package/msg/Name".
    definition, digest : str
        Of the type; see `radan_ros.tools.record.message_definition` and `type_hash`.
    qos : tuple
        `rosbags.interfaces.Qos` of its publishers.
    """

    name: str
    type: str
    definition: str
    digest: str
    qos: tuple[Any, ...] = ()


def finished(target: Path, job: dict[str, Any]) -> dict[str, Any] | None:
    """What was counted when a bag was written; None where there is none.

    Raises
    ------
    ForeignError
        When what is there is no such bag.
    OtherJobError
        When it is the bag of another job; says in what the jobs differ.
    """
    if not os.path.lexists(target):
        return None
    told = _told(target)
    _check_same(told["job"], job)
    return dict(told["summary"])


def _told(folder: Path) -> dict[str, Any]:
    """Job and summary in the metadata of a bag, and the names of its files; raises ForeignError without any."""
    import yaml

    try:
        text = (folder / "metadata.yaml").read_text(encoding="utf-8")
        described = yaml.safe_load(text)["rosbag2_bagfile_information"]
        told: dict[str, Any] = json.loads(described["custom_data"][KEY])
        return {
            "job": dict(told["job"]),
            "summary": dict(told["summary"]),
            "files": [str(name) for name in described["relative_file_paths"]],
        }
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        raise ForeignError("exists, and was not made by this program: move it away, or name another --out") from None


def partial_of(target: Path) -> Path:
    """The folder in which a bag lies while it is unfinished."""
    return target.with_name(f"{target.name}.partial")


def fingerprint(path: Path) -> list[int]:
    """Size of a file, and a checksum of all of it.

    zlib's CRC-32 goes through 2.5 GB a second on a server's core: the disk is slower, and the work on the bag by far.
    """
    size = check = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_READ):
            size, check = size + len(piece), zlib.crc32(piece, check)
    return [size, check]


def _ends(path: Path) -> list[int]:
    """Size of a file, and a checksum of its beginning and its end.

    Enough for what this program wrote and had on the disk, of which a power cut takes the end, if anything: to read all
    of it again, gigabytes a minute of a camera with all topics, would hold up each start.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        check = zlib.crc32(file.read(_PIECE))
        file.seek(max(0, size - _PIECE))
        return [size, zlib.crc32(file.read(_PIECE), check)]


class SegmentedBag:
    """A bag that is written, or gone on with.

    Parameters
    ----------
    target : Path
        The bag's folder; must not exist.
    job : dict
        What it is made from, and how; goes through JSON.
    storage, compression : str
        Of `STORAGES` and `COMPRESSIONS`.
    threads : int
        That may compress beside the one that writes.

    Attributes
    ----------
    state : bytes or None
        What was given to `end_segment` last; None at the beginning.
    summary : dict or None
        What was given to `end`; None while there is more to write.

    Raises
    ------
    BusyError, ForeignError, OtherJobError, OSError
    """

    def __init__(self, target: Path, job: dict[str, Any], *, storage: str, compression: str, threads: int = 0) -> None:
        self.target, self._job = target, job
        self._storage, self._compression = storage, compression
        beside = threads > 0 and (storage, compression) == ("mcap", "zstd")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="compressor") if beside else None  # begun on use
        self._folder = partial_of(target)
        self._folder.mkdir(parents=True, exist_ok=True)
        _check_ours(self._folder)
        self._lock = _locked(self._folder / "lock")
        self._writer: Any = None
        self._connections: dict[str, Any] = {}
        self._topics: dict[str, OutTopic] = {}
        self._pending: bytes | None = None
        try:
            self._check_job()
            shutil.rmtree(self._folder / "writing", ignore_errors=True)
            self.state: bytes | None = None
            self.summary: dict[str, Any] | None = None
            self._count = 0
            if self._complete:
                with contextlib.suppress(ForeignError):  # damaged metadata are made again
                    told = _told(self._folder)
                    _check_same(told["job"], job)
                    self.summary = told["summary"]
                    return
            while _is_sealed(self._segment(self._count)):
                self._count += 1
            self._remove_rest()
            if self._count:
                self.state = (self._segment(self._count - 1) / "state").read_bytes()
                if self.state.startswith(_END):
                    self.summary = json.loads(self.state[len(_END) :])
        except BaseException:
            self._lock.close()
            raise

    def _check_job(self) -> None:
        path = self._folder / "job.json"
        if not path.is_file():
            _write_synced(path, json.dumps(self._job).encode())
            return
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise OtherJobError(f"is unfinished, and {path} is damaged") from None
        _check_same(before, self._job)

    def _remove_rest(self) -> None:
        """Remove what no seal vouches for."""
        kept = {"job.json", "lock", *(self._segment(number).name for number in range(self._count))}
        for path in self._folder.iterdir():
            if path.name not in kept:
                _remove(path)

    def _segment(self, number: int) -> Path:
        return self._folder / f"{self.target.name}_{number}"

    @property
    def _complete(self) -> bool:
        """Whether the metadata of the whole are written, and only its parts are to be moved."""
        return (self._folder / "metadata.yaml").is_file()

    def declare(self, topics: Sequence[OutTopic]) -> None:
        """These topics are in each segment, in this order; others only where there is a message of them."""
        self._topics = {topic.name: topic for topic in topics}

    def write(self, topic: OutTopic, time_ns: int, raw: bytes | memoryview) -> None:
        """Write a message. Times must not go back.

        Raises
        ------
        OSError, sqlite3.Error
            When the disk does not take it.
        """
        if self._pending is not None:
            self._seal(self._pending)
        if self._writer is None:
            self._begin()
        if topic.name not in self._connections:
            self._connect(topic)
        self._writer.write(self._connections[topic.name], time_ns, raw)

    def _begin(self) -> None:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode

        from radan_ros.tools.chunks import writer

        self._writer = writer(self._folder / "writing" / f"{self.target.name}_{self._count}", self._storage, self._pool)
        if self._compression == "zstd":
            mode = CompressionMode.STORAGE if self._storage == "mcap" else CompressionMode.MESSAGE
            self._writer.set_compression(mode, CompressionFormat.ZSTD)
        self._writer.open()
        self._connections = {}
        for topic in self._topics.values():
            self._connect(topic)

    def _connect(self, topic: OutTopic) -> None:
        self._connections[topic.name] = self._writer.add_connection(
            topic.name, topic.type, msgdef=topic.definition, rihs01=topic.digest, offered_qos_profiles=topic.qos
        )

    def end_segment(self, state: bytes) -> None:
        """End the segment; `state` is what its maker needs to go on behind it.

        It is finished when the next message is written, since none shall be empty.
        """
        self._pending = state

    def _seal(self, state: bytes) -> None:
        if self._writer is None:
            self._begin()
        self._writer.close()
        path = self._writer.path
        self._writer = self._pending = None
        (path / "state").write_bytes(state)
        files = sorted(path.iterdir())
        (path / "seal").write_text(json.dumps({file.name: _ends(file) for file in files}), encoding="utf-8")
        for written in (*files, path / "seal", path):
            _sync(written)
        os.rename(path, self._segment(self._count))
        _sync(self._folder)
        self._count += 1

    def end(self, summary: dict[str, Any]) -> None:
        """Finish the last segment. `summary`, what was counted, goes into the metadata of the bag."""
        self._seal(_END + json.dumps(summary).encode())
        self.summary = summary

    def finish(self) -> None:
        """Make one bag of the segments, under its name."""
        import yaml

        if not self._complete:
            parts = []
            for number in range(self._count):
                text = (self._segment(number) / "metadata.yaml").read_text(encoding="utf-8")
                parts.append(yaml.safe_load(text)["rosbag2_bagfile_information"])
            merged = _merged(parts)
            merged["custom_data"] = {KEY: json.dumps({"job": self._job, "summary": self.summary})}
            text = yaml.safe_dump({"rosbag2_bagfile_information": merged}, sort_keys=False)
            _write_synced(self._folder / "metadata.yaml", text.encode())
        text = (self._folder / "metadata.yaml").read_text(encoding="utf-8")
        for name in yaml.safe_load(text)["rosbag2_bagfile_information"]["relative_file_paths"]:
            if not (self._folder / name).exists():
                os.rename(self._folder / Path(name).stem / name, self._folder / name)
        _sync(self._folder)
        for path in self._folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        for name in (PROGRESS, "job.json", "lock"):
            (self._folder / name).unlink(missing_ok=True)
        _sync(self._folder)
        os.rename(self._folder, self.target)
        _sync(self.target.parent)
        self.close()

    def abandon(self) -> None:
        """Throw away the segment that is being written; in the thread that wrote it, to which its database belongs."""
        if self._writer is not None:
            with contextlib.suppress(Exception):  # the disk is full, mostly
                self._writer.abort()
            self._writer = None

    def close(self) -> None:
        """Throw away the segment that is being written, and keep the others for the next time."""
        self.abandon()
        shutil.rmtree(self._folder / "writing", ignore_errors=True)
        if self._pool is not None:
            self._pool.shutdown()
        self._lock.close()


def discard(target: Path) -> None:
    """Remove a bag, and what there is of an unfinished one.

    Raises
    ------
    BusyError
        When another program writes it.
    ForeignError
        When what is there, or some of it, was not made by this program: nothing is removed then.
    """
    partial = partial_of(target)
    ours: list[Path] = []
    if os.path.lexists(target):
        names = {"metadata.yaml", *(name + end for name in _told(target)["files"] for end in ("", "-wal", "-shm"))}
        ours = [path for path in target.iterdir() if path.name in names]
        others = sorted({path.name for path in target.iterdir()} - {path.name for path in ours})
        if others or target.is_symlink():
            raise ForeignError(f"is not removed: {'it is a link' if target.is_symlink() else f'it holds {others[0]}'}")
    if partial.exists():
        _check_ours(partial)
        with _locked(partial / "lock"):
            shutil.rmtree(partial)
    if os.path.lexists(target):
        for path in ours:
            path.unlink()
        target.rmdir()


def _check_ours(partial: Path) -> None:
    """Raise ForeignError for a folder of an unfinished bag in which another's things lie."""
    others = {path.name for path in partial.iterdir()} - {"lock", "job.json.new"}
    if others and "job.json" not in others:
        try:
            _told(partial)  # ended just before it got its name
        except ForeignError:
            raise ForeignError(f"cannot be written: {partial} was not made by this program") from None


def _is_sealed(segment: Path) -> bool:
    """Whether a segment is there, whole."""
    try:
        seal = json.loads((segment / "seal").read_text(encoding="utf-8"))
        return "state" in seal and all(_ends(segment / name) == told for name, told in seal.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _write_synced(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also where the power is cut."""
    part = path.with_name(f"{path.name}.new")
    part.write_bytes(content)
    _sync(part)
    os.replace(part, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # not every file system knows it of folders
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _locked(path: Path) -> IO[str]:
    """The file, open and locked until it is closed or the program ends."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BusyError("is being written by another program") from None
    except OSError:  # a file system without locks
        pass
    return file


def _check_same(before: dict[str, Any], job: dict[str, Any]) -> None:
    now = json.loads(json.dumps(job))
    different = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if different:
        raise OtherJobError(f"was made otherwise ({', '.join(different)})")


def _merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Metadata of the segments as that of one bag."""
    merged = dict(parts[0])
    topics: dict[str, dict[str, Any]] = {}
    for part in parts:
        for entry in part["topics_with_message_count"]:
            name = entry["topic_metadata"]["name"]
            count = topics[name]["message_count"] if name in topics else 0
            topics[name] = {**entry, "message_count": count + entry["message_count"]}
    merged["topics_with_message_count"] = list(topics.values())
    merged["message_count"] = sum(part["message_count"] for part in parts)
    merged["relative_file_paths"] = [name for part in parts for name in part["relative_file_paths"]]
    merged["files"] = [file for part in parts for file in part["files"]]
    begin = min(part["starting_time"]["nanoseconds_since_epoch"] for part in parts)
    end = max(p["starting_time"]["nanoseconds_since_epoch"] + p["duration"]["nanoseconds"] for p in parts)
    merged["starting_time"] = {"nanoseconds_since_epoch": begin}
    merged["duration"] = {"nanoseconds": end - begin}
    return merged
