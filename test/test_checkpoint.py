"""Checkpoints are read as torch reads them, without torch and without running anything; bad ones are named."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from radan_ros.networks.architecture import NetworkSpec, seeded_state, state_shapes
from radan_ros.networks.checkpoint import (
    Checkpoint,
    architecture_of,
    check_state,
    load_checkpoint,
    network_state,
)

MAGIC = 0x1950A86A20F9469CFC6C
SMALL = NetworkSpec("mobilenet_v1", 0.25)


@pytest.fixture(params=["zip", "legacy"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """torch.save in either format; returns the path."""
    torch = pytest.importorskip("torch")

    def write(content: Any, name: str = "checkpoint.pth.tar") -> Path:
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=request.param == "zip")
        return tmp_path / name

    return write


def torch_state(state: dict[str, np.ndarray], prefix: str = "") -> Any:
    torch = pytest.importorskip("torch")
    return OrderedDict((prefix + name, torch.tensor(value)) for name, value in state.items())


class Global:
    """Pickled as a reference to module.name, whatever that is."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickled as the call of a global."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class Storage:
    def __init__(self, kind: str, key: str, count: int) -> None:
        self.pid = ("storage", Global("torch", kind), key, "cpu", count)


class HandPickler(pickle._Pickler):  # type: ignore[name-defined, misc]  # the one in Python, which can be extended
    """Writes pickles that torch would write, and ones that it would not."""

    write: Any

    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)  # type: ignore[misc]


def write_by_hand(
    path: Path, content: Any, storages: dict[str, bytes], itemsize: int = 4, file_format: str = "zip"
) -> Path:
    """A checkpoint made without torch, so that also impossible ones can be made."""
    if file_format == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("archive/data.pkl", "w") as file:
                HandPickler(file, 2).dump(content)
            for key, values in storages.items():
                archive.writestr(f"archive/data/{key}", values)
        return path
    with path.open("wb") as file:
        for part in (MAGIC, 1001, {"little_endian": True}, content, list(storages)):
            HandPickler(file, 2).dump(part)
        for values in storages.values():
            file.write(struct.pack("<q", len(values) // itemsize) + values)
    return path


def tensor(storage: Storage, offset: Any, size: Any, stride: Any) -> Call:
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), storage, offset, size, stride, False, {})


def test_every_type_and_layout_round_trips(save: Any) -> None:
    torch = pytest.importorskip("torch")
    grid = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "float": torch.randn(3, 4),
        "double": torch.randn(3, dtype=torch.float64),
        "half": torch.randn(5).half(),
        "long": torch.tensor(7),
        "int": torch.arange(3, dtype=torch.int32),
        "short": torch.arange(3, dtype=torch.int16),
        "char": torch.arange(-3, 3, dtype=torch.int8),
        "byte": torch.arange(3, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "transposed": grid.permute(2, 0, 1),
        "part": grid[1, 1:, ::2],
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }
    state = load_checkpoint(save(tensors)).state
    assert list(state) == list(tensors)
    for name, value in tensors.items():
        expected = value.detach().numpy()
        assert state[name].dtype == expected.dtype and np.array_equal(state[name], expected), name


def test_bfloat16_becomes_the_same_float32(save: Any) -> None:
    torch = pytest.importorskip("torch")
    values = torch.randn(4, 3).bfloat16()
    assert np.array_equal(load_checkpoint(save({"a": values})).state["a"], values.float().numpy())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_prefix_and_wrapper_make_no_difference(save: Any, prefix: str, wrapped: bool) -> None:
    state = seeded_state(SMALL)
    content = torch_state(state, prefix)
    checkpoint = load_checkpoint(save({"epoch": 3, "state_dict": content} if wrapped else content))
    assert list(checkpoint.state) == list(state)
    spec, weights = network_state(checkpoint)
    assert spec == SMALL
    assert all(np.array_equal(weights[name], state[name]) for name in state)


def test_metadata_and_optimizer_state_do_not_disturb(save: Any) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {"state_dict": layer.state_dict(), "optimizer": optimizer.state_dict(), "best": 0.5, "note": "a"}
    state = load_checkpoint(save(content)).state
    assert np.array_equal(state["weight"], layer.weight.detach().numpy())


