"""Depth and colour pictures: right where the answer is known, equal on all back-ends, the reference's in compat."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from radan_ros import rendering
from radan_ros.model import open_face_model
from radan_ros.rendering import Renderer, render
from radan_ros.rendering.compat import reference_depth_and_pncc

Array = npt.NDArray[Any]
HERE = Path(__file__).resolve().parent


# ---------------------------------------------------------------- meshes


def grid_mesh(rows: int, columns: int) -> tuple[Array, Array]:
    """Points (rows * columns, 2) of the unit square as (x, y), and its triangles, with the two windings mixed."""
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    upper = np.stack([corner, corner + 1, corner + columns], 1)
    lower = np.stack([corner + columns, corner + columns + 1, corner + 1], 1)
    return np.stack([x.ravel(), y.ravel()], 1), np.concatenate([upper, lower]).astype(np.int32)


def sphere_mesh(count: int = 120) -> tuple[Array, Array]:
    """A closed unit sphere, (V, 3) and triangles."""
    square, triangles = grid_mesh(count, 2 * count)
    polar, azimuth = square[:, 1] * np.pi, square[:, 0] * 2 * np.pi
    x, y, z = np.sin(polar) * np.cos(azimuth), np.cos(polar), np.sin(polar) * np.sin(azimuth)
    return np.stack([x, y, z], 1), triangles


def random_mesh(seed: int, count: int = 300, scale: float = 60.0) -> tuple[Array, Array, Array]:
    """Vertices, triangles, codes: triangles of all sizes and windings, partly outside a picture of `scale` pixels."""
    random = np.random.default_rng(seed)
    centre = random.uniform(-0.2 * scale, 1.2 * scale, (count, 1, 3))
    corners = centre + random.normal(size=(count, 3, 3)) * random.exponential(0.15 * scale, (count, 1, 1))
    corners[::3] = np.round(corners[::3])  # corners and edges on pixel centres
    codes = random.integers(0, 256, (3 * count, 3)).astype(np.uint8)
    return corners.reshape(-1, 3).astype(np.float32), np.arange(3 * count, dtype=np.int32).reshape(-1, 3), codes


def read_bfm(shared: Path) -> tuple[Array, Array, Array]:
    """The mean face of the Basel model: points (V, 3) y up, z to the viewer; triangles from 0; codes 0..255."""
    from scipy.io import loadmat

    folder = shared / "models" / "3ddfa_v1"
    mean = np.load(folder / "train.configs" / "u_shp.npy") + np.load(folder / "train.configs" / "u_exp.npy")
    triangles = loadmat(folder / "visualize" / "tri.mat")["tri"].T.astype(np.int32) - 1
    codes = np.load(folder / "train.configs" / "pncc_code.npy").T * 255
    return mean.reshape(-1, 3).astype(np.float64), triangles, codes.astype(np.float32)


def builtin_face() -> tuple[Array, Array, Array]:
    """The same of the built-in face model."""
    model = open_face_model("builtin")
    return model.mean.astype(np.float64), model.triangles, model.codes


def place(points: Array, height: float, centre: tuple[float, float], yaw: float = 0.0, depth: float = 1000.0) -> Array:
    """Model points (y up, z to the viewer) turned and put into a picture, `height` pixels high, depth growing away."""
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    middle = (points.max(0) + points.min(0)) / 2
    turned = (points - middle) @ turn.T * (height / np.ptp(points[:, 1]))
    return np.stack([centre[0] + turned[:, 0], centre[1] - turned[:, 1], depth - turned[:, 2]], 1).astype(np.float32)


def white(vertices: Array) -> Array:
    return np.full((len(vertices), 3), 255, np.uint8)


def covered(picture: rendering.Rendering) -> Array:
    return ~np.isnan(picture.depth)


# ---------------------------------------------------------------- known answers


def test_plane_has_the_depth_and_colour_of_its_equation() -> None:
    points, triangles = grid_mesh(40, 50)
    x, y = points[:, 0] * 90 + 4.3, points[:, 1] * 70 + 2.6
    vertices = np.stack([x, y, 2 + 0.01 * x - 0.02 * y], 1).astype(np.float32)
    codes = np.stack([x, y, 100 + x], 1).astype(np.float32)
    picture = render([vertices], triangles, codes, (80, 100))
    v, u = np.mgrid[:80, :100]
    expected = (u >= 4.3) & (u <= 94.3) & (v >= 2.6) & (v <= 72.6)
    assert np.array_equal(covered(picture), expected)
    assert np.abs(picture.depth - (2 + 0.01 * u - 0.02 * v))[expected].max() < 2e-5
    for channel, value in enumerate((u, v, 100 + u)):
        assert np.abs(picture.colour[..., channel].astype(int) - value)[expected].max() <= 1
    assert not picture.colour[~expected].any()


def test_sphere_has_the_depth_of_its_near_side() -> None:
    points, triangles = sphere_mesh()
    vertices = (points * 40 + [60, 50, 500]).astype(np.float32)
    picture = render([vertices], triangles, white(vertices), (100, 120))
    v, u = np.mgrid[:100, :120]
    distance = (u - 60.0) ** 2 + (v - 50.0) ** 2
    inner = distance < 36**2
    assert covered(picture)[inner].all()
    assert not covered(picture)[distance > 40**2].any()
    assert np.abs(picture.depth - (500 - np.sqrt(np.maximum(40.0**2 - distance, 0))))[inner].max() < 0.05


def test_result_has_the_promised_shapes_and_types() -> None:
    vertices, triangles, codes = random_mesh(0)
    picture = render([vertices], triangles, codes, (50, 70))
    assert (picture.depth.shape, picture.depth.dtype) == ((50, 70), np.float32)
    assert (picture.colour.shape, picture.colour.dtype) == ((50, 70, 3), np.uint8)
    without = render([vertices], triangles, codes, (50, 70), colour=False)
    assert np.array_equal(without.depth, picture.depth, equal_nan=True)
    assert without.colour.shape == (0, 0, 3)


def test_nearer_face_wins_whatever_the_order() -> None:
    points, triangles = grid_mesh(12, 12)
    near = np.column_stack([points * 30 + 5.25, np.full(len(points), 1.0)])
    far = np.column_stack([points * 30 + 20.25, np.full(len(points), 2.0)])
    crossing = np.column_stack([points * 40 + 3.25, 0.5 + 2 * points[:, 0]])
    codes = (points[:, [0, 1, 0]] * 255).astype(np.float32)
    faces = [near, far, crossing]
    pictures = [
        render([faces[i] for i in order], triangles, codes, (60, 60)) for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0))
    ]
    for picture in pictures[1:]:
        assert np.array_equal(picture.depth, pictures[0].depth, equal_nan=True)
        assert np.array_equal(picture.colour, pictures[0].colour)
    alone = np.stack([render([face], triangles, codes, (60, 60)).depth for face in faces])
    with np.errstate(all="ignore"):
        assert np.array_equal(np.fmin.reduce(alone), pictures[0].depth, equal_nan=True)


def coverage(vertices: Array, triangles: Array, size: tuple[int, int]) -> Array:
    """How many triangles own each pixel, drawing them one by one."""
    count = np.zeros(size, int)
    for i in range(len(triangles)):
        count += covered(render([vertices], triangles[i : i + 1], white(vertices), size, colour=False))
    return count


def test_shared_edges_leave_no_hole_and_no_pixel_belongs_to_two_triangles() -> None:
    random = np.random.default_rng(1)
    points, triangles = grid_mesh(9, 9)
    for case in range(6):
        if case == 0:
            xy = points * 16 + 2  # every corner, edge and diagonal runs through pixel centres
        else:
            xy = points * random.uniform(15, 25) + random.uniform(0, 8)
            inside = ((points > 0) & (points < 1)).all(1)
            xy[inside] += random.uniform(-0.4, 0.4, (inside.sum(), 2))
        vertices = np.column_stack([xy, np.ones(len(xy))]).astype(np.float32)
        count = coverage(vertices, triangles, (40, 40))
        v, u = np.mgrid[:40, :40]
        snapped = np.round(xy.astype(np.float32) * 4096) / 4096
        low, high = snapped.min(0), snapped.max(0)
        expected = (u >= low[0]) & (u < high[0]) & (v >= low[1]) & (v < high[1])
        assert np.array_equal(count, expected.astype(int))


def test_fan_around_a_pixel_centre_covers_it_once() -> None:
    for spokes in (3, 5, 8, 17):
        angle = np.arange(spokes) * 2 * np.pi / spokes
        rim = np.column_stack([10 + 7 * np.cos(angle), 10 + 7 * np.sin(angle), np.ones(spokes)])
        vertices = np.concatenate([[[10, 10, 1]], rim]).astype(np.float32)
        triangles = np.array([[0, 1 + i, 1 + (i + 1) % spokes] for i in range(spokes)])
        count = coverage(vertices, triangles, (21, 21))
        assert count.max() == 1
        assert count[8:13, 8:13].all()


def test_both_windings_are_drawn_alike() -> None:
    vertices, triangles, codes = random_mesh(2)
    one = render([vertices], triangles, codes, (60, 60))
    other = render([vertices], triangles[:, ::-1], codes, (60, 60))
    assert np.array_equal(covered(one), covered(other))
    assert np.nanmax(np.abs(one.depth - other.depth)) < 1e-4


def brute_force(vertices: Array, triangles: Array, size: tuple[int, int]) -> Array:
    """Depth by exact arithmetic on the snapped corners, triangle by triangle; pixels on an edge are outside."""
    v, u = (part.astype(np.int64) * 4096 for part in np.mgrid[: size[0], : size[1]])
    depth = np.full(size, np.inf)
    snapped = np.round(vertices[:, :2].astype(np.float64) * 4096).astype(np.int64)
    for triangle in triangles:
        (x0, y0), (x1, y1), (x2, y2) = snapped[triangle]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:
            continue
        e0 = (x1 - u) * (y2 - v) - (x2 - u) * (y1 - v)
        e1 = (x2 - u) * (y0 - v) - (x0 - u) * (y2 - v)
        e2 = area - e0 - e1
        inside = np.minimum(np.minimum(e0 * np.sign(area), e1 * np.sign(area)), e2 * np.sign(area)) > 0
        z = (np.stack([e0, e1, e2], -1) @ vertices[triangle, 2].astype(np.float64)) / area
        depth = np.where(inside & (z < depth), z, depth)
    return np.where(np.isinf(depth), np.nan, depth)


@pytest.mark.parametrize("seed", range(4))
def test_triangles_of_all_sizes_agree_with_exact_arithmetic(seed: int) -> None:
    vertices, triangles, codes = random_mesh(10 + seed)
    vertices = vertices + np.array(
        [0.3137, 0.4719, 0], np.float32
    )  # off the pixel centres, where the brute force has no rule
    size = (61, 67)
    picture = render([vertices], triangles, codes, size)
    expected = brute_force(vertices, triangles, size)
    assert np.array_equal(covered(picture), ~np.isnan(expected))
    assert np.nanmax(np.abs(picture.depth - expected)) < 1e-4


def test_mesh_partly_or_wholly_outside_is_cut_at_the_border() -> None:
    vertices, triangles, codes = random_mesh(3)
    whole = render([vertices + np.array([64, 64, 0], np.float32)], triangles, codes, (192, 192))
    cut = render([vertices], triangles, codes, (60, 50))
    assert np.array_equal(covered(cut), covered(whole)[64:124, 64:114])
    assert np.array_equal(cut.colour, whole.colour[64:124, 64:114])
    for shift in ([1000, 0, 0], [0, -1000, 0], [-1000, 1000, 0]):
        assert not covered(render([vertices + np.array(shift, np.float32)], triangles, codes, (60, 50))).any()


def test_huge_triangle_fills_the_picture() -> None:
    for size in (1e3, 1e5, 1e6, 1e7):
        vertices = np.array([[-size, -size, 3], [2 * size, -size, 3], [0, 2 * size, 3]], np.float32)
        picture = render([vertices], [[0, 1, 2]], white(vertices), (40, 50))
        if 2 * size <= 2**24:
            assert (picture.depth == 3).all() and (picture.colour == 255).all()
        else:
            assert not covered(picture).any()


def test_many_triangles_over_the_whole_picture_do_not_overflow_the_lists() -> None:
    count = 300  # 300 * 64 * 64 candidates, many times the room for them
    vertices = np.tile(np.array([[-90, -90, 0], [200, -90, 0], [0, 200, 0]], np.float32), (count, 1))
    vertices[:, 2] = np.repeat(np.arange(count)[::-1] + 1, 3)
    codes = np.repeat(np.arange(count) % 256, 3)[:, None].repeat(3, 1).astype(np.uint8)
    picture = render([vertices], np.arange(3 * count).reshape(-1, 3), codes, (64, 64))
    assert (picture.depth == 1).all() and (picture.colour == (count - 1) % 256).all()


def test_degenerate_triangles_draw_nothing() -> None:
    vertices = np.array([[1, 1, 1], [9, 9, 1], [5, 5, 1], [1, 1, 1], [4, 1, 1]], np.float32)
    picture = render([vertices], [[0, 1, 2], [0, 3, 1], [0, 0, 0], [0, 4, 0]], white(vertices), (12, 12))
    assert not covered(picture).any()


def test_faces_without_a_pixel_and_no_face_at_all_are_empty_pictures() -> None:
    vertices, triangles, codes = random_mesh(4)
    nothing: list[Any] = [[], np.zeros((0, len(vertices), 3), np.float32), np.zeros(0)]
    for faces in nothing:
        picture = render(faces, triangles, codes, (5, 6))
        assert picture.depth.shape == (5, 6) and not covered(picture).any() and not picture.colour.any()
    picture = render([vertices], np.zeros((0, 3), int), codes, (5, 6))
    assert not covered(picture).any()


def test_one_pixel_picture() -> None:
    vertices = np.array([[-1, -1, 7], [2, -1, 7], [-1, 2, 7]], np.float32)
    picture = render([vertices], [[0, 1, 2]], np.full((3, 3), 9, np.uint8), (1, 1))
    assert picture.depth.tolist() == [[7.0]] and picture.colour.tolist() == [[[9, 9, 9]]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_vertex_that_is_not_finite_skips_only_its_triangles(value: float, axis: int) -> None:
    points, triangles = grid_mesh(20, 20)
    vertices = np.column_stack([points * 50 + 3.3, 5 + points[:, 0]])
    bad = 210
    broken = vertices.copy()
    broken[bad, axis] = value
    if axis == 2 and value == 1e30:
        broken[bad, axis] = 1e300  # a depth is usable as long as float32 holds it
    picture = render([broken], triangles, white(vertices), (60, 60))
    expected = render([vertices], triangles[~(triangles == bad).any(1)], white(vertices), (60, 60))
    assert np.array_equal(picture.depth, expected.depth, equal_nan=True)
    assert np.array_equal(picture.colour, expected.colour)


def test_inputs_are_read_only_of_any_layout_and_never_changed() -> None:
    vertices, triangles, codes = random_mesh(5)
    expected = render([vertices], triangles, codes, (60, 60))
    variants: list[tuple[Any, Any, Any]] = [
        ([vertices.astype(np.float64)], triangles.astype(np.int64), codes.astype(np.float32)),
        (vertices[None], triangles.astype(np.uint16), codes.astype(np.float64)),
        ([np.asfortranarray(vertices)], np.asfortranarray(triangles), np.asfortranarray(codes)),
        ([np.repeat(vertices, 2, 0)[::2]], np.repeat(triangles, 2, 1)[:, ::2], np.repeat(codes, 2, 1)[:, ::2]),
        ([vertices.astype(">f4")], triangles.astype(">i4"), codes.astype(">f8")),
        ((vertices,), triangles.tolist(), codes),
    ]
    for faces, some_triangles, some_codes in variants:
        arrays = [a for a in (faces[0], some_triangles, some_codes) if isinstance(a, np.ndarray)]
        before = [a.copy() for a in arrays]
        for a in arrays:
            a.flags.writeable = False
        picture = render(faces, some_triangles, some_codes, (60, 60))
        assert np.array_equal(picture.depth, expected.depth, equal_nan=True)
        assert np.array_equal(picture.colour, expected.colour)
        assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


def test_renderer_gives_new_pictures_and_keeps_its_own_topology() -> None:
    vertices, triangles, codes = random_mesh(6)
    own = triangles.copy()
    renderer = Renderer(own, codes)
    first = renderer.render([vertices], (60, 60))
    kept = first.depth.copy()
    own[:] = 10**6  # would read far outside, were it not a copy
    second = renderer.render([vertices + np.float32(3)], (60, 60))
    assert np.array_equal(first.depth, kept, equal_nan=True)
    assert not np.array_equal(second.depth, kept, equal_nan=True)
    again = renderer.render([vertices], (60, 60))
    assert np.array_equal(again.depth, kept, equal_nan=True)


def test_one_renderer_serves_several_threads() -> None:
    vertices, triangles, codes = random_mesh(7)
    renderer = Renderer(triangles, codes)
    shifts = [np.array([i, 2 * i, 0], np.float32) for i in range(4)]
    expected = [render([vertices + shift], triangles, codes, (80, 80)).depth for shift in shifts]
    wrong = []

    def work(i: int) -> None:
        for _ in range(20):
            if not np.array_equal(renderer.render([vertices + shifts[i]], (80, 80)).depth, expected[i], equal_nan=True):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": [np.zeros((4, 3))]}, r"face 0 must have the shape \(3, 3\), not \(4, 3\)"),
        ({"vertices": [np.zeros((3, 3)), np.zeros((3, 2))]}, r"face 1 must have the shape"),
        ({"vertices": np.zeros((3, 3))}, r"F arrays \(V, 3\)"),
        ({"vertices": [np.full((3, 3), "x")]}, r"face 0 must be real numbers"),
        ({"vertices": [np.zeros((3, 3), complex)]}, r"face 0 must be real numbers"),
        ({"triangles": [[0, 1, 3]]}, r"name vertices 0 to 3, but the codes have the vertices 0 to 2"),
        ({"triangles": [[-1, 1, 2]]}, r"name vertices -1 to 2"),
        ({"triangles": [0, 1, 2]}, r"triangles must have the shape \(T, 3\)"),
        ({"triangles": [[0.0, 1.0, 2.0]]}, r"triangles must be integers"),
        ({"codes": np.zeros((3, 4))}, r"codes must have the shape \(V, 3\), not \(3, 4\)"),
        ({"codes": np.full((3, 3), 256.0)}, r"codes must lie in 0\.\.255"),
        ({"codes": np.full((3, 3), np.nan)}, r"codes must lie in 0\.\.255"),
        ({"codes": np.zeros((3, 3), bool)}, r"codes must be uint8 or floats"),
        ({"size": (0, 5)}, r"size \(height, width\) must lie in 1"),
        ({"size": (5, 70000)}, r"size \(height, width\) must lie in 1"),
        ({"size": (5.0, 5)}, r"size must be two integers"),
        ({"size": 5}, r"size must be two integers"),
        ({"device": "tpu"}, r"device must be 'cpu', 'cuda'"),
        ({"device": "cuda:x"}, r"device must be 'cpu', 'cuda'"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "vertices": [np.zeros((3, 3))],
        "triangles": [[0, 1, 2]],
        "codes": np.zeros((3, 3), np.uint8),
        "size": (4, 4),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        render(**arguments)


def test_rendering_works_where_no_cache_can_be_written(tmp_path: Path) -> None:
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"  # every write to a file fails, as on a full disk
        "from radan_ros import rendering; rendering.warm_up();"
        "p = rendering.render([[[-1, -1, 7], [2, -1, 7], [-1, 2, 7]]], [[0, 1, 2]], [[9] * 3] * 3, (1, 1));"
        "assert p.depth[0, 0] == 7, p"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(HERE.parent)}
    answer = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stderr


# ---------------------------------------------------------------- the GPU kernels, on the CPU and on a GPU


@pytest.fixture(scope="module")
def kernel_on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., rendering.Rendering]:
    """The very source that CuPy compiles, compiled by the C++ compiler and run thread by thread."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not compiler:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("kernel") / "kernel.so"
    source = Path(rendering.__file__).with_name("kernel.cu")
    flags = ["-std=c++11", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(
        [*compiler.split(), *flags, f'-DKERNEL="{source}"', str(HERE / "cuda_on_cpu.cpp"), "-o", str(library)],
        check=True,
    )
    function = ctypes.CDLL(str(library)).draw
    function.restype = None

    def draw(
        faces: list[Array], triangles: Array, codes: Array, size: tuple[int, int], backwards: bool = False
    ) -> rendering.Rendering:
        stacked = np.ascontiguousarray(faces, np.float32).reshape(len(faces), len(codes), 3)
        indices = np.ascontiguousarray(triangles, np.int32)
        colours = np.ascontiguousarray(codes, np.float32)
        keys = np.zeros(size, np.uint64)
        depth = np.zeros(size, np.float32)
        colour = np.ones((*size, 3), np.uint8)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (stacked, indices, colours, keys, depth, colour)]
        numbers = [ctypes.c_int(n) for n in (len(faces), len(codes), len(indices), size[1], size[0], int(backwards))]
        function(*pointers[:3], *numbers, *pointers[3:])
        return rendering.Rendering(depth, colour)

    return draw


