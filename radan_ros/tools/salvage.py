"""Read what can be read of a rosbag2 whose files are damaged, cut off, or without their metadata.yaml.

An MCAP is read chunk by chunk, from its index where rosbags can read that, or else by a search for its records; a
sqlite3 database row by row. Each loss is a line of text.
"""

from __future__ import annotations

import heapq
import os
import re
import shutil
import sqlite3
import struct
import tempfile
from array import array
from binascii import crc32
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radan_ros.errors import line

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, MessageDefinition

FILES = (".mcap", ".db3")
ZSTD = b"\x28\xb5\x2f\xfd"  # what begins a compressed message or file; no CDR message does
_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _INDEX = 2, 3, 4, 5, 6, 7
_RECORD = re.compile(rb"[\x05\x06].{6}\x00\x00", re.DOTALL)  # how a message or chunk begins, shorter than 2^48 bytes
_BEHIND = b"\x06\x07\x0f"  # what comes behind a chunk: another one, its index, or the end of the data
_PIECE = 2**20  # bytes that are searched at a time, and that messages outside of chunks are read at a time
_MOST = 2**29  # bytes that a message or chunk may unpack to: what is larger is a bomb
_GAP = 100_000  # rows of a database to look for behind one that cannot be read, where nothing tells how many there are
_LAST = 2**63  # no time in ns is so late
Tell = Callable[[str], None]


def is_data_file(path: Path) -> bool:
    """Whether this is the name of a file with messages."""
    return (Path(path.stem) if path.suffix == ".zstd" else path).suffix in FILES