def test_a_checkpoint_is_read_without_torch(tmp_path: Path) -> None:
    path = write_by_hand(
        tmp_path / "a.pth", {"a": tensor(Storage("FloatStorage", "0", 2), 0, (2,), (1,))}, {"0": b"\0" * 8}
    )
    code = """
import sys
sys.modules["torch"] = None
from radan_ros.networks.checkpoint import load_checkpoint
assert load_checkpoint(sys.argv[1]).state["a"].tolist() == [0, 0]
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)


class Evil:
    """Unpickling it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def test_a_malicious_checkpoint_is_refused_and_not_executed(save: Any, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    path = save({"state_dict": {"a": Evil(target)}})
    with pytest.raises(ValueError, match=rf"{path}: refused.*(posix|nt)\.system"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("part", range(5))
def test_every_pickle_of_the_old_format_is_restricted(tmp_path: Path, part: int) -> None:
    target = tmp_path / "executed"
    parts: list[Any] = [MAGIC, 1001, {"little_endian": True}, {}, []]
    parts[part] = Evil(target)
    path = tmp_path / "a.pth"
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in parts))
    with pytest.raises(ValueError, match="system"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch", "nn.Linear"),
        ("numpy", "load"),
        ("argparse", "Namespace"),
    ],
)
def test_other_globals_are_refused_by_name(tmp_path: Path, module: str, name: str) -> None:
    path = write_by_hand(tmp_path / "a.pth", {"a": Global(module, name)}, {})
    with pytest.raises(ValueError, match=f"{path}: .*{module}.{name}"):
        load_checkpoint(path)


@pytest.mark.parametrize("file_format", ["zip", "legacy"])
@pytest.mark.parametrize(
    "offset, size, stride",
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (5, (1,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (2,), (1, 1)),
        (0, (-2,), (1,)),
        (0, (2**61, 2**61), (0, 0)),
        (0, (0, 2**61), (1, 1)),
        (0, (True,), (1,)),
        (0.0, (2,), (1,)),
        (0, [2], (1,)),
        (2**61, (2,), (2**61,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path: Path, file_format: str, offset: Any, size: Any, stride: Any
) -> None:
    content = {"layer": tensor(Storage("FloatStorage", "0", 4), offset, size, stride)}
    path = write_by_hand(tmp_path / "a.pth", content, {"0": b"\0" * 16}, file_format=file_format)
    with pytest.raises(ValueError, match=f"{path}: .*corrupt"):
        load_checkpoint(path)


@pytest.mark.parametrize("file_format", ["zip", "legacy"])
def test_strides_within_the_storage_are_honoured(tmp_path: Path, file_format: str) -> None:
    values = np.arange(12, dtype="<f4")
    content = {"layer": tensor(Storage("FloatStorage", "0", 12), 1, (3, 2), (2, 5))}
    path = write_by_hand(tmp_path / "a.pth", content, {"0": values.tobytes()}, file_format=file_format)
    assert load_checkpoint(path).state["layer"].tolist() == [[1, 6], [3, 8], [5, 10]]


def test_a_missing_or_short_storage_is_refused(tmp_path: Path) -> None:
    content = {"a": tensor(Storage("FloatStorage", "0", 4), 0, (4,), (1,))}
    for storages in ({}, {"0": b"\0" * 12}):
        with pytest.raises(ValueError, match="storage 0 should have 16 bytes"):
            load_checkpoint(write_by_hand(tmp_path / "a.pth", content, storages))
    with pytest.raises(ValueError, match="should have 4 values"):
        load_checkpoint(write_by_hand(tmp_path / "b.pth", content, {"0": b"\0" * 12}, file_format="legacy"))
    with pytest.raises(ValueError, match="values of a are not in it"):
        load_checkpoint(write_by_hand(tmp_path / "b.pth", content, {}, file_format="legacy"))


def test_every_truncation_is_refused(save: Any) -> None:
    path = save({"state_dict": torch_state(seeded_state(SMALL))})
    whole = path.read_bytes()
    for length in [*range(0, 400, 7), *np.linspace(400, len(whole) - 1, 60).astype(int)]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=str(path)):
            load_checkpoint(path)


def test_flipped_bytes_never_escape_as_another_error(save: Any) -> None:
    path = save({"state_dict": torch_state({"a": np.arange(4, dtype=np.float32), "b": np.ones((2, 3), np.float32)})})
    whole = path.read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for position in range(min(len(whole), 1500)):
        broken = bytearray(whole)
        broken[position] ^= int(random.integers(1, 256))
        path.write_bytes(bytes(broken))
        try:
            load_checkpoint(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(100), b"hello, world\n", bytes(64)])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: no torch checkpoint"):
        load_checkpoint(path)


def test_other_zip_files_and_contents_are_named(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ValueError, match=r"no data\.pkl"):
        load_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(ValueError, match="compressed"):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="holds a list"):
        load_checkpoint(save([1, 2]))
    with pytest.raises(ValueError, match="no state dict: 1 of its 1 entries are no named tensors .epoch"):
        load_checkpoint(save({"epoch": 1}))
    with pytest.raises(FileNotFoundError, match="absent.pth: no such"):
        load_checkpoint(tmp_path / "absent.pth")