def assert_same_pictures(one: rendering.Rendering, other: rendering.Rendering) -> None:
    """The arithmetic is the same, so the pictures are; a compiler is left a few last bits."""
    assert np.mean(covered(one) != covered(other)) < 0.0005
    both = covered(one) & covered(other)
    if both.any():
        assert np.max(np.abs(one.depth - other.depth)[both] / np.maximum(np.abs(one.depth[both]), 1)) < 1e-4
        assert np.abs(one.colour[both].astype(int) - other.colour[both]).max() <= 1
    assert not other.colour[~covered(other)].any()


def scenes() -> dict[str, tuple[list[Array], Array, Array, tuple[int, int]]]:
    """Meshes that need nothing from outside."""
    points, triangles = sphere_mesh(80)
    codes = ((points + 1) * 127.5).astype(np.float32)
    spheres = [points * 40 + [50, 50, 500], points * 25 + [90, 60, 480], points * 300 + [-200, 40, 900]]
    heap = random_mesh(8, 500)
    broken = heap[0].copy()
    broken[::50] = np.nan
    return {
        "spheres": ([s.astype(np.float32) for s in spheres], triangles, codes, (110, 150)),
        "sphere around the camera": ([(points * 40 + [50, 50, 0]).astype(np.float32)], triangles, codes, (101, 99)),
        "heap": ([heap[0]], heap[1], heap[2], (61, 67)),
        "heap with broken vertices": ([broken, heap[0] + np.float32(2)], heap[1], heap[2], (61, 67)),
        "one pixel": (
            [np.array([[-1, -1, 7], [2, -1, 7], [-1, 2, 7]], np.float32)],
            np.array([[0, 1, 2]]),
            np.eye(3) * 255,
            (1, 1),
        ),
        "no face": ([], heap[1], heap[2], (7, 9)),
    }


