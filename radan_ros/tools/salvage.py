"""Read what can be read of a rosbag2 whose files are damaged, cut off, or without their metadata.yaml.

Undamaged files are read by the library rosbags. Where that gives up, an MCAP is read record by record, and a sqlite3
database row by row; each loss is a line of text.
"""

from __future__ import annotations

import heapq
import re
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

FILES = (".mcap", ".db3")
ZSTD = b"\x28\xb5\x2f\xfd"  # what begins a compressed message or file; no CDR message does
_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _INDEX, _END = 3, 4, 5, 6, 7, 15
_COUNTED = (_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK)
_GAP = 100_000  # rows of a database to look for behind one that cannot be read, where nothing tells how many there are


class _Storage(Protocol):
    """One file of a bag, as rosbags reads it: `connections`, and `messages` of some of them, in order of time."""

    @property
    def connections(self) -> list[Connection]: ...

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]: ...

    def close(self) -> None: ...


def data_files(folder: Path) -> list[Path]:
    """Files with messages of a bag's folder, by the numbers in their names: 2 comes before 10."""
    found = [p for p in folder.iterdir() if p.suffix in FILES or (p.suffix == ".zstd" and Path(p.stem).suffix in FILES)]
    return sorted(found, key=lambda p: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", p.name)])


class SalvageReader:
    """A bag whose damage is no error. Has what `radan_ros.tools.bags.Bag` needs of rosbags' Reader.

    Parameters
    ----------
    path : Path
        Folder, or one .mcap or .db3 file (also with .zstd behind).

    Attributes
    ----------
    connections : list of Connection
        Of all files; one for each topic and type of each file.
    message_count : int
        As far as it is known.
    start_time, end_time : int
        Nanoseconds; end_time is one past the last message.
    losses : list of str
        What could not be read, so far; complete when all messages were read.

    Raises
    ------
    OSError, ValueError
        When nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.losses: list[str] = []
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None
        self._files: list[tuple[str, Path, _Storage]] = []
        self._expected: int | None = None
        try:
            for file in self._list(path) if path.is_dir() else [path]:
                self._open_file(file)
            if not self._files:
                raise ValueError("; ".join(self.losses) or f"no {' or '.join(FILES)} file in it")
        except BaseException:
            self.close()
            raise
        self.connections = [c for _, _, storage in self._files for c in storage.connections]
        spans = [storage.metadata for _, _, storage in self._files]  # type: ignore[attr-defined]
        self.message_count = sum(span.message_count for span in spans)
        held = [span for span in spans if span.message_count]
        self.start_time = min((span.start_time for span in held), default=0)
        self.end_time = max((span.end_time for span in held), default=0)

    def _list(self, folder: Path) -> list[Path]:
        """Files of the bag in their order, as metadata.yaml has it."""
        import yaml

        there = data_files(folder)
        try:
            text = (folder / "metadata.yaml").read_text(encoding="utf-8")
            told = yaml.safe_load(text)["rosbag2_bagfile_information"]
            named = [folder / Path(name).name for name in told["relative_file_paths"]]
            self._expected = int(told["message_count"])
        except FileNotFoundError:
            self.losses.append("metadata.yaml is missing: the recording was cut off, or the file was not copied")
            return there
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            self.losses.append(f"metadata.yaml cannot be read: {_line(error)}")
            return there
        self.losses += [f"{file.name} is missing" for file in named if file not in there]
        return [file for file in named if file in there]

    def _open_file(self, file: Path) -> None:
        from rosbags.rosbag2 import Reader

        path = self._unpack(file) if file.suffix == ".zstd" else file
        log = path.with_name(f"{path.name}-wal")
        try:
            if log.is_file() and log.stat().st_size:
                raise ValueError(f"it was not closed: {log.name} is beside it")
            reader = Reader(path)
            reader.open()
            self._files.append((file.name, path, reader.storage))  # type: ignore[arg-type]
        except Exception as error:  # rosbags has no common error for what a damaged file may hold
            self._salvage(file.name, path, error)

    def _salvage(self, name: str, path: Path, error: Exception) -> None:
        try:
            storage = _open_salvaged(path)
        except Exception as worse:
            self.losses.append(f"{name}: nothing of it can be read: {_line(worse)}")
            return
        self.losses.append(f"{name}: {_line(error)}")
        self._hear(name, storage)
        self._files.append((name, path, storage))

    def _unpack(self, file: Path) -> Path:
        """A compressed file as a plain one in a temporary folder; of one that is cut off, its beginning."""
        if self._unpacked is None:
            self._unpacked = tempfile.TemporaryDirectory(prefix="radan_bag_")
        target = Path(self._unpacked.name) / file.stem
        with file.open("rb") as packed, target.open("wb") as plain:
            try:
                shutil.copyfileobj(_zstd().open(packed, "rb"), plain)
            except (EOFError, _zstd().ZstdError) as error:
                self.losses.append(f"{file.name}: damaged: {_line(error)}")
        return target

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages of some connections: connection, time in ns, CDR bytes. File by file, each in order of time."""
        for number, (name, path, storage) in enumerate(self._files):
            chosen = [c for c in storage.connections if any(c is wanted for wanted in connections)]
            if not chosen:
                continue
            read = 0
            try:
                for item in storage.messages(chosen):
                    read += 1
                    yield self._plain(name, item)
                self._hear(name, storage)
                continue
            except Exception as error:  # as above
                self.losses.append(f"{name}: damaged: {_line(error)}")
            again = _open_salvaged(path)
            self._hear(name, again)
            self._files[number] = (name, path, again)
            names = {(c.topic, c.msgtype): c for c in chosen}
            theirs = [c for c in again.connections if (c.topic, c.msgtype) in names]
            # The order is the same, so that it goes on behind what was read already.
            for connection, time_ns, raw in islice(again.messages(theirs), read, None):
                yield self._plain(name, (names[connection.topic, connection.msgtype], time_ns, raw))
            self._hear(name, again)

    def _hear(self, name: str, storage: _Storage) -> None:
        """Take over the losses of a file that rosbags does not read."""
        if isinstance(storage, (SalvagedMcap, SalvagedDatabase)):
            self.losses += [f"{name}: {line}" for line in storage.losses]
            storage.losses = []

    def _plain(self, name: str, item: tuple[Connection, int, bytes]) -> tuple[Connection, int, bytes]:
        connection, time_ns, raw = item
        if bytes(raw[:4]) != ZSTD:
            return item
        try:
            return connection, time_ns, _zstd().decompress(raw)
        except _zstd().ZstdError as error:
            self.losses.append(f"{name}: a message of {connection.topic} cannot be unpacked: {_line(error)}")
            return connection, time_ns, b""

    def missing(self, read: int) -> None:
        """Tell how many messages were `read` in all, once all were."""
        if self._expected is not None and read < self._expected:
            self.losses.append(f"{self._expected - read} of {self._expected} messages could not be read")

    def close(self) -> None:
        """Close all files."""
        for _, _, storage in self._files:
            storage.close()
        self._files = []
        if self._unpacked is not None:
            self._unpacked.cleanup()


@dataclass
class Span:
    """How many messages a file holds, and their times in ns (one past the last), under rosbags' names."""

    message_count: int = 0
    start_time: int = 0
    end_time: int = 0


def _open_salvaged(path: Path) -> SalvagedMcap | SalvagedDatabase:
    return SalvagedMcap(path) if path.suffix == ".mcap" else SalvagedDatabase(path)


# ---------------------------------------------------------------------------------------------------------- MCAP


@dataclass(frozen=True)
class _Part:
    """A chunk, or a lone message, that can be read."""

    begin: int  # time of its first message, ns
    offset: int  # of its record in the file
    code: int
    length: int  # of the record behind its head


class SalvagedMcap:
    """An MCAP read without its index: every record that is whole, chunks that pass their checksum, and of a chunk that
    is cut off what can be unpacked. Raises ValueError when it is no MCAP.
    """

    def __init__(self, path: Path) -> None:
        self.connections: list[Connection] = []
        self.metadata = Span()
        self.losses: list[str] = []
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._parts: list[_Part] = []
        self._ids: set[int] = set()
        self._times: list[int] = []
        self._file = path.open("rb")
        self._size = path.stat().st_size
        if self._file.read(len(_MAGIC)) != _MAGIC:
            self._file.close()
            raise ValueError("the file does not begin as an MCAP does")
        self._counts: Counter[int] = Counter()
        self._scan()
        self.connections = [c._replace(msgcount=self._counts[c.id]) for c in self.connections]
        if self._times:
            self.metadata = Span(len(self._times), min(self._times), max(self._times) + 1)
        self._times = []

    def _scan(self) -> None:
        lost = None  # where a chunk could not be read whose index may tell how much it held
        while (at := self._file.tell()) < self._size:
            head = self._file.read(9)
            if len(head) < 9:
                break
            code, length = head[0], int.from_bytes(head[1:], "little")
            if code == _END:
                return
            if not 1 <= code < 128 or (length > self._size - at - 9 and code not in _COUNTED):
                break
            if code in _COUNTED:
                lost = None
                body = self._file.read(length)
                whole = len(body) == length
                if code == _CHUNK:
                    content, good = unpacked_chunk(body)
                    times = [self._note(inner, record) for inner, record in records(content)]
                    known = [t for t in times if t is not None]
                    if known:
                        self._parts.append(_Part(min(known), at, code, len(body)))
                    if not good and whole:
                        lost = f"the chunk at byte {at} is damaged: {len(known)} of its messages could be read"
                        self.losses.append(lost)
                        held = 0
                elif whole:
                    time_ns = self._note(code, body)
                    if time_ns is not None:
                        self._parts.append(_Part(time_ns, at, code, length))
                if not whole:
                    break
            elif code == _INDEX and lost is not None:
                held += struct.unpack_from("<I", self._file.read(length), 2)[0] // 16
                self.losses[-1] = f"{lost} (it held {held})"
            else:
                self._file.seek(length, 1)
        self.losses.append(f"it ends at byte {self._size} without its index; {len(self._times)} messages are before")

    def _note(self, code: int, body: bytes) -> int | None:
        """Remember what a record says: the time of a message."""
        from rosbags.interfaces import Connection, ConnectionExtRosbag2
        from rosbags.rosbag2.storage_mcap import Schema, get_msgdef, get_qos

        if code == _MESSAGE and len(body) >= 22:
            self._counts[int.from_bytes(body[:2], "little")] += 1
            self._times.append(int.from_bytes(body[6:14], "little"))
            return self._times[-1]
        if code == _SCHEMA:
            (number,) = struct.unpack_from("<H", body)
            name, at = _text(body, 2)
            encoding, at = _text(body, at)
            self._schemas[number] = (name, encoding, _text(body, at)[0])
        elif code == _CHANNEL:
            number, schema = struct.unpack_from("<HH", body)
            if number not in self._ids and schema in self._schemas:
                self._ids.add(number)
                topic, at = _text(body, 4)
                form, at = _text(body, at)
                extra = ConnectionExtRosbag2(form, get_qos(body[at + 4 :]))
                name, encoding, text = self._schemas[schema]
                definition = get_msgdef(Schema(schema, name, encoding, text))
                self.connections.append(Connection(number, topic, name, definition, "", 0, extra, self))
        return None

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages in order of time."""
        wanted = {c.id: c for c in connections}
        # As rosbags sorts them: by time, then by the place of the chunk, then by the place in it.
        for time_ns, offset, _, number, raw in heapq.merge(*(self._read(part, wanted) for part in self._parts)):
            if offset:
                yield wanted[number], time_ns, raw

    def _read(self, part: _Part, wanted: Collection[int]) -> Iterator[tuple[int, int, int, int, bytes]]:
        yield part.begin, 0, 0, 0, b""  # merging opens the chunk only when its time has come
        self._file.seek(part.offset + 9)
        body = self._file.read(part.length)
        found = []
        for k, (code, record) in enumerate(
            records(unpacked_chunk(body)[0]) if part.code == _CHUNK else [(part.code, body)]
        ):
            if code == _MESSAGE and len(record) >= 22:
                number, time_ns = int.from_bytes(record[:2], "little"), int.from_bytes(record[6:14], "little")
                if number in wanted:
                    found.append((time_ns, part.offset, k, number, record[22:]))
        yield from sorted(found, key=lambda item: item[:3])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def unpacked_chunk(body: bytes) -> tuple[bytes, bool]:
    """What a chunk record holds: its records, as many as can be unpacked, and whether these are all."""
    from binascii import crc32

    if len(body) < 32:
        return b"", False
    size, crc = struct.unpack_from("<QI", body, 16)
    try:
        compression, at = _text(body, 28)
    except (struct.error, UnicodeDecodeError):
        return b"", False
    packed = body[at + 8 :]
    content = packed
    try:
        if compression == "zstd":
            content = _zstd().ZstdDecompressor().decompress(packed)
        elif compression == "lz4":
            from lz4.frame import LZ4FrameDecompressor

            content = LZ4FrameDecompressor().decompress(packed)
    except Exception:  # of whatever kind the library has: nothing of it can be trusted
        return b"", False
    whole = len(content) == size and (not crc or crc32(content) == crc)
    # A part of a chunk is its beginning. As many bytes with another checksum are wrong somewhere.
    return (content if whole or len(content) < size else b""), whole


def records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole records of a part of an MCAP: their code, and what they hold."""
    at = 0
    while at + 9 <= len(content):
        length = int.from_bytes(content[at + 1 : at + 9], "little")
        if at + 9 + length > len(content):
            return
        yield content[at], content[at + 9 : at + 9 + length]
        at += 9 + length


def _text(body: bytes, at: int) -> tuple[str, int]:
    """A text in a record, and where it ends."""
    (length,) = struct.unpack_from("<I", body, at)
    return body[at + 4 : at + 4 + length].decode(), at + 4 + length


# -------------------------------------------------------------------------------------------------------- sqlite3


class SalvagedDatabase:
    """A database of which rows, or pages, cannot be read. Raises ValueError when its list of topics is lost."""

    def __init__(self, path: Path) -> None:
        import sqlite3

        self.losses: list[str] = []
        # Not "immutable", as rosbags opens it: what a recorder that was killed left in its log is read, too.
        self._base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        self._base.text_factory = lambda data: data.decode(errors="replace")
        self._error = sqlite3.Error
        self._base.execute("PRAGMA writable_schema = ON")  # or sqlite refuses a file that is cut off, as a whole
        try:
            self.connections = self._topics()
            rows, lost = self._rows()
        except sqlite3.Error as error:
            self._base.close()
            raise ValueError(f"{error}") from None
        order = np.lexsort((rows[:, 1], rows[:, 0]))
        self._order = rows[order, 1]
        times = rows[order, 0]
        self.metadata = Span(len(times), int(times[0]), int(times[-1]) + 1) if len(times) else Span()
        if lost:
            self.losses.append(f"about {lost} messages lie in damaged pages; {len(rows)} could be read")

    def _topics(self) -> list[Connection]:
        from rosbags.interfaces import Connection, ConnectionExtRosbag2
        from rosbags.rosbag2.metadata import parse_qos
        from rosbags.rosbag2.storage_mcap import Schema, get_msgdef

        def table(name: str) -> list[dict[str, Any]]:
            try:
                cursor = self._base.execute(f"SELECT * FROM {name}")  # a name of ours
                return [dict(zip([c[0] for c in cursor.description], row, strict=True)) for row in cursor]
            except self._error:
                if name == "topics":
                    raise
                return []  # before ROS 2 Iron there is none

        texts = {
            row["topic_type"]: get_msgdef(
                Schema(0, row["topic_type"], row["encoding"], row["encoded_message_definition"])
            )
            for row in table("message_definitions")
        }
        nothing = get_msgdef(None)
        return [
            Connection(
                row["id"],
                row["name"],
                row["type"],
                texts.get(row["type"], nothing),
                row.get("type_description_hash", ""),
                0,
                ConnectionExtRosbag2(row["serialization_format"], parse_qos(row.get("offered_qos_profiles", ""))),
                self,
            )
            for row in table("topics")
        ]

    def _rows(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
        """Time and number of the rows that can be read, and how many cannot."""
        found: list[tuple[int, int]] = []
        counts: Counter[int] = Counter()
        bound = self._last()
        start, lost = 0, 0

        def take(number: int, time_ns: int, topic: int) -> None:
            found.append((time_ns, number))
            counts[topic] += 1

        ended = False
        while not ended:
            try:
                for row in self._base.execute(
                    "SELECT id, timestamp, topic_id FROM messages NOT INDEXED WHERE id >= ? ORDER BY id", (start,)
                ):
                    take(*row)
                    start = row[0] + 1
                break
            except self._error:
                # Row by row past what cannot be read.
                gap, end = 0, bound if bound is not None else start + _GAP
                for number in range(start, end + 1):
                    start = number + 1
                    one = self._row(number)
                    if one is not None:
                        lost += gap
                        take(*one)
                        if gap:
                            break
                    gap += one is None
                else:
                    lost += gap if bound is not None else 0
                    ended = True
        self.connections = [c._replace(msgcount=counts[c.id]) for c in self.connections]
        if bound is None:
            self.losses.append("how many messages are lost at its end cannot be told")
        return np.array(found, np.int64).reshape(-1, 2), lost

    def _row(self, number: int) -> tuple[int, int, int] | None:
        """Number, time and topic of a row; None where it is not there, or cannot be read."""
        try:
            query = "SELECT id, timestamp, topic_id FROM messages WHERE id = ?"
            row: tuple[int, int, int] | None = self._base.execute(query, (number,)).fetchone()
            return row
        except self._error:
            return None

    def _last(self) -> int | None:
        """The largest row number: from the index of times, which may be whole where the table is not."""
        for query in (
            "SELECT max(rowid) FROM (SELECT rowid FROM messages INDEXED BY timestamp_idx WHERE timestamp >= 0)",
            "SELECT max(id) FROM messages",
        ):
            try:
                (number,) = self._base.execute(query).fetchone()
                return int(number or 0)
            except self._error:
                continue
        return None

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages in order of time."""
        wanted = {c.id: c for c in connections}
        lost = 0
        for number in self._order.tolist():
            try:
                topic, time_ns, raw = self._base.execute(
                    "SELECT topic_id, timestamp, data FROM messages WHERE id = ?", (number,)
                ).fetchone()
            except self._error:
                lost += 1
                continue
            if topic in wanted:
                yield wanted[topic], time_ns, raw
        if lost:
            self.losses.append(f"{lost} messages more lie in damaged pages")

    def close(self) -> None:
        """Close the database."""
        self._base.close()


def _zstd() -> Any:
    """Python's module for Zstandard, or the one that rosbags brings."""
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