def data_files(folder: Path) -> list[Path]:
    """Files with messages of a bag's folder, by the numbers in their names: 2 comes before 10."""
    found = [path for path in folder.iterdir() if is_data_file(path)]
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
        What could not be read: at opening, and in the last pass over the messages, so far.

    Raises
    ------
    OSError, ValueError
        When nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.losses: list[str] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._files: list[tuple[str, Mcap | Database]] = []
        self._expected: int | None = None
        try:
            for file in self._list(path) if path.is_dir() else [path]:
                self._open_file(file)
            if not self._files:
                raise ValueError("; ".join(self.losses) or f"no {' or '.join(FILES)} file in it")
        except BaseException:
            self.close()
            raise
        self._opening = list(self.losses)
        self.connections = [c for _, storage in self._files for c in storage.connections]
        spans = [storage.metadata for _, storage in self._files]
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
            # Of what stands in its place, the errors of YAML and of Python tell a user nothing.
            reason = line(error) if isinstance(error, OSError) else "it is damaged"
            self.losses.append(f"metadata.yaml cannot be read: {reason}")
            return there
        self.losses += [f"{file.name} is missing" for file in named if file not in there]
        return [file for file in named if file in there]

    def _open_file(self, file: Path) -> None:
        tell = self._teller(file.name)
        try:
            path = self._unpack(file, tell) if file.suffix == ".zstd" else file
            storage = Mcap(path, tell) if path.suffix == ".mcap" else Database(self._settle(path, tell), tell)
        except Exception as error:  # there is no common error for what a damaged file may hold
            tell(f"nothing of it can be read: {line(error)}")
            return
        self._files.append((file.name, storage))

    def _teller(self, name: str) -> Tell:
        return lambda line: self.losses.append(f"{name}: {line}")

    def _place(self, name: str) -> Path:
        """For a file in a temporary folder."""
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="radan_bag_")
        return Path(self._temporary.name) / name

    def _unpack(self, file: Path, tell: Tell) -> Path:
        """A compressed file as a plain one; of one that is cut off, its beginning."""
        target = self._place(file.stem)
        with file.open("rb") as packed, target.open("wb") as plain:
            try:
                shutil.copyfileobj(zstd().open(packed, "rb"), plain)
            except (EOFError, zstd().ZstdError) as error:
                tell(f"damaged: {line(error)}")
        return target

    def _settle(self, file: Path, tell: Tell) -> Path:
        """A copy of a database with what a recorder that was killed left in a log beside it, and without a part of a
        page at its end; itself when it has neither.
        """
        logs = [log for end in ("-wal", "-journal") if (log := file.with_name(file.name + end)).is_file()]
        logs = [log for log in logs if log.stat().st_size]
        with file.open("rb") as stream:
            (page,) = struct.unpack_from(">16xH", stream.read(18).ljust(18, b"\0"))
        size = file.stat().st_size
        cut = size % (65536 if page == 1 else page or 1)
        if not logs and not cut:
            return file
        for log in logs:
            tell(f"it was not closed: {log.name} is beside it")
        for source in (file, *logs):  # sqlite writes beside what it opens, and into it
            shutil.copyfile(source, self._place(source.name))
        copy = self._place(file.name)
        os.truncate(copy, size - cut)  # or sqlite takes the rest of the page for zeros
        with suppress(sqlite3.Error), closing(sqlite3.connect(copy)) as base:
            base.execute("PRAGMA journal_mode = DELETE")  # takes the log over
        return copy

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages of some connections: connection, time in ns, CDR bytes. File by file, each in order of time."""
        self.losses[:] = self._opening
        for name, storage in self._files:
            chosen = [c for c in storage.connections if any(c is wanted for wanted in connections)]
            if not chosen:
                continue
            tell = self._teller(name)
            bad: Counter[str] = Counter()
            for connection, time_ns, raw in storage.messages(chosen, tell):
                plain = unpacked(raw) if raw.startswith(ZSTD) else raw
                if plain is None:
                    bad[connection.topic] += 1
                else:
                    yield connection, time_ns, plain
            for topic, count in bad.items():
                tell(f"{count} messages of {topic} cannot be unpacked")

    def missing(self, read: int) -> None:
        """Tell how many messages were `read` in all, once all were."""
        if self._expected is not None and read < self._expected:
            self.losses.append(f"{self._expected - read} of {self._expected} messages could not be read")

    def close(self) -> None:
        """Close all files."""
        for _, storage in self._files:
            storage.close()
        self._files = []
        if self._temporary is not None:
            self._temporary.cleanup()


@dataclass
class Span:
    """How many messages a file holds, and their times in ns (one past the last)."""

    message_count: int = 0
    start_time: int = 0
    end_time: int = 0


# ---------------------------------------------------------------------------------------------------------- MCAP


@dataclass
class _Part:
    """Records of an MCAP that are read together: a chunk, or neighbours outside of chunks."""

    begin: int  # not after its first message, ns
    offset: int  # in the file: of the chunk's record, or of the first record
    length: int  # of all, bytes
    chunk: bool
    held: int | None = None  # messages, as far as an index tells


class Mcap:
    """An MCAP of which records may be damaged, or the end with the index may be missing.

    The index is believed where all chunks begin where it says. Otherwise, all that has the form of a record is read,
    and damaged bytes are skipped up to the next chunk or message.

    Parameters
    ----------
    path : Path
        Of the file.
    tell : callable
        Takes a line on each loss.

    Attributes
    ----------
    connections : list of Connection
        One for each channel.
    metadata : Span
        Of the messages that can be read; as the index has it where there is one.

    Raises
    ------
    ValueError
        When it is no MCAP.
    """

    def __init__(self, path: Path, tell: Tell) -> None:
        self.connections: list[Connection] = []
        self.metadata = Span()
        self._parts: list[_Part] = []
        self._file = path.open("rb")
        self._size = path.stat().st_size
        if self._bytes(0, len(_MAGIC)) != _MAGIC:
            self._file.close()
            raise ValueError("the file does not begin as an MCAP does")
        try:
            self._read_index(path)
        except Exception as error:  # whatever rosbags says to what a damaged index may hold
            if _Scan(self, tell).run() and not isinstance(error, _NoIndexError):
                tell(f"its index does not help: {line(error)}")

    def _read_index(self, path: Path) -> None:
        """Topics and places of chunks."""
        from rosbags.rosbag2.storage_mcap import McapReader

        class Indexed(McapReader):
            def meta_scan(self) -> None:
                raise _NoIndexError  # its scan stops at the first damage

        reader = Indexed(path)
        reader.open()
        with closing(reader):
            told = reader.metadata
            for c in reader.chunks:
                held = sum(c.channel_count.values())
                self._parts.append(_Part(c.message_start_time, c.chunk_start_offset, c.chunk_length, True, held))
            connections = [c._replace(owner=self) for c in reader.connections]
        if told.message_count != sum(part.held or 0 for part in self._parts):
            raise _NoIndexError  # messages outside of chunks, which it does not have
        for part in self._parts:
            if self._bytes(part.offset, 9) != struct.pack("<BQ", _CHUNK, part.length - 9):
                raise ValueError(f"there is no chunk at byte {part.offset}")
        self.connections = connections
        if told.message_count:
            self.metadata = Span(told.message_count, told.start_time, told.end_time)

    def _bytes(self, at: int, length: int) -> bytes:
        self._file.seek(min(at, self._size))
        return self._file.read(max(0, min(length, self._size - at)))

    def messages(self, connections: Collection[Connection], tell: Tell) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages in order of time."""
        wanted = {c.id: c for c in connections}
        # As rosbags sorts them: by time, then by the place of the chunk, then by the place in it.
        for time_ns, _, k, number, raw in heapq.merge(*(self._read(part, wanted, tell) for part in self._parts)):
            if k >= 0:
                yield wanted[number], time_ns, raw

    def _read(self, part: _Part, wanted: Collection[int], tell: Tell) -> Iterator[tuple[int, int, int, int, bytes]]:
        yield part.begin, part.offset, -1, 0, b""  # merging opens the chunk only when its time has come
        content, whole = self._bytes(part.offset, part.length), True
        if part.chunk:
            content, whole = unpacked_chunk(content[9:])
        found, count = [], 0
        for k, (code, record) in enumerate(records(content)):
            if code == _MESSAGE and len(record) >= 22:
                number, time_ns = int.from_bytes(record[:2], "little"), int.from_bytes(record[6:14], "little")
                count += time_ns < _LAST
                if number in wanted and time_ns < _LAST:
                    found.append((time_ns, part.offset, k, number, record[22:]))
        if not whole or count < (part.held or 0):
            held = "" if part.held is None else f" (it held {part.held})"
            tell(f"the chunk at byte {part.offset} is damaged: {count} of its messages could be read{held}")
        yield from sorted(found, key=lambda item: item[:3])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _NoIndexError(Exception):
    """An MCAP without an index, which is no damage."""