def test_the_kind_of_network_is_told_from_its_entries() -> None:
    mobilenets = [NetworkSpec("mobilenet_v1", width) for width in (2, 1, 0.75, 0.5, 0.25)]
    for spec in (NetworkSpec("radan"), NetworkSpec("radan_mobile"), *mobilenets):
        state = {name: np.broadcast_to(np.float32(0), shape) for name, shape in state_shapes(spec).items()}
        assert architecture_of(state) == spec
    with pytest.raises(ValueError, match=r"a\.pth: neither .* 1 entries \(layer1\.0\.conv1\.weight\)"):
        architecture_of({"layer1.0.conv1.weight": np.zeros(3)}, "a.pth")
    odd = {"conv1.weight": np.zeros((20, 3, 3, 3)), "dw2_1.conv_dw.weight": np.zeros((20, 1, 3, 3))}
    with pytest.raises(ValueError, match="none of the widths 2, 1, 0.75, 0.5, 0.25"):
        architecture_of(odd)
    with pytest.raises(ValueError, match="width 0.3"):
        NetworkSpec("mobilenet_v1", 0.3)
    with pytest.raises(ValueError, match="radan_mobile has no width"):
        NetworkSpec("radan_mobile", 0.5)


def test_entries_that_do_not_fit_are_listed() -> None:
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys("abcdefg", (2, 3))
    state = {"a": np.zeros((2, 3)), "b": np.zeros((3, 2)), "x": np.zeros(1)}
    wrong = r"1 of the wrong shape: b is \(3, 2\) instead of \(2, 3\)"
    message = rf"f\.pth: .*5 missing: c, d, e, \.\.\.; 1 unexpected: x; {wrong}"
    with pytest.raises(ValueError, match=message):
        check_state(state, shapes, "f.pth")


def test_old_and_v2_names_are_mapped() -> None:
    state = seeded_state(SMALL)
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    old = {name.replace("fc.", "fc_param."): value for name, value in old.items()}
    old |= {"fc_lm.weight": np.zeros((136, 256), np.float32), "fc_lm.bias": np.zeros(136, np.float32)}
    spec, weights = network_state(Checkpoint(old, Path("old.pth")))
    assert spec == SMALL and list(weights) == list(state)
    assert all(np.array_equal(weights[name], state[name]) for name in state)


def test_weights_that_are_not_finite_are_refused() -> None:
    state = seeded_state(SMALL)
    state["dw3_1.conv_sep.weight"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"a\.pth: 1 entries .*not finite: dw3_1\.conv_sep\.weight"):
        network_state(Checkpoint(state, Path("a.pth")))


def test_the_real_checkpoint_reads_as_torch_reads_it(shared: Path) -> None:
    torch = pytest.importorskip("torch")
    path = shared / "models" / "3ddfa_v2" / "weights" / "mb05_120x120.pth"
    expected = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    state = load_checkpoint(path).state
    assert [f"module.{name}" for name in state] == list(expected)
    assert all(np.array_equal(state[name.removeprefix("module.")], value.numpy()) for name, value in expected.items())
    assert architecture_of(state) == NetworkSpec("mobilenet_v1", 0.5)
