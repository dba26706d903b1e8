"""What the tests share: reference data where it is present, models made from it, and small ones of our own."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from radan_ros import Model, open_model
from radan_ros.face_models import FaceModel, write_face_model

# In the background of a script Ctrl-C is ignored, and the programs that are started here would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"
# Landmarks of the fixture `astronaut`, marked by hand in the enlarged picture: x, y in pixels.
ASTRONAUT_MARKS = {
    8: (223.5, 177.5),  # chin
    30: (223, 127.5),  # tip of the nose
    36: (194, 101.5),  # corners of the eye on the subject's right
    39: (213, 103.5),
    42: (236.5, 104.5),  # corners of the eye on the subject's left
    45: (257.5, 103),
    48: (202.5, 139.5),  # corners of the mouth
    54: (245, 140.5),
    51: (223.5, 138.5),  # middle of the upper lip, of the lower lip
    57: (222.5, 154),
}
ASTRONAUT_BOX = (181, 79, 273, 171)  # as dlib finds it


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the reference data."""
    if not (SHARED / "README.md").is_file():
        pytest.skip("the reference data of ../shared is not here")
    return SHARED


@pytest.fixture(scope="module")
def benchmark(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The program in `benchmark` that is named as the file of tests is."""
    path = Path(__file__).resolve().parents[1] / "benchmark" / request.path.name.removeprefix("test_")
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="session")
def dense_models(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the dense stand-ins of 3DDFA's and 3DDFA_V2's face models, in their own formats."""
    out = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, shared / "models" / "make_dense_basis.py", out], check=True)
    return out


@pytest.fixture(scope="session")
def model_folder(dense_models: Path) -> Path:
    """3DDFA's layout (no network in it)."""
    return dense_models / "3ddfa_v1"


@pytest.fixture(scope="session")
def model_folder_v2(dense_models: Path) -> Path:
    """3DDFA_V2's layout, with its trained network."""
    return dense_models / "3ddfa_v2"


@pytest.fixture(scope="session")
def builtin() -> Model:
    """The model that comes with the package."""
    return open_model(device="cpu", threads=1)


@pytest.fixture(scope="session")
def small_face() -> FaceModel:
    """A face model without reference data: a half ellipsoid of head size, random smooth modes, 68 spread landmarks."""
    random = np.random.default_rng(7)
    u, v = np.meshgrid(np.linspace(-1.2, 1.2, 25), np.linspace(-1.2, 1.2, 31))
    points = np.stack([75 * np.sin(u) * np.cos(v), 100 * np.sin(v), 70 * np.cos(u) * np.cos(v)], axis=-1)
    mean = points.reshape(-1, 3).astype(np.float32)
    corner = (np.arange(30)[:, None] * 25 + np.arange(24)).ravel()
    triangles = np.concatenate([
        np.stack([corner, corner + 1, corner + 26], axis=1), np.stack([corner, corner + 26, corner + 25], axis=1)
    ])  # fmt: skip
    waves = random.normal(size=(50, 3, 3)) / 60
    modes = np.stack([np.sin(mean @ w.T) for w in waves], axis=-1).astype(np.float32)
    return FaceModel(
        name="half_ellipsoid",
        mean=mean,
        shape_basis=modes[..., :40],
        expression_basis=modes[..., 40:],
        triangles=triangles.astype(np.int32),
        landmarks=np.linspace(0, len(mean) - 1, 68).astype(np.int32),
        codes=((mean - mean.min(0)) / np.ptp(mean, axis=0) * 255).astype(np.float32),
        unit=1e-3,
    )


def frontal_parameters(face_model: FaceModel) -> np.ndarray:
    """Parameters (62,) of a frontal face in the middle of the crop, as large as following a face crops it."""
    points = face_model.mean[face_model.landmarks]
    scale = 120 / np.sqrt(2) / np.ptp(points, axis=0).max()
    x, y = 60.5 - scale * (points.max(axis=0) + points.min(axis=0))[:2] / 2
    parameters = np.zeros(62, np.float32)
    parameters[:12] = [scale, 0, 0, x, 0, scale, 0, y, 0, 0, scale, 0]
    return parameters


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """scikit-image's public-domain portrait, 512x512 BGR, one face."""
    data = pytest.importorskip("skimage.data", reason="the picture comes with scikit-image")
    return np.ascontiguousarray(data.astronaut()[..., ::-1])


@pytest.fixture(scope="session")
def couple(astronaut: np.ndarray) -> np.ndarray:
    """The astronaut and, on her left, her mirror image: 1024x512 BGR, two faces."""
    return np.concatenate([astronaut, astronaut[:, ::-1]], axis=1)


@pytest.fixture(scope="session")
def small_model(small_face: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in our format without reference data: a network of constant answer, a frontal half ellipsoid.

    The network is a real MobileNet with random weights whose last layer is zero, exported as users export theirs.
    """
    torch = pytest.importorskip("torch", reason="exporting a network needs torch")
    from radan_ros.networks import export_network
    from radan_ros.networks.mobilenet import MobileNetV1

    folder = tmp_path_factory.mktemp("small_model")
    network = MobileNetV1(0.25)
    state = network.state_dict()
    for name in ("fc.weight", "fc.bias"):
        state[name] = torch.zeros_like(state[name])
    torch.save({"state_dict": state}, folder / "network.pth")
    export_network(folder / "network.pth", folder / "network.xml")
    np.savez(folder / "whitening.npz", mean=frontal_parameters(small_face), std=np.ones(62, np.float32))
    write_face_model(folder / "face_model.npz", small_face)
    (folder / "model.yaml").write_text(
        "name: small\nnetwork: network.xml\nwhitening: whitening.npz\nface_model: face_model.npz\n"
    )
    return folder