@pytest.mark.parametrize("name", scenes())
def test_gpu_kernels_compiled_for_the_cpu_draw_the_same(
    name: str, kernel_on_cpu: Callable[..., rendering.Rendering]
) -> None:
    faces, triangles, codes, size = scenes()[name]
    expected = render(faces, triangles, codes, size)
    forwards = kernel_on_cpu(faces, triangles, codes, size)
    assert_same_pictures(expected, forwards)
    backwards = kernel_on_cpu(faces, triangles, codes, size, backwards=True)
    assert np.array_equal(forwards.depth, backwards.depth, equal_nan=True), "the order of the threads shows"
    assert np.array_equal(forwards.colour, backwards.colour), "the order of the threads shows"


def placed_faces(points: Array) -> list[Array]:
    return [
        place(points, 240, (330, 260)),
        place(points, 180, (450, 200), yaw=0.6, depth=1100),
        place(points, 90, (20, 470), -1.2),
    ]


def test_gpu_kernels_compiled_for_the_cpu_draw_the_same_real_faces(
    kernel_on_cpu: Callable[..., rendering.Rendering],
) -> None:
    points, triangles, codes = builtin_face()
    faces = placed_faces(points)
    expected = render(faces, triangles, codes, (480, 640))
    assert covered(expected).sum() > 40_000
    assert_same_pictures(expected, kernel_on_cpu(faces, triangles, codes, (480, 640)))


