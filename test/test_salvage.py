"""Bags that are damaged byte by byte: what is whole is read, what is not is named, and all of it soon ends."""

from __future__ import annotations

import gc
import sqlite3
import struct
import tracemalloc
from binascii import crc32
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="bags are read with rosbags")

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from radan_ros.tools.bags import Bag, is_bag
from radan_ros.tools.salvage import SalvageReader, records, unpacked_chunk
from radan_ros.tools.sources import SourceError

Message = tuple[str, int, bytes]
START, STEP, COUNT, SIZE = 1_700_000_000_000_000_000, 10_000_000, 20, 300_000
PER_CHUNK = 4  # messages of SIZE: rosbags ends a chunk when it is larger than 2**20 bytes
STORE = get_typestore(Stores.ROS2_JAZZY)
MAGIC = b"\x89MCAP0\r\n"


def _messages(count: int = COUNT, size: int = SIZE) -> list[Message]:
    random = np.random.default_rng(5)
    return [
        (f"/t{k % 2}", START + k * STEP, b"\0\1\0\0" + random.integers(1, 256, size, np.uint8).tobytes())
        for k in range(count)
    ]


def _write(
    folder: Path,
    messages: list[Message],
    plugin: StoragePlugin = StoragePlugin.MCAP,
    mode: CompressionMode = CompressionMode.NONE,
) -> Path:
    """The one data file of a bag."""
    version = 8 if mode == CompressionMode.FILE else 9
    writer = Writer(folder, version=version, storage_plugin=plugin)
    if mode != CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        topics = sorted({topic for topic, _, _ in messages})
        connections = {topic: writer.add_connection(topic, "std_msgs/msg/String", typestore=STORE) for topic in topics}
        for topic, ns, raw in messages:
            writer.write(connections[topic], ns, raw)
    (file,) = (path for path in folder.iterdir() if path.name != "metadata.yaml")
    return file