class _Scan:
    """The search for the records of an MCAP."""

    def __init__(self, file: Mcap, tell: Tell) -> None:
        self._mcap, self._tell, self._bytes, self._size = file, tell, file._bytes, file._size
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, Connection] = {}
        self._counts: Counter[int] = Counter()
        self._span = Span(0, _LAST, 0)

    def run(self) -> bool:
        """Find all; returns whether the file is there to its end."""
        parts: list[_Part] = []
        at, ended = len(_MAGIC), False
        while at < self._size and not ended:
            length = self._extent(at)
            if length is None:
                skipped, at = at, self._next(at + 1)
                if at < self._size:
                    self._tell(f"bytes {skipped} to {at} are damaged")
                continue
            code = self._bytes(at, 1)[0]
            if code == _CHUNK:
                body = self._bytes(at + 9, length)
                times = [t for inner in records(unpacked_chunk(body)[0]) if (t := self._note(*inner)) is not None]
                parts.append(_Part(min(times, default=0), at, 9 + length, True))
            elif code == _INDEX:
                if parts and parts[-1].chunk:
                    parts[-1].held = (parts[-1].held or 0) + int.from_bytes(self._bytes(at + 11, 4), "little") // 16
            elif code in (_SCHEMA, _CHANNEL, _MESSAGE):
                time_ns = self._note(code, self._bytes(at + 9, 22 if code == _MESSAGE else length))
                if time_ns is not None:
                    self._join(parts, _Part(time_ns, at, 9 + length, False))
            ended = code == _FOOTER
            at += 9 + length
        if not ended:
            self._tell(
                f"it ends at byte {self._size} without its index; {self._span.message_count} messages are before"
            )
        unknown = sum(count for number, count in self._counts.items() if number not in self._channels)
        if unknown:
            self._tell(f"{unknown} messages are of topics whose names are lost")
        file = self._mcap
        file._parts = parts
        file.connections = [c._replace(msgcount=self._counts[c.id]) for c in self._channels.values()]
        if self._span.message_count:
            file.metadata = self._span
        return ended

    @staticmethod
    def _join(parts: list[_Part], part: _Part) -> None:
        """Put a message to its neighbours."""
        last = parts[-1] if parts else None
        if last and not last.chunk and last.offset + last.length == part.offset and last.length < _PIECE:
            last.begin, last.length = min(last.begin, part.begin), last.length + part.length
        else:
            parts.append(part)

    def _extent(self, at: int) -> int | None:
        """Length of the record at a place, bytes behind its head of 9; None where there is none."""
        head = self._bytes(at, 9)
        length = int.from_bytes(head[1:], "little")
        fits = length <= self._size - at - 9
        if len(head) < 9 or not 1 <= head[0] < 128 or (head[0] == _MESSAGE and length < 22):
            return None
        if head[0] != _CHUNK:
            return length if fits else None
        inner = _chunk_length(self._bytes(at + 9, 64))
        if inner == length:
            return min(length, self._size - at - 9)  # also of one that is cut off
        # One of the two is wrong: the other one leads to a record.
        for either in (length, inner):
            if either is not None and either <= self._size - at - 9 and self._bytes(at + 9 + either, 1) in _BEHIND:
                return either
        return None

    def _next(self, at: int) -> int:
        """Where the next chunk or message of a known form begins; the size of the file where none does."""
        while at < self._size:
            piece, place = self._bytes(at, _PIECE + 8), 0
            while found := _RECORD.search(piece, place):
                if self._is_record(at + found.start()):
                    return at + found.start()
                place = found.start() + 1
            at += _PIECE
        return self._size

    def _is_record(self, at: int) -> bool:
        length = self._extent(at)
        if length is None:
            return False
        if self._bytes(at, 1)[0] == _CHUNK:
            return _chunk_length(self._bytes(at + 9, 64)) is not None
        # A message: of a channel, and with another record behind it.
        behind = at + 9 + length
        known = not self._channels or int.from_bytes(self._bytes(at + 9, 2), "little") in self._channels
        return known and (behind == self._size or self._extent(behind) is not None)

    def _note(self, code: int, body: bytes) -> int | None:
        """Remember what a record says: the time of a message."""
        if code == _MESSAGE and len(body) >= 22:
            time_ns = int.from_bytes(body[6:14], "little")
            if time_ns >= _LAST:
                return None
            span = self._span
            self._counts[int.from_bytes(body[:2], "little")] += 1
            self._span = Span(span.message_count + 1, min(span.start_time, time_ns), max(span.end_time, time_ns + 1))
            return time_ns
        try:
            if code == _SCHEMA:
                name, at = _text(body, 2)
                encoding, at = _text(body, at)
                self._schemas[int.from_bytes(body[:2], "little")] = (name, encoding, _text(body, at)[0])
            elif code == _CHANNEL:
                self._channel(body)
        except Exception as error:  # text that is none, or what rosbags says to a QoS profile
            self._tell(f"the description of a topic cannot be read: {line(error)}")
        return None

    def _channel(self, body: bytes) -> None:
        from rosbags.interfaces import Connection, ConnectionExtRosbag2
        from rosbags.rosbag2.storage_mcap import Schema, get_msgdef, get_qos

        number, schema = struct.unpack_from("<HH", body)
        if number in self._channels or schema not in self._schemas:
            return
        topic, at = _text(body, 4)
        form, at = _text(body, at)
        extra = ConnectionExtRosbag2(form, get_qos(body[at + 4 :]))
        name, encoding, text = self._schemas[schema]
        definition = get_msgdef(Schema(schema, name, encoding, text))
        self._channels[number] = Connection(number, topic, name, definition, "", 0, extra, self._mcap)


