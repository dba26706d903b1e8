"""Reads torch checkpoints (``.pth``, ``.pth.tar``) into NumPy arrays, without torch and without running pickle code.

Both of ``torch.save``'s formats: the zip archive (torch >= 1.6) and the older stream of pickles. The unpickler knows
the few globals that tensors need and refuses every other one: a checkpoint from a stranger is data and nothing more.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from radan_ros.networks.architecture import (
    MOBILE_MARK,
    MOBILENET_STEM,
    MOBILENET_WIDTHS,
    RADAN_ENCODER,
    NetworkSpec,
    Shapes,
    State,
    has_presence,
    state_shapes,
)

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_PICKLE = 64 << 20  # bytes; the pickle of a network is its names, a few hundred kB at the most
_MAX_VALUES = 1 << 28  # of one tensor: views can make 1 value look like any number of them
_BFLOAT16 = "bfloat16"
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True)
class Checkpoint:
    """A state dict as it lies in the file.

    Attributes
    ----------
    state : dict of str to array
        Entry name (without DataParallel's ``module.``) to its value, in the file's order. Half precision stays
        float16, bfloat16 becomes float32. The arrays are read-only views.
    path : Path
        The file.
    """

    state: State
    path: Path


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a torch checkpoint: a state dict, or a dictionary with one under ``state_dict``.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Checkpoint

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is truncated, corrupt, no checkpoint, or asks for a Python object other than tensors. The message
        names the file and what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            content = _read_zip(file) if start == b"PK\x03\x04" else _read_legacy(file, path.stat().st_size)
        return Checkpoint(_state_of(content), path)
    except _Refused as error:
        raise ValueError(f"{path}: {error}") from None
    except (MemoryError, RecursionError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: corrupt checkpoint ({type(error).__name__} while it was read)") from None


def architecture_of(state: Mapping[str, Any], path: str | Path = "state dict") -> NetworkSpec:
    """Which network a state dict belongs to, from its names and shapes.

    Parameters
    ----------
    state : mapping of str to array
    path : str or Path
        Named in the error.

    Raises
    ------
    ValueError
        It is none of our networks.
    """
    if any(name.startswith(f"{RADAN_ENCODER}.") for name in state):
        return NetworkSpec("radan")
    if MOBILE_MARK in state:
        return NetworkSpec("radan_mobile")
    if any(name.startswith("dw") and ".conv_dw." in name for name in state):
        # The stem says the width; where it is missing, the last block does.
        for name, base in (("conv1.weight", MOBILENET_STEM), ("dw6.bn_sep.weight", 1024)):
            shape = np.shape(state[name]) if name in state else ()
            if shape and shape[0] / base in MOBILENET_WIDTHS:
                return NetworkSpec("mobilenet_v1", shape[0] / base)
        widths = ", ".join(f"{width:g}" for width in MOBILENET_WIDTHS)
        raise ValueError(f"{path}: a MobileNet-V1 of none of the widths {widths}")
    names = _some(list(state))
    raise ValueError(
        f"{path}: neither RADAN, radan_mobile nor a MobileNet-V1 of 3DDFA: it has {len(state)} entries ({names})"
    )


def check_state(state: Mapping[str, Any], expected_shapes: Shapes, path: str | Path) -> None:
    """Check that a state dict has exactly the expected entries.

    Raises
    ------
    ValueError
        Lists the entries that are missing, unexpected or of the wrong shape: how many, and the first few.
    """
    missing = [name for name in expected_shapes if name not in state]
    unexpected = [name for name in state if name not in expected_shapes]
    wrong = [
        f"{name} is {np.shape(state[name])} instead of {shape}"
        for name, shape in expected_shapes.items()
        if name in state and np.shape(state[name]) != shape
    ]
    labels = {"missing": missing, "unexpected": unexpected, "of the wrong shape": wrong}
    problems = [f"{len(names)} {label}: {_some(names)}" for label, names in labels.items() if names]
    if problems:
        raise ValueError(f"{path}: entries do not fit the network; " + "; ".join(problems))


def network_state(checkpoint: Checkpoint) -> tuple[NetworkSpec, State]:
    """The network that a checkpoint holds, and its weights under the names of `architecture.state_shapes`.

    A head for presence is among them where the checkpoint has one.
    3DDFA_V2's ``fc_param`` becomes ``fc`` and its unused ``fc_lm`` is left out; ``num_batches_tracked``, which torch
    before 0.4.1 did not write, is filled with 0.

    Returns
    -------
    spec : NetworkSpec
    state : dict of float32 arrays (``num_batches_tracked``: int64), in torch's order, writable copies

    Raises
    ------
    ValueError
        The checkpoint is of another network, its entries do not fit, or a weight is not a finite number.
    """
    path = checkpoint.path
    spec = architecture_of(checkpoint.state, path)
    shapes = state_shapes(spec, has_presence(checkpoint.state))
    state = dict(checkpoint.state)
    if spec.name == "mobilenet_v1":
        state = {_fc_name(name): value for name, value in state.items() if not name.startswith("fc_lm.")}
    for name in shapes:
        if name.endswith(".num_batches_tracked"):
            state.setdefault(name, np.zeros((), np.int64))
    check_state(state, shapes, path)
    types = {name: np.int64 if name.endswith(".num_batches_tracked") else np.float32 for name in shapes}
    values: State = {name: np.array(state[name], types[name]) for name in shapes}
    bad = [name for name, value in values.items() if not np.isfinite(value).all()]
    if bad:
        raise ValueError(f"{path}: {len(bad)} entries hold values that are not finite: {_some(bad)}")
    return spec, values


def _fc_name(name: str) -> str:
    return name.replace("fc_param.", "fc.", 1) if name.startswith("fc_param.") else name


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


class _Refused(Exception):
    """What is wrong with the file, without its name."""


class _Storage:
    """A flat run of values that tensors share; its bytes are read after the pickle, and only if a tensor is used."""

    __slots__ = ("count", "dtype", "read")

    def __init__(self, dtype: str, count: int) -> None:
        self.dtype, self.count = dtype, count
        self.read: Callable[[], NDArray[Any]] | None = None


class _Tensor:
    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class _RebuildTensor:
    """Stands for torch._utils._rebuild_tensor_v2; no attribute of it can be set by a pickle."""

    __slots__ = ()

    def __call__(self, storage: object, offset: object, size: object, stride: object, *_: object) -> _Tensor:
        sizes, strides = _counts(size), _counts(stride)
        (first,) = _counts((offset,))
        if not isinstance(storage, _Storage) or len(sizes) != len(strides):
            raise _Refused("corrupt checkpoint (a tensor without a storage)")
        return _Tensor(storage, first, sizes, strides)


class _RebuildParameter:
    """Stands for torch._utils._rebuild_parameter."""

    __slots__ = ()

    def __call__(self, tensor: object, *_: object) -> object:
        return tensor


class _Entries(dict[Any, Any]):
    """Stands for collections.OrderedDict; torch's ``_metadata`` attribute is dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _StorageType:
    """Stands for torch.FloatStorage and so on."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


_GLOBALS: dict[tuple[str, str], type] = {
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor,
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _RebuildParameter,
}


def _counts(values: object) -> tuple[int, ...]:
    """Values as a tuple of non-negative ints: what sizes, strides and offsets must be."""
    if not isinstance(values, tuple) or not all(type(value) is int and 0 <= value < 2**62 for value in values):
        raise _Refused("corrupt checkpoint (a tensor whose size, stride or offset is no count)")
    return values


class _Unpickler(pickle.Unpickler):
    """An unpickler of plain values and tensors: everything else is refused by name."""

    def __init__(self, file: BinaryIO | io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")  # checkpoints written by Python 2
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Entries
        if module in ("torch", "torch.cuda") and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if (module, name) in _GLOBALS:
            return _GLOBALS[module, name]()
        raise _Refused(f"refused: it asks for the Python object {module}.{name}, which no network's weights need")

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            raise _Refused("corrupt checkpoint (a reference that is no storage)")
        (count,) = _counts((pid[4],))
        view = pid[5] if len(pid) > 5 else None
        if view is not None:
            raise _Refused(
                "a checkpoint with views of storages (torch before 0.4): open and save it with a newer torch"
            )
        storage = self.storages.setdefault(str(pid[2]), _Storage(pid[1].dtype, count))
        if (storage.dtype, storage.count) != (pid[1].dtype, count):
            raise _Refused(f"corrupt checkpoint (storage {pid[2]} has two types or sizes)")
        return storage


def _unpickle(unpickler: _Unpickler) -> Any:
    try:
        return unpickler.load()
    except (_Refused, MemoryError, RecursionError, OverflowError):
        raise
    except Exception as error:  # a pickle is a program: a broken one can fail in any way
        raise _Refused(f"truncated or corrupt checkpoint ({_message(error)})") from None


def _message(error: Exception) -> str:
    """An error in one short line: a broken pickle may put anything into it."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _read_zip(file: BinaryIO) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise _Refused(f"truncated or corrupt checkpoint ({_message(error)})") from None


def _read_archive(archive: zipfile.ZipFile) -> Any:
    entries = {info.filename: info for info in archive.infolist()}
    roots = [name[: -len("data.pkl")] for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise _Refused("a zip file, but no torch checkpoint (it has no data.pkl)")
    root = roots[0]
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        # torch stores them as they are; a small file cannot unfold into a large one
        raise _Refused("no torch checkpoint, or a repacked one: its entries are compressed")
    if entries[f"{root}data.pkl"].file_size > _MAX_PICKLE:
        raise _Refused("corrupt checkpoint (its data.pkl is larger than that of any network)")
    order = archive.read(f"{root}byteorder").strip() if f"{root}byteorder" in entries else b"little"
    unpickler = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")))
    content = _unpickle(unpickler)
    for key, storage in unpickler.storages.items():
        info = entries.get(f"{root}data/{key}")
        size = storage.count * _itemsize(storage.dtype)
        if info is None or info.file_size != size:
            found = "it is missing" if info is None else f"it has {info.file_size}"
            raise _Refused(f"truncated or corrupt checkpoint (storage {key} should have {size} bytes, {found})")
        storage.read = _reader(lambda info=info: archive.read(info), storage.dtype, order == b"big")  # type: ignore[misc]
    return _resolve(content)


def _read_legacy(file: BinaryIO, length: int) -> Any:
    try:
        magic = _unpickle(_Unpickler(file))
    except _Refused as error:
        raise _Refused(f"no torch checkpoint: {error}") from None
    if type(magic) is not int or magic != _LEGACY_MAGIC:
        raise _Refused("no torch checkpoint: it does not begin as one")
    protocol, system = _unpickle(_Unpickler(file)), _unpickle(_Unpickler(file))
    if protocol != _LEGACY_PROTOCOL or not isinstance(system, dict):
        raise _Refused(f"corrupt checkpoint, or one of an unknown version ({protocol!r})"[:200])
    big_endian = system.get("little_endian") is False
    unpickler = _Unpickler(file)
    content = _unpickle(unpickler)
    keys = _unpickle(_Unpickler(file))
    if not isinstance(keys, list):
        raise _Refused("corrupt checkpoint (it does not list its storages)")
    for key in keys:
        storage = unpickler.storages.get(str(key))
        if storage is None:
            raise _Refused(f"corrupt checkpoint (a storage {str(key)[:40]!r} that no tensor uses)")
        count = int.from_bytes(file.read(8), "big" if big_endian else "little", signed=True)
        size = storage.count * _itemsize(storage.dtype)
        start = file.tell()
        if count != storage.count or start + size > length:
            raise _Refused(f"truncated or corrupt checkpoint (storage {key} should have {storage.count} values)")

        def read(start: int = start, size: int = size) -> bytes:
            file.seek(start)
            return file.read(size)

        storage.read = _reader(read, storage.dtype, big_endian)
        file.seek(start + size)
    return _resolve(content)


def _itemsize(dtype: str) -> int:
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _reader(read: Callable[[], bytes], dtype: str, big_endian: bool) -> Callable[[], NDArray[Any]]:
    """Make the function that reads a storage, at most once, as native values."""
    cache: list[NDArray[Any]] = []

    def values() -> NDArray[Any]:
        if not cache:
            stored = np.dtype("u2" if dtype == _BFLOAT16 else dtype).newbyteorder(">" if big_endian else "<")
            flat: NDArray[Any] = np.frombuffer(read(), stored)
            if dtype == _BFLOAT16:  # the upper half of a float32
                flat = (flat.astype(np.uint32) << 16).view(np.float32)
            cache.append(flat.astype(flat.dtype.newbyteorder("="), copy=False))
        return cache[0]

    return values


def _resolve(content: Any) -> Any:
    """Find the state dict in a checkpoint's content and turn its tensors into arrays, while the file is open."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise _Refused(f"a torch file, but no checkpoint: it holds a {_kind(content)} instead of a state dict")
    return {name: _array(name, value) if isinstance(value, _Tensor) else value for name, value in content.items()}


def _kind(value: object) -> str:
    return "tensor" if isinstance(value, _Tensor) else type(value).__name__


def _array(name: object, tensor: _Tensor) -> NDArray[Any]:
    storage = tensor.storage
    if storage.read is None:
        raise _Refused(f"truncated or corrupt checkpoint (the values of {name} are not in it)")
    if math.prod(tensor.size) > _MAX_VALUES:
        raise _Refused(f"corrupt checkpoint ({name} claims a size of {tensor.size})")
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    empty = 0 in tensor.size
    if not empty and last >= storage.count:
        raise _Refused(f"corrupt checkpoint ({name} reaches beyond its storage: value {last} of {storage.count})")
    flat = storage.read()
    start = flat[:0] if empty else flat[tensor.offset :]
    steps = tuple(step * flat.itemsize for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(start, tensor.size, steps, writeable=False)


def _state_of(content: dict[Any, Any]) -> State:
    others = [
        str(name) for name, value in content.items() if not (isinstance(name, str) and isinstance(value, np.ndarray))
    ]
    if others or not content:
        raise _Refused(
            f"no state dict: {len(others)} of its {len(content)} entries are no named tensors ({_some(others)})"
        )
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name[len(prefix) :]: value for name, value in content.items()}