@functools.cache
def why_no_gpu() -> str | None:
    from radan_ros.rendering.gpu import import_cupy

    try:
        import_cupy()
    except (ImportError, RuntimeError) as error:
        return str(error)
    return None


@pytest.fixture
def cupy() -> Any:
    reason = why_no_gpu()
    if reason:
        pytest.skip(reason)
    import importlib

    return importlib.import_module("cupy")


@pytest.mark.parametrize("name", scenes())
def test_gpu_draws_the_same(name: str, cupy: Any) -> None:
    faces, triangles, codes, size = scenes()[name]
    assert_same_pictures(render(faces, triangles, codes, size), render(faces, triangles, codes, size, device="cuda"))


def test_gpu_keeps_its_buffers_and_takes_arrays_that_lie_there(cupy: Any) -> None:
    faces, triangles, codes, size = scenes()["spheres"]
    renderer = Renderer(triangles, codes, "cuda")
    for count, some_size, with_colour in (
        (3, size, True),
        (1, (30, 40), True),
        (2, (200, 300), False),
        (0, size, True),
    ):
        expected = render(faces[:count], triangles, codes, some_size, colour=with_colour)
        on_gpu = [cupy.asarray(face) for face in faces[:count]]
        for some_faces in (faces[:count], on_gpu, cupy.stack(on_gpu) if on_gpu else on_gpu):
            picture = renderer.render(some_faces, some_size, colour=with_colour)
            assert picture.colour.shape == expected.colour.shape
            assert np.array_equal(covered(picture), covered(expected))
            assert np.allclose(picture.depth, expected.depth, rtol=1e-4, equal_nan=True)


