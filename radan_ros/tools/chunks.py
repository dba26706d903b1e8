"""rosbags' writer of MCAP, its chunks compressed by several threads. The same bytes, however many."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter, PendingChunk

from radan_ros.tools.salvage import zstd

LEVEL = 1  # of Zstandard: 1.5 times as fast as its usual 3, and our topics take 8 % more room
WAITING = 1 << 24  # bytes that are being compressed, but for a chunk that is larger


class ChunkWriter(McapWriter):
    """Writes an MCAP file whose chunks are compressed beside.

    Parameters
    ----------
    path : Path
        Folder of the bag.
    compression : CompressionMode
    pool : Executor, optional
        Without it, all is done in the thread that writes.
    """

    def __init__(self, path: Path, compression: CompressionMode, pool: Executor | None) -> None:
        super().__init__(path, compression)
        self.chunk: PendingChunk
        if compression == CompressionMode.STORAGE:
            self.compressor: Callable[[bytes], bytes] = compress
        else:
            pool = None
        self._pool = pool
        self._waiting: deque[tuple[PendingChunk, Future[bytes]]] = deque()
        self._held = 0

    def close_chunk(self) -> None:
        """Have the chunk compressed, and write those that are."""
        if self._pool is None:
            super().close_chunk()
            return
        size = self.chunk.bio.tell()
        self._waiting.append((self.chunk, self._pool.submit(compress, self.chunk.bio.getvalue())))
        self._held += size
        self.chunk = PendingChunk(2**63 - 1, 0, BytesIO(), defaultdict(list))
        while self._held > max(WAITING, size) or (self._waiting and self._waiting[0][1].done()):
            self._write_next()

    def _write_next(self) -> None:
        following = self.chunk
        chunk, compressed = self._waiting.popleft()
        self._held -= chunk.bio.tell()
        result = compressed.result()
        self.compressor = lambda _: result  # of this chunk, which it now writes
        self.chunk = chunk
        try:
            super().close_chunk()
        finally:
            self.chunk = following

    def close(self, version: int, metadata: str) -> None:
        """Write what is left, and the index."""
        if self._pool is not None and self.chunk.bio.tell():
            self.close_chunk()
        while self._waiting:
            self._write_next()
        super().close(version, metadata)

    def abort(self) -> None:
        """Close the file as it is."""
        while self._waiting:
            self._waiting.popleft()[1].cancel()
        super().abort()


def writer(path: Path, storage: str, pool: Executor | None) -> Any:
    """A writer of a bag in metadata version 8, which Humble and all later ones read; not open yet.

    Version 9, which Jazzy writes, holds the same, but has the quality of service in words, on which Humble gives up.

    Parameters
    ----------
    path : Path
        The bag's folder; must not exist.
    storage : str
        Name of a storage plugin, in lower case.
    pool : Executor, optional
        Compresses chunks of MCAP.
    """
    made = Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()])
    made.STORAGE_PLUGINS = {**Writer.STORAGE_PLUGINS, StoragePlugin.MCAP: partial(ChunkWriter, pool=pool)}
    return made


def compress(content: bytes) -> bytes:
    """A chunk as it is written."""
    return bytes(zstd().compress(content, LEVEL))
