"""Arrays out of pickles: what NumPy writes is read; what it does not write is refused without harm."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radan_ros
from radan_ros.pickles import load_arrays

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(content: bytes, folder: Path) -> Any:
    (folder / "x.pkl").write_bytes(content)
    return load_arrays(folder / "x.pkl")


def same(a: Any, b: Any) -> bool:
    """Equal in type, dtype, shape, memory order and value, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        fortran = a.flags.f_contiguous == b.flags.f_contiguous
        return a.dtype == b.dtype and a.shape == b.shape and fortran and np.array_equal(a, b)
    return bool(a == b)


def read_apart(files: list[Path]) -> list[str]:
    """One line for each file, read in a process of its own: a crash of it is a failed test and not the end of all."""
    program = """if True:
        import sys
        import numpy as np
        from radan_ros.pickles import load_arrays
        def check(value):
            if isinstance(value, dict):
                assert all(type(key) in (str, int) for key in value)
                value = list(value.values())
            if isinstance(value, (list, tuple)):
                for item in value:
                    check(item)
            elif isinstance(value, np.ndarray):
                assert value.dtype.kind in "biuf"
                value.copy()  # touches all of it
            else:
                assert value is None or isinstance(value, (bool, int, float, str, bytes, np.generic)), type(value)
        for path in sys.stdin.read().splitlines():
            try:
                check(load_arrays(path))
            except ValueError as e:
                assert str(e).startswith(path) and len(str(e).splitlines()) == 1, e
                print("refused", str(e))
            else:
                print("read")
    """
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(map(str, files)),
        cwd=Path(radan_ros.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    lines = ran.stdout.splitlines()
    assert len(lines) == len(files)
    return lines


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", ">i2", "i8", "i4", "u1", "u2", "f2", "?"])
def test_arrays_of_every_type_and_order_round_trip(tmp_path: Path, protocol: int, dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, 100, (4, 3, 2)).astype(dtype)
    arrays = [values, np.asfortranarray(values), values[::2, ::-1], values[0, 0, 0], values.T, values[:, :0]]
    arrays += [np.zeros((), dtype), np.zeros(0, dtype), np.zeros((1, 1), dtype)]
    content = {"arrays": arrays, "first": values, "dtype twice": (values[0], values[1])}
    assert same(read(pickle.dumps(content, protocol), tmp_path), content)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_lies_beside_arrays_round_trips(tmp_path: Path, protocol: int) -> None:
    array = np.arange(300.0)
    content = {
        "numbers": [0, -1, 255, 256, 70000, -(2**31), 2**40, -(2**70), 0.5, float("inf"), True, False, None],
        "text": ["", "plain", "naïve\n\\x", "面"],
        "bytes": [b"", b"\x00\xff\n"],
        "nested": {"a": [[], {}, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {1: {2: [array]}}]},
        "shared": [array, array],
        "scalars": [np.float32(0.5), np.int64(-3), np.bool_(True), np.uint8(7)],
        "many": list(range(3000)),
    }
    assert same(read(pickle.dumps(content, protocol), tmp_path), content)


def test_wholly_ordinary_arrays_and_long_ones_are_read(tmp_path: Path) -> None:
    for protocol in PROTOCOLS:
        array = np.random.default_rng(2).normal(size=100_000)  # protocols 4 and 5 put it outside of their frames
        assert same(read(pickle.dumps(array, protocol), tmp_path), array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_names_of_numpy_1_and_2_are_both_read(tmp_path: Path, protocol: int) -> None:
    content = [np.arange(5.0), np.float32(3), np.arange(6).reshape(2, 3)[:, ::2]]
    new = pickle.dumps(content, protocol)
    # Text in protocols 4 and 5 has its length before it, and they have frames: write the other name's length there.
    for module in ("multiarray", "numeric"):
        names = [f"numpy.{core}.{module}".encode() for core in ("core", "_core")]
        for a, b in (names, names[::-1]):
            if protocol >= 4:
                a, b = (b"\x8c" + bytes([len(name)]) + name for name in (a, b))
            assert same(read(new.replace(a, b), tmp_path), content)


def test_text_and_arrays_of_python_2_are_read(tmp_path: Path) -> None:
    python_2 = (  # pickle.dumps({'a': np.arange(3, dtype='u1') + 254}) there, protocol 0
        b"(dp0\nS'a'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n"
        b"(I1\n(L3L\ntp8\ncnumpy\ndtype\np9\n(S'u1'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'|'\np13\nNNNI-1\nI-1\nI0\ntp14\nb"
        b"I00\nS'\\xfe\\xff\\x00'\np15\ntp16\nbs."
    )
    assert same(read(python_2, tmp_path), {"a": np.array([254, 255, 0], np.uint8)})


def test_files_of_3ddfa_are_read_as_by_pickle_itself(shared: Path) -> None:
    files = sorted((shared / "models").rglob("*.pkl"))
    assert len(files) >= 4
    for file in files:
        assert same(load_arrays(file), pickle.loads(file.read_bytes(), encoding="latin1"))


class Call:
    """Pickled as a call, and a state given to what it returns."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.reduced


def forged() -> dict[str, bytes]:
    """Pickles that crash the interpreter, fill the memory or run code with an ordinary or merely restricted reader."""
    reconstruct = np.zeros(1).__reduce__()[0]
    pointers = b"A" * 8
    # The flags of dtype('O') say that it holds references; without them NumPy takes raw bytes for its elements.
    objects = Call(np.dtype, "O", False, True, state=(3, "|", None, None, None, -1, -1, 0))
    of_objects = (1, (1,), objects, False, pointers)
    f8 = np.dtype("f8")
    nested = b"\x80\x02})" + 300_000 * b"\x85" + b"K\x01s."
    # Each list has the one before it twice.
    laughs = (
        b"\x80\x04]\x94" + b"".join(b"](" + 2 * (b"j" + struct.pack("<I", i)) + b"e\x94" for i in range(200)) + b"."
    )
    encode = b"\x80\x02c_codecs\nencode\nq\x00X\xe8\x03\x00\x00" + 1000 * b"a" + b"q\x01"
    encode += b"X\x06\x00\x00\x00latin1q\x02]("
    calls = {
        "objects of raw bytes": Call(np.ndarray, (1,), "O", pointers),
        "cleared flags": Call(reconstruct, np.ndarray, (0,), b"b", state=of_objects),
        "scalar object": Call(np.float64(1).__reduce__()[0], objects, pointers),
        "object array": np.array([None, "a"], dtype=object),
        "structured array": np.zeros(2, [("a", "f4"), ("b", "i8")]),
        "text array": np.array(["a", "bc"]),
        "time array": np.zeros(2, "M8[s]"),
        "complex array": np.zeros(2, complex),
        "made by the class": Call(np.ndarray, (10**6, 10**6), "f8"),
        "larger than its bytes": Call(reconstruct, np.ndarray, (0,), b"b", state=(1, (1000,), f8, False, pointers)),
        "overflowing": Call(reconstruct, np.ndarray, (0,), b"b", state=(1, (2**61, 8), f8, False, b"")),
        "negative": Call(reconstruct, np.ndarray, (0,), b"b", state=(1, (-1, -1), f8, False, pointers)),
        "large": Call(reconstruct, np.ndarray, (10**15,), b"b"),
        "without its state": Call(reconstruct, np.ndarray, (0,), b"b"),
        "a dtype alone": f8,
        "a class alone": np.ndarray,
        "other codec": Call(__import__("_codecs").encode, "a", "rot13"),
        "code": Call(eval, "1"),
        "a set": {1, 2},
        "tuple keys": {(1, 2): 3},
    }
    written = {name: pickle.dumps([value]) for name, value in calls.items()}
    return {
        **written,
        "deep key": nested,
        "deep list": b"\x80\x02" + 300_000 * b"]" + 299_999 * b"a" + b".",
        "in itself": b"\x80\x02]q\x00h\x00a.",
        "far memo": b"\x80\x02Nr\xff\xff\xff\xffj\xff\xff\xff\xfe.",
        "huge bytes": b"\x80\x05\x8e" + struct.pack("<Q", 2**40) + b".",
        "huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
        "huge frame and no more": b"\x80\x05\x95" + struct.pack("<Q", 2**62),
        "encoded again and again": encode + 100 * b"h\x00h\x01h\x02\x86R" + b"e.",
        "many digits": b"L" + 100_000 * b"9" + b"L\n.",
        "persistent": b"Pa\n.",
        "extension": b"\x80\x02\x82\x01.",
        "instance": b"(ios\nsystem\n.",
        "new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
        "state of a class": b"\x80\x02cnumpy\nndarray\n(N}U\x01aK\x01stb.",
        "newlines in names": b"\x80\x04\x8c\x03o\ns\x8c\x04a\nbc\x93.",
        "empty": b"",
        "no value": b".",
        "no mark": b"t.",
        "text": b"mean: 1\n",
        "laughs": laughs,
    }


def test_forged_pickles_are_refused(tmp_path: Path) -> None:
    attacks = forged()
    del attacks["laughs"]  # see below
    files = [tmp_path / f"{i}.pkl" for i in range(len(attacks))]
    for file, content in zip(files, attacks.values(), strict=True):
        file.write_bytes(content)
    answers = dict(zip(attacks, read_apart(files), strict=True))
    assert {name: answer for name, answer in answers.items() if not answer.startswith("refused")} == {}


def test_lists_shared_many_times_over_take_no_time(tmp_path: Path) -> None:
    value = read(forged()["laughs"], tmp_path)
    for _ in range(200):
        assert len(value) == 2 and value[0] is value[1]
        value = value[0]
    assert value == []


def test_damaged_files_give_arrays_or_an_error(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    array = random.normal(size=(3, 4)).astype(np.float32)
    content = {"a": [array, np.asfortranarray(array), np.int64(3), array[:, ::2]], "b": ("text", 1.5, {"c": array > 0})}
    sound = [pickle.dumps(content, protocol) for protocol in PROTOCOLS]
    files = []
    for i in range(2000):
        damaged = bytearray(sound[i % len(sound)])
        for at in random.integers(0, len(damaged), random.integers(1, 5)):
            damaged[at] = random.integers(0, 256)
        if i % 5 == 0:
            del damaged[random.integers(0, len(damaged)) :]
        files.append(tmp_path / f"{i}.pkl")
        files[-1].write_bytes(damaged)
    answers = [answer.split()[0] for answer in read_apart(files)]
    assert answers.count("refused") > 500 and answers.count("read") > 100  # some only change numbers


def test_no_pickled_code_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    for protocol in PROTOCOLS:
        with pytest.raises(ValueError, match=r"x.pkl: .*it refers to"):
            read(pickle.dumps({"u": Call(Path.touch, trap)}, protocol), tmp_path)
        assert not trap.exists()


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "none.pkl")