def test_gpu_draws_the_same_real_faces(cupy: Any) -> None:
    points, triangles, codes = builtin_face()
    faces = placed_faces(points)
    assert_same_pictures(
        render(faces, triangles, codes, (480, 640)), render(faces, triangles, codes, (480, 640), device="cuda")
    )


def test_gpu_that_is_not_there_is_a_clear_error() -> None:
    reason = why_no_gpu()
    if reason is None:
        with pytest.raises(RuntimeError, match="no CUDA device 99"):
            render([], np.zeros((0, 3), int), np.zeros((0, 3)), (1, 1), device="cuda:99")
    else:
        with pytest.raises((ImportError, RuntimeError), match="CuPy"):
            render([], np.zeros((0, 3), int), np.zeros((0, 3)), (1, 1), device="cuda")


# ---------------------------------------------------------------- real faces


def test_real_face_is_one_closed_picture_with_its_codes() -> None:
    from scipy.ndimage import label

    points, triangles, codes = builtin_face()
    vertices = place(points, 240, (320, 240))
    picture = render([vertices], triangles, codes, (480, 640))
    inside = covered(picture)
    rows = np.flatnonzero(inside.any(1))
    assert 238 <= rows[-1] - rows[0] + 1 <= 241
    assert label(inside)[1] == 1
    outside = label(~inside)[0]
    holes = (outside != outside[0, 0]) & ~inside
    assert holes.sum() < 50  # the slit of the mouth
    # The code is the place on the mean face, so at a pixel it tells the depth that is there.
    code_z = picture.colour[..., 2][inside] / 255.0
    z = 1 - (picture.depth[inside] - vertices[:, 2].min()) / np.ptp(vertices[:, 2])
    assert np.median(np.abs(code_z - z)) < 0.01