def _chunk_length(body: bytes) -> int | None:
    """Length of a chunk's record by what is in it; None when it has not the form of one."""
    try:
        compression, at = _text(body, 28)
        (packed,) = struct.unpack_from("<Q", body, at)
    except (struct.error, UnicodeDecodeError):
        return None
    return at + 8 + int(packed) if compression in ("", "lz4", "zstd") else None


def unpacked_chunk(body: bytes) -> tuple[bytes, bool]:
    """What a chunk record holds: its records, as many as can be unpacked, and whether these are all."""
    if _chunk_length(body) is None:
        return b"", False
    size, crc = struct.unpack_from("<QI", body, 16)
    compression, at = _text(body, 28)
    packed = body[at + 8 :]
    content = packed
    try:
        if compression == "zstd":
            content = zstd().ZstdDecompressor().decompress(packed, min(size + 1, _MOST))
        elif compression == "lz4":
            from lz4.frame import LZ4FrameDecompressor

            content = LZ4FrameDecompressor().decompress(packed, min(size + 1, _MOST))
    except Exception:  # of whatever kind the library has: nothing of it can be trusted
        return b"", False
    whole = len(content) == size and (not crc or crc32(content) == crc)
    # A part of a chunk is its beginning. As many bytes with another checksum are wrong somewhere.
    return (content if whole or len(content) < size else b""), whole