def _change(file: Path, at: int, new: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(new)


def _cut(file: Path, size: int) -> None:
    with file.open("r+b") as stream:
        stream.truncate(size)


def _read(path: Path) -> tuple[list[Message], list[str]]:
    """What is read, and what is said to be lost: twice the same."""
    bag = Bag(str(path), salvage=True)
    out = []
    for _ in range(2):
        read = [(topic.name, ns, raw) for topic, ns, raw in bag.messages(list(bag.topics.values()))]
        out.append((read, list(bag.losses)))
    assert out[0] == out[1]
    return out[0]


def _chunks(file: Path) -> list[tuple[int, int]]:
    """Where the chunks are, and how long with their heads."""
    content, at, found = file.read_bytes(), len(MAGIC), []
    for code, body in records(content[len(MAGIC) : -len(MAGIC)]):
        if code == 6:
            found.append((at, 9 + len(body)))
        at += 9 + len(body)
    return found


def _without_chunk(messages: list[Message], number: int) -> list[Message]:
    return messages[: number * PER_CHUNK] + messages[(number + 1) * PER_CHUNK :]


# ------------------------------------------------------------------------------------------------------------ MCAP

COMPRESSED = [CompressionMode.NONE, CompressionMode.STORAGE]


@pytest.mark.parametrize("end", ["whole", "cut"])
@pytest.mark.parametrize("mode", COMPRESSED)
def test_zeros_over_the_border_of_two_chunks_cost_only_what_they_cover(
    mode: CompressionMode, end: str, tmp_path: Path
) -> None:
    messages = _messages()
    file = _write(tmp_path / "bag", messages, mode=mode)
    chunks = _chunks(file)
    assert len(chunks) == COUNT // PER_CHUNK
    begin = chunks[2][0]
    _change(file, begin - 90, bytes(602))
    if end == "cut":
        _cut(file, chunks[-1][0] + chunks[-1][1])
    read, losses = _read(file)
    first = 2 * PER_CHUNK  # the message whose head is covered; those behind it can be found where nothing is packed
    inside = [] if mode == CompressionMode.STORAGE else messages[first + 1 : first + PER_CHUNK]
    assert read == messages[:first] + inside + messages[first + PER_CHUNK :]
    assert any(line.split(" are damaged")[0].startswith(f"{file.name}: bytes ") for line in losses)
    assert any("without its index" in line for line in losses) == (end == "cut")
    assert len(_read(file.parent)[0]) == len(read)
    assert f"{COUNT - len(read)} of {COUNT} messages could not be read" in _read(file.parent)[1]


@pytest.mark.parametrize("length", [2**40, 2**62, 2**63, 2**64 - 1, 3 * 10**9, 0, 77])
@pytest.mark.parametrize("mode", COMPRESSED)
@pytest.mark.parametrize("index", [True, False])
def test_a_wrong_length_of_a_chunk_costs_nothing(
    index: bool, mode: CompressionMode, length: int, tmp_path: Path
) -> None:
    messages = _messages(12)
    file = _write(tmp_path / "bag", messages, mode=mode)
    _change(file, _chunks(file)[1][0] + 1, struct.pack("<Q", length))
    if not index:
        _cut(file, file.stat().st_size - 60)
    read, losses = _read(file)
    assert read == messages and losses


def test_a_wrong_length_in_a_chunk_costs_nothing(tmp_path: Path) -> None:
    messages = _messages(12)
    file = _write(tmp_path / "bag", messages, mode=CompressionMode.STORAGE)
    _change(file, _chunks(file)[1][0] + 9 + 32 + len("zstd"), struct.pack("<Q", 2**50))
    for _ in range(2):
        assert _read(file)[0] == messages
        _cut(file, file.stat().st_size - 60)


def test_a_chunk_that_cannot_be_unpacked_costs_itself_and_is_counted(tmp_path: Path) -> None:
    messages = _messages()
    file = _write(tmp_path / "bag", messages, mode=CompressionMode.STORAGE)
    at, length = _chunks(file)[3]
    _change(file, at + length // 2, bytes(100_000))
    read, losses = _read(file)
    assert read == _without_chunk(messages, 3)
    assert losses == [
        f"{file.name}: the chunk at byte {at} is damaged: 0 of its messages could be read (it held {PER_CHUNK})"
    ]


def test_a_wrong_checksum_of_what_is_not_compressed_is_seen(tmp_path: Path) -> None:
    messages = _messages(12)
    file = _write(tmp_path / "bag", messages)
    content = file.read_bytes()
    for at, length in _chunks(file):
        whole = content[at + 9 + 40 : at + length]
        _change(file, at + 9 + 24, struct.pack("<I", crc32(whole)))
    assert _read(file) == (messages, [])
    at, length = _chunks(file)[1]
    _change(file, at + length // 2, b"\0")
    read, losses = _read(file)
    assert read == _without_chunk(messages, 1) and "0 of its messages" in losses[0]


def test_a_wrong_head_in_a_chunk_without_a_checksum_costs_what_is_behind_it(tmp_path: Path) -> None:
    messages = _messages(12)
    file = _write(tmp_path / "bag", messages)
    at, length = _chunks(file)[1]
    third = file.read_bytes().index(messages[PER_CHUNK + 2][2]) - 31
    _change(file, third + 1, struct.pack("<Q", 2**63))
    read, losses = _read(file)
    assert read == messages[: PER_CHUNK + 2] + messages[2 * PER_CHUNK :]
    assert f"2 of its messages could be read (it held {PER_CHUNK})" in losses[0]


def test_a_time_that_is_none_costs_its_message(tmp_path: Path) -> None:
    messages = _messages(12)
    file = _write(tmp_path / "bag", messages)
    place = file.read_bytes().index(messages[5][2]) - 31
    _change(file, place + 9 + 6, b"\xff" * 8)
    for _ in range(2):
        read, losses = _read(file)
        assert read == messages[:5] + messages[6:] and losses
        _cut(file, file.stat().st_size - 60)


def test_what_cannot_be_decoded_costs_its_own_topic(tmp_path: Path) -> None:
    messages = _messages(12)
    file = _write(tmp_path / "bag", messages)
    file.write_bytes(file.read_bytes().replace(b"/t1", b"\xff\xff\xff"))
    read, losses = _read(file)
    assert read == [m for m in messages if m[0] == "/t0"]
    assert any("description of a topic" in line for line in losses)
    assert f"{file.name}: 6 messages are of topics whose names are lost" in losses


def test_topics_of_a_lost_first_chunk_come_from_the_end_of_the_file(tmp_path: Path) -> None:
    messages = _messages()
    file = _write(tmp_path / "bag", messages, mode=CompressionMode.STORAGE)
    at, length = _chunks(file)[0]
    _change(file, at, bytes(length))
    _change(file, file.stat().st_size - 1, b"x")
    assert _read(file)[0] == _without_chunk(messages, 0)


def _without_chunks(file: Path, order: Callable[[list[bytes]], list[bytes]]) -> None:
    """The same messages in an MCAP of neither chunks nor an index."""

    def packed(code: int, body: bytes) -> bytes:
        return struct.pack("<BQ", code, len(body)) + body

    heads: list[bytes] = []
    texts: list[bytes] = []
    messages: list[bytes] = []
    for code, body in records(file.read_bytes()[len(MAGIC) : -len(MAGIC)]):
        if code == 1:
            heads.append(packed(code, body))
        for inner, record in records(unpacked_chunk(body)[0]) if code == 6 else ():
            (messages if inner == 5 else texts).append(packed(inner, record))
    end = packed(15, bytes(4)) + packed(2, bytes(20))
    file.write_bytes(b"".join([MAGIC, *heads, *texts, *order(messages), end, MAGIC]))


def test_messages_outside_of_chunks_are_read_in_order_of_time_and_without_one_reader_each(tmp_path: Path) -> None:
    messages = _messages(5000, 40)
    unknown = struct.pack("<BQH", 5, 22, 77) + bytes(20)  # in a message, like one of no topic of this file
    messages[999] = (*messages[999][:2], messages[999][2] + unknown + unknown)
    file = _write(tmp_path / "bag", messages)
    _without_chunks(file, lambda found: found[1::2] + found[0::2])
    assert _read(file) == (messages, [])
    reader = SalvageReader(file)
    reading = reader.messages(reader.connections)
    next(reading)
    running = [g for g in gc.get_objects() if isinstance(g, Iterator) and "_read" in repr(g)]
    assert len(running) < 10
    reader.close()
    place = file.read_bytes().index(messages[999][2])
    _change(file, place - 31, bytes(31))
    read, losses = _read(file)
    assert read == messages[:999] + messages[1000:] and len(losses) == 1 and "are damaged" in losses[0]


# --------------------------------------------------------------------------------------------------------- sqlite3


def _page_size(base: sqlite3.Connection) -> int:
    return int(base.execute("PRAGMA page_size").fetchone()[0])


def _root(file: Path) -> tuple[int, int]:
    """Where the root page of the table of messages begins, and how long a page is."""
    base = sqlite3.connect(file)
    (root,) = base.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'").fetchone()
    size = _page_size(base)
    base.close()
    return (root - 1) * size, size


def _leaf(file: Path, number: int | None) -> tuple[int, int]:
    """Where the cell of a child page is in the root page, and where the page; None for the last."""
    head, size = _root(file)
    content = file.read_bytes()
    assert content[head] == 5  # an interior page: 12 bytes of head, then the places of its cells
    cell = head + 8 if number is None else head + struct.unpack_from(">H", content, head + 12 + 2 * number)[0]
    return cell, (struct.unpack_from(">I", content, cell)[0] - 1) * size


def _edit(file: Path, *commands: str) -> None:
    base = sqlite3.connect(file)
    for command in commands:
        base.execute(command)
    base.commit()
    base.close()


@pytest.fixture
def base(tmp_path: Path) -> tuple[Path, list[Message]]:
    """A database of 400 messages, ten a page; without its metadata.yaml."""
    messages = _messages(400, 350)
    file = _write(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    return file, messages


def test_a_wrong_key_in_the_tree_of_rows_costs_the_rows_below_it(base: tuple[Path, list[Message]]) -> None:
    file, messages = base
    cell, _ = _leaf(file, 5)
    _change(file, cell + 4, b"\1")
    read, losses = _read(file)
    assert 300 < len(read) < 400 and read == [m for m in messages if m in read]
    assert f"about {400 - len(read)} messages lie in damaged pages" in losses[0]


@pytest.mark.parametrize("column", ["timestamp = 'late'", "data = 7", "topic_id = 'x'", "timestamp = -5"])
def test_a_row_of_another_kind_costs_itself(column: str, base: tuple[Path, list[Message]]) -> None:
    file, messages = base
    _edit(file, f"UPDATE messages SET {column} WHERE id = 6")
    read, losses = _read(file)
    assert read == messages[:5] + messages[6:] and len(losses) == 1 and " 1 " in losses[0].replace(":1 ", ": 1 ")


def test_a_huge_number_of_a_lost_row_is_not_counted_up_to(base: tuple[Path, list[Message]]) -> None:
    file, messages = base
    _edit(file, f"INSERT INTO messages SELECT {2**62}, topic_id, timestamp, data FROM messages WHERE id = 7")
    head, size = _root(file)
    (cells,) = struct.unpack(">H", file.read_bytes()[head + 3 : head + 5])
    for number in (None, cells - 1):
        _change(file, _leaf(file, number)[1], bytes(size))
    read, losses = _read(file)
    assert read == messages[: len(read)] and 380 < len(read) < 400
    assert losses == [f"{file.name}: about {401 - len(read)} messages lie in damaged pages; {len(read)} could be read"]
    _edit(file, "PRAGMA writable_schema = ON", "DELETE FROM sqlite_master WHERE name = 'timestamp_idx'")
    assert _read(file)[0] == read  # also without an index that tells the numbers


def test_rows_of_any_numbers_are_found_where_the_index_of_times_is_damaged(base: tuple[Path, list[Message]]) -> None:
    file, messages = base
    _edit(file, "UPDATE messages SET id = id + 1000000 WHERE id > 200")
    connection = sqlite3.connect(file)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'timestamp_idx'").fetchone()
    connection.close()
    _change(file, (page - 1) * _root(file)[1], bytes(4096))
    assert _read(file) == (messages, [])


def test_a_lost_page_is_counted_where_the_index_of_times_is_lost_too(base: tuple[Path, list[Message]]) -> None:
    file, messages = base
    _change(file, _leaf(file, 5)[1], bytes(4096))
    _edit(file, "PRAGMA writable_schema = ON", "DELETE FROM sqlite_master WHERE name = 'timestamp_idx'")
    read, losses = _read(file)
    assert 380 < len(read) < 400 and read == [m for m in messages if m in read]
    assert f"about {400 - len(read)} messages lie in damaged pages" in losses[0]


@pytest.mark.parametrize("column", ["name = x'ff00ff'", "type = x'07'", "offered_qos_profiles = '- {'"])
def test_a_bad_description_of_a_topic_costs_its_messages(column: str, base: tuple[Path, list[Message]]) -> None:
    file, messages = base
    _edit(file, f"UPDATE topics SET {column} WHERE name = '/t1'")
    read, losses = _read(file)
    assert read == messages[::2] and "description of a topic" in losses[0]
    assert losses[1] == f"{file.name}: 200 messages are of topics whose names are lost"


def test_a_page_that_leads_back_to_its_parent_ends(base: tuple[Path, list[Message]]) -> None:
    file, messages = base
    head, size = _root(file)
    cell, _ = _leaf(file, 5)
    _change(file, cell, struct.pack(">I", head // size + 1))
    read, losses = _read(file)
    assert 300 < len(read) < 400 and set(read) <= set(messages) and losses


def test_a_cut_database_gives_its_beginning(base: tuple[Path, list[Message]]) -> None:
    file, messages = base
    for size in (file.stat().st_size * 3 // 4, file.stat().st_size // 2 // 4096 * 4096):
        _cut(file, size)
        read, losses = _read(file)
        assert read == messages[: len(read)] and len(read) > 100 and losses


def test_a_log_is_read_and_nothing_is_written_beside_the_recording(
    base: tuple[Path, list[Message]], tmp_path: Path
) -> None:
    file, messages = base
    writer = sqlite3.connect(file)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("DELETE FROM messages WHERE id > 399")
    writer.commit()
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.execute("UPDATE messages SET timestamp = timestamp + 1 WHERE id = 399")
    writer.commit()
    left = tmp_path / "left"
    left.mkdir()
    for name in (file.name, f"{file.name}-wal"):
        (left / name).write_bytes((file.parent / name).read_bytes())
    writer.close()
    before = {p.name: p.read_bytes() for p in left.iterdir()}
    left.chmod(0o500)
    read, losses = _read(left)
    left.chmod(0o700)
    assert [m[1] for m in read] == [m[1] for m in messages[:398]] + [messages[398][1] + 1]
    assert any("-wal is beside it" in line for line in losses)
    assert {p.name: p.read_bytes() for p in left.iterdir()} == before


# -------------------------------------------------------------------------------------------------------- unpacking


def test_files_that_are_only_there_compressed_are_a_bag(tmp_path: Path) -> None:
    messages = _messages(4)
    file = _write(tmp_path / "bag", messages, StoragePlugin.SQLITE3, CompressionMode.FILE)
    (file.parent / "metadata.yaml").unlink()
    assert is_bag(str(file)) and is_bag(str(file.parent)) and not is_bag(str(tmp_path))
    assert not is_bag(str(file.with_name("notes.txt.zstd"))) and not is_bag(str(file.with_name("no.db3.zstd")))
    assert _read(file) == (messages, [])
    assert _read(file.parent)[0] == messages


def test_a_bag_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _write(tmp_path / "bag", _messages(4), StoragePlugin.SQLITE3, CompressionMode.FILE)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    bag = Bag(str(file.parent), salvage=True)
    for _ in range(2):
        assert len(list(bag.messages(list(bag.topics.values())))) == 4
        assert len(list(temporary.iterdir())) == 1
    del bag
    gc.collect()
    assert not list(temporary.iterdir())


def _bomb(size: int) -> bytes:
    from radan_ros.tools.salvage import zstd

    packer = zstd().ZstdCompressor()
    return b"".join(packer.compress(bytes(2**20)) for _ in range(size // 2**20)) + packer.flush()


def test_a_bomb_in_a_chunk_unpacks_to_no_more_than_the_chunk_says(tmp_path: Path) -> None:
    bomb = _bomb(300 * 2**20)
    assert len(bomb) < 100_000
    file = _write(tmp_path / "bag", _messages(12), mode=CompressionMode.STORAGE)
    at, length = _chunks(file)[1]
    _change(file, at + 9 + 40 + 4, bomb)
    tracemalloc.start()
    read, losses = _read(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read == _without_chunk(_messages(12), 1) and "is damaged" in losses[0]
    assert peak < 50e6


def test_a_message_that_cannot_be_unpacked_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = _messages(12, 1000)
    file = _write(tmp_path / "bag", messages, StoragePlugin.SQLITE3, CompressionMode.MESSAGE)
    assert _read(file) == (messages, [])
    base = sqlite3.connect(file)
    for number, raw in ((3, _bomb(2 * 2**20)), (7, _bomb(2**20)[:-5])):
        base.execute("UPDATE messages SET data = ? WHERE id = ?", (raw, number))
    base.commit()
    base.close()
    monkeypatch.setattr("radan_ros.tools.salvage._MOST", 2**20)
    read, losses = _read(file)
    assert read == [m for k, m in enumerate(messages) if k not in (2, 6)]
    assert losses == [f"{file.name}: 2 messages of /t0 cannot be unpacked"]


# ------------------------------------------------------------------------------------------------------- any damage

FORMS = [
    (StoragePlugin.MCAP, CompressionMode.NONE),
    (StoragePlugin.MCAP, CompressionMode.STORAGE),
    (StoragePlugin.SQLITE3, CompressionMode.NONE),
    (StoragePlugin.SQLITE3, CompressionMode.FILE),
]


@pytest.mark.parametrize("form", range(len(FORMS)))
def test_whatever_is_changed_reading_ends_and_gives_no_message_twice(form: int, tmp_path: Path) -> None:
    random = np.random.default_rng(form)
    messages = _messages(200, 100)
    file = _write(tmp_path / "bag", messages, *FORMS[form])
    content = file.read_bytes()
    some = 0
    for k in range(25):
        file.write_bytes(content)
        at = int(random.integers(len(content)))
        kind = k % 3
        new = bytes(512) if kind == 0 else random.integers(0, 256, 1 + 7 * (kind == 1), np.uint8).tobytes()
        _change(file, at, new)
        try:
            read, _ = _read(file)
        except SourceError:
            continue
        times = [m[1] for m in read]
        assert times == sorted(times) and len(read) <= len(messages)
        some += len(set(read) & set(messages)) > 100
    _cut(file, 0)
    with pytest.raises(SourceError, match=r"nothing of it can be read: (no such table|the file does not)"):
        _read(file)
    assert some > (5 if FORMS[form][1] == CompressionMode.FILE else 10)