def test_compat_pictures_are_those_of_the_reference(shared: Path) -> None:
    _, triangles, codes = read_bfm(shared)
    with np.load(shared / "expected" / "3ddfa_v1_test1.npz") as file:
        faces = [np.ascontiguousarray(file[f"face{i}_vertices"].T) for i in (0, 1)]
        expected_depth, expected_pncc = file["depth_image"], file["pncc_image"]
    before = [face.copy() for face in faces]
    depth, pncc = reference_depth_and_pncc(faces, triangles, codes, expected_depth.shape)
    assert all(np.array_equal(a, b) for a, b in zip(faces, before, strict=True))
    for got, expected in ((depth, expected_depth), (pncc, np.rint(expected_pncc))):  # as OpenCV writes floats
        ours, theirs = got > 0, expected > 0
        assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.99
        difference = np.abs(got.astype(np.float64) - expected)[ours & theirs]
        assert np.median(difference) <= 1
        assert np.percentile(difference, 99) <= 1
    inside = expected_pncc.any(axis=2)
    assert (pncc == np.rint(expected_pncc))[inside].mean() > 0.999


def test_compat_draws_the_last_face_over_nearer_ones() -> None:
    points, triangles = grid_mesh(5, 5)
    near = np.column_stack([points * 20, 100 + 5 * points[:, 0] + 1])
    far = np.column_stack([points * 20 + 0.25, 1 + points[:, 0]])
    codes = np.full((len(points), 3), 200.0)
    size = (24, 24)
    both, pncc = reference_depth_and_pncc([near, far], triangles, codes, size)
    alone, _ = reference_depth_and_pncc([far], triangles, codes, size)
    assert np.array_equal(both[alone > 0], alone[alone > 0])
    assert both.max() <= 255 and set(np.unique(pncc)) == {0, 200}
    with pytest.raises(ValueError, match="face 0"):
        reference_depth_and_pncc([np.ones((len(points), 3))], triangles, codes, size)