def unpacked(raw: bytes) -> bytes | None:
    """A compressed message as it was; None when it is damaged, or larger than any message is."""
    unpacker = zstd().ZstdDecompressor()
    try:
        plain: bytes = unpacker.decompress(raw, _MOST)
    except zstd().ZstdError:
        return None
    return plain if unpacker.eof else None


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
    if at + 4 + length > len(body):
        raise struct.error("a text is cut off")
    return body[at + 4 : at + 4 + length].decode(), at + 4 + length


# -------------------------------------------------------------------------------------------------------- sqlite3


class Database:
    """A database of which rows, or pages, may be damaged.

    Every row is looked for by its number, which the index of times tells.

    Parameters
    ----------
    path : Path
        Of the file, without a log beside it: nothing is written.
    tell : callable
        Takes a line on each loss.

    Attributes
    ----------
    connections : list of Connection
        One for each topic.
    metadata : Span
        Of the messages that can be read.

    Raises
    ------
    ValueError
        When its list of topics is lost.
    """

    def __init__(self, path: Path, tell: Tell) -> None:
        self._size = path.stat().st_size
        # Messages may be read in another thread than this one, one at a time.
        self._base = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True, check_same_thread=False)
        self._base.text_factory = lambda data: data.decode(errors="replace")
        try:
            self._base.execute("PRAGMA writable_schema = ON")  # or sqlite refuses a file that is cut off, as a whole
            self.connections = self._topics(tell)
        except sqlite3.Error as error:
            self._base.close()
            raise ValueError(f"{error}") from None
        rows = self._rows(tell)
        counts = Counter(rows[:, 2].tolist())
        unknown = len(rows) - sum(counts[c.id] for c in self.connections)
        if unknown:
            tell(f"{unknown} messages are of topics whose names are lost")
        self.connections = [c._replace(msgcount=counts[c.id]) for c in self.connections]
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        self._order = rows[:, 1]
        self.metadata = Span(len(rows), int(rows[0, 0]), int(rows[-1, 0]) + 1) if len(rows) else Span()

    def _topics(self, tell: Tell) -> list[Connection]:
        from rosbags.interfaces import Connection, ConnectionExtRosbag2
        from rosbags.rosbag2.metadata import parse_qos
        from rosbags.rosbag2.storage_mcap import Schema, get_msgdef

        def table(name: str) -> list[dict[str, Any]]:
            try:
                cursor = self._base.execute(f"SELECT * FROM {name}")  # a name of ours
                return [dict(zip([c[0] for c in cursor.description], row, strict=True)) for row in cursor]
            except sqlite3.Error:
                if name == "topics":
                    raise
                return []  # before ROS 2 Iron there is none

        def definition(row: dict[str, Any]) -> None:
            schema = Schema(0, row["topic_type"], row["encoding"], row["encoded_message_definition"])
            texts[row["topic_type"]] = get_msgdef(schema)

        def topic(row: dict[str, Any]) -> None:
            extra = ConnectionExtRosbag2(row["serialization_format"], parse_qos(row.get("offered_qos_profiles", "")))
            number, name, kind, digest = row["id"], row["name"], row["type"], row.get("type_description_hash", "")
            if not all(isinstance(text, str) for text in (name, kind, digest)):
                raise ValueError("it is no text")
            found.append(Connection(number, name, kind, texts.get(kind, nothing), digest, 0, extra, self))

        found: list[Connection] = []
        texts: dict[str, MessageDefinition] = {}
        nothing = get_msgdef(None)
        for name, take in (("message_definitions", definition), ("topics", topic)):
            for row in table(name):
                try:
                    take(row)
                except Exception as error:  # whatever rosbags says to what a damaged row may hold
                    tell(f"the description of a topic cannot be read: {line(error)}")
        return found

    def _rows(self, tell: Tell) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Time, number and topic of the rows that can be read, (N, 3)."""
        numbers, end = self._numbers(), self._one("SELECT coalesce(max(id), 0) + 1 FROM messages")
        begin = self._one("SELECT min(id) FROM messages") or 1
        found, lost = array("q"), 0
        gap, failed = 0, 0  # rows behind the last one found
        for number in range(begin, end or _LAST) if numbers is None else numbers:
            row, there = self._row("timestamp, id, topic_id", number)
            if row is not None and all(isinstance(value, int) for value in row) and row[0] >= 0:
                found.extend(row)
                lost, gap, failed = lost + failed, 0, 0
                continue
            gap += 1
            failed += there or numbers is not None
            if numbers is None and gap > _GAP:
                break
        if numbers is not None or (end is not None and gap <= _GAP):
            lost += failed
        else:
            tell("how many messages are lost at its end cannot be told")
        if lost:
            tell(f"about {lost} messages lie in damaged pages; {len(found) // 3} could be read")
        return np.array(found, np.int64).reshape(-1, 3)

    def _numbers(self) -> list[int] | None:
        """Numbers of all rows: of the index of times, and of the table; None when neither can be read to its end."""
        numbers, whole = array("q"), False
        for source in ("INDEXED BY timestamp_idx", "NOT INDEXED"):
            with suppress(sqlite3.Error):
                cursor = self._base.execute(f"SELECT id FROM messages {source}")
                for (number,) in islice(cursor, self._size // 8):  # more do not fit: pages that lead back
                    numbers.append(number)
                whole = True
        return np.unique(np.array(numbers, np.int64)).tolist() if whole else None

    def _one(self, query: str) -> int | None:
        try:
            number: int | None = self._base.execute(query).fetchone()[0]
            return number
        except sqlite3.Error:
            return None

    def _row(self, columns: str, number: int) -> tuple[tuple[Any, ...] | None, bool]:
        """A row, None where it cannot be read; and whether there is one."""
        try:
            row = self._base.execute(f"SELECT {columns} FROM messages WHERE id = ?", (number,)).fetchone()
            return row, row is not None
        except sqlite3.Error:
            return None, True

    def messages(self, connections: Collection[Connection], tell: Tell) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages in order of time."""
        wanted = {c.id: c for c in connections}
        lost = 0
        for number in self._order.tolist():
            row, _ = self._row("topic_id, timestamp, data", number)
            if row is None or not isinstance(row[2], bytes):
                lost += 1
            elif row[0] in wanted:
                yield wanted[row[0]], row[1], row[2]
        if lost:
            tell(f"messages that lie in damaged pages: {lost} more")

    def close(self) -> None:
        """Close the database."""
        self._base.close()


@cache
def zstd() -> Any:
    """Python's module for Zstandard, or the one that rosbags brings."""
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd
