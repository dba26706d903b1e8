"""The networks answer what the authors' and 3DDFA's answer, and the same in every runtime."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from radan_ros.networks import (
    Checkpoint,
    Network,
    export_network,
    load_checkpoint,
    network_state,
    open_network,
    torch_module,
)
from radan_ros.networks.architecture import MOBILENET_WIDTHS, NetworkSpec, seeded_state, state_shapes
from radan_ros.networks.runtime import OpenVinoNetwork, TorchNetwork
from radan_ros.tools import export

RADAN = NetworkSpec("radan")
MOBILE = NetworkSpec("radan_mobile")
SPECS = [RADAN, MOBILE, *(NetworkSpec("mobilenet_v1", width) for width in MOBILENET_WIDTHS)]
SMALL = NetworkSpec("mobilenet_v1", 0.25)
CHECKPOINT = Path("models") / "3ddfa_v2" / "weights" / "mb05_120x120.pth"
TOLERANCE = 1e-4
# The fixture fades from layer to layer: at 1e-4 it would pass a pooling without padding (2e-5 at the stage it is in).
FIXTURE_TOLERANCE = 2e-6


def random_crops(count: int, seed: int = 0) -> np.ndarray:
    """Coloured patches of several sizes, with noise: unlike each other, which plain noise is not to a network."""
    random = np.random.default_rng([count, seed])
    crops = np.zeros((count, 120, 120, 3), np.float32)
    for side in (60, 24, 8, 1):
        patches = random.uniform(0, 64, (count, 120 // side, 120 // side, 3))
        crops += patches.repeat(side, axis=1).repeat(side, axis=2) * random.uniform(0, 1, (count, 1, 1, 3))
    return crops.astype(np.uint8)


def calibrated_state(spec: NetworkSpec, crops: np.ndarray) -> dict[str, np.ndarray]:
    """Random weights whose batch norms fit the data, as training leaves them.

    The fixture's weights let the picture fade from layer to layer: its output differs by 1e-6 between two inputs, and
    a graph with a wrong layer would still agree.
    """
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    module = torch_module(spec).train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # a plain average over what it sees
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.bias, -0.5, 0.5)
    with torch.inference_mode():
        module(torch.tensor(crops).permute(0, 3, 1, 2).float().sub(127.5).div(128))
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


@functools.cache
def lively_state(spec: NetworkSpec) -> dict[str, np.ndarray]:
    """Random weights for `random_crops`."""
    return calibrated_state(spec, random_crops(12, seed=1))


def headed_state() -> dict[str, np.ndarray]:
    """The same of radan_mobile, with a head for presence."""
    weight = np.random.default_rng(3).normal(0, 0.3, (1, 256)).astype(np.float32)
    return lively_state(MOBILE) | {"fc_presence.weight": weight, "fc_presence.bias": np.array([-0.5], np.float32)}


def openvino_network(spec: NetworkSpec, state: dict[str, np.ndarray] | None = None) -> OpenVinoNetwork:
    pytest.importorskip("openvino")
    from radan_ros.networks.openvino_graphs import build

    return OpenVinoNetwork(build(spec, state or lively_state(spec)), str(spec), threads=2)


def torch_network(spec: NetworkSpec, device: str = "cpu") -> TorchNetwork:
    pytest.importorskip("torch")
    return TorchNetwork(spec, lively_state(spec), device)


@pytest.fixture(scope="session")
def checkpoint(shared: Path) -> Path:
    """3DDFA_V2's trained MobileNet."""
    return shared / CHECKPOINT


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MobileNet x0.25 with random weights, as a torch file."""
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("networks") / "small.pth.tar"
    state = lively_state(SMALL)
    torch.save({"epoch": 1, "state_dict": {f"module.{name}": torch.tensor(v) for name, v in state.items()}}, path)
    return path


@pytest.fixture(scope="session")
def mobile_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A radan_mobile with random weights, as a torch file in float16: how the built-in weights are kept."""
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("networks") / "mobile.pth"
    state = {name: torch.tensor(value) for name, value in lively_state(MOBILE).items()}
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="session")
def real_crops(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    """Crops of the test picture's faces, and what the reference's network says of them."""
    pack = np.load(shared / "expected" / "3ddfa_v1_test1.npz")
    crops = np.stack([pack[f"face{i}_crop"] for i in range(2)])
    return crops, np.stack([pack[f"face{i}_network_output"] for i in range(2)])


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_modules_have_the_tabled_entries_in_order(spec: NetworkSpec) -> None:
    pytest.importorskip("torch")
    module = torch_module(spec)
    assert [(name, tuple(value.shape)) for name, value in module.state_dict().items()] == list(
        state_shapes(spec).items()
    )
    if spec == MOBILE:
        module = torch_module(spec, headed_state())
        assert [(name, tuple(value.shape)) for name, value in module.state_dict().items()] == list(
            state_shapes(spec, presence=True).items()
        )


def test_radan_mobile_is_small(mobile_checkpoint: Path) -> None:
    shapes = state_shapes(MOBILE).items()
    assert sum(int(np.prod(shape)) for name, shape in shapes if name.endswith(("weight", "bias"))) <= 1_600_000
    assert mobile_checkpoint.stat().st_size <= 4_000_000


def test_radan_has_the_authors_entries_in_order(shared: Path) -> None:
    expected = json.loads((shared / "expected" / "radan_state_dict_shapes.json").read_text())
    assert [(name, list(shape)) for name, shape in state_shapes(RADAN).items()] == list(expected.items())
    trained = sum(int(np.prod(shape)) for name, shape in expected.items() if name.endswith(("weight", "bias")))
    assert round(trained / 1e6, 1) == 57.1


def test_radan_answers_the_authors_fixture_at_every_stage(shared: Path) -> None:
    torch = pytest.importorskip("torch")
    expected = np.load(shared / "expected" / "radan_network.npz")
    module = torch_module(RADAN, seeded_state(RADAN)).eval()
    stages = [name.removesuffix("_shape") for name in expected if name.endswith("_shape")]
    seen: dict[str, Any] = {}
    for stage in stages:
        layer = module.encoder_coarse.get_submodule(stage)
        layer.register_forward_hook(lambda _m, _i, out, stage=stage: seen.__setitem__(stage, out.numpy()))
    x = np.random.RandomState(0).uniform(-1, 1, (2, 3, 120, 120)).astype(np.float32)
    with torch.inference_mode():
        output = module(torch.tensor(x)).numpy()
    assert np.abs(output - expected["output"]).max() <= FIXTURE_TOLERANCE
    assert len(stages) == 12
    for stage in stages:
        assert seen[stage].shape == tuple(expected[f"{stage}_shape"]), stage
        assert np.abs(seen[stage].mean(axis=(2, 3)) - expected[f"{stage}_channel_mean"]).max() <= FIXTURE_TOLERANCE, (
            stage
        )


def test_radan_graph_answers_the_authors_fixture(shared: Path) -> None:
    """The fixture's input is no picture of bytes, so the graph is cut behind its normalisation."""
    ov = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    from radan_ros.networks import openvino_graphs as graphs
    from radan_ros.networks.architecture import RADAN_ENCODER

    expected = np.load(shared / "expected" / "radan_network.npz")
    images = ops.parameter([-1, 3, 120, 120], np.float32)
    output = graphs._radan(graphs._Weights(seeded_state(RADAN), f"{RADAN_ENCODER}."), images)
    x = np.random.RandomState(0).uniform(-1, 1, (2, 3, 120, 120)).astype(np.float32)
    compiled = ov.Core().compile_model(
        ov.Model([output], [images], "radan"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert np.abs(compiled(x)[0] - expected["output"]).max() <= FIXTURE_TOLERANCE


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_the_trained_network_answers_as_the_reference(
    runtime: str, checkpoint: Path, real_crops: tuple[np.ndarray, np.ndarray]
) -> None:
    pytest.importorskip(runtime)
    crops, expected = real_crops
    network = open_network(checkpoint, device="cpu", runtime=runtime)
    assert (network.name, network.device) == ("mobilenet_v1 x0.5", "cpu")
    assert np.abs(network(crops) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_graph_and_torch_agree(spec: NetworkSpec) -> None:
    crops = random_crops(3)
    ours, torchs = openvino_network(spec)(crops), torch_network(spec)(crops)
    assert ours.shape == torchs.shape == (3, 62) and ours.dtype == torchs.dtype == np.float32
    assert np.ptp(torchs, axis=0).max() > 0.1  # the crops do tell: agreement is not that of constants
    assert np.abs(ours - torchs).max() <= TOLERANCE


@pytest.mark.parametrize("state", [lively_state, seeded_state], ids=["lively", "seeded"])
def test_radan_mobiles_graph_and_torch_agree_to_the_fifth_digit(state: Any) -> None:
    pytest.importorskip("torch")
    crops = random_crops(5)
    ours, torchs = openvino_network(MOBILE, state(MOBILE))(crops), TorchNetwork(MOBILE, state(MOBILE), "cpu")(crops)
    assert np.abs(ours - torchs).max() <= 1e-5 * np.abs(torchs).max()


def test_a_head_for_presence_answers_the_same_in_both_runtimes_and_leaves_the_parameters_as_they_were() -> None:
    pytest.importorskip("torch")
    crops = random_crops(5)
    networks = [openvino_network(MOBILE, headed_state()), TorchNetwork(MOBILE, headed_state(), "cpu")]
    (parameters, logits), (torchs, torch_logits) = (network.run(crops) for network in networks)
    assert logits is not None and torch_logits is not None and logits.shape == torch_logits.shape == (5,)
    assert np.ptp(logits) > 0.1 and np.abs(logits - torch_logits).max() <= 1e-5 * np.abs(logits).max()
    plain = openvino_network(MOBILE)
    assert plain.run(crops)[1] is None
    assert np.abs(parameters - plain(crops)).max() <= 1e-5 * np.abs(parameters).max()
    for network in networks:
        assert np.array_equal(network(crops), network.run(crops)[0])
        nothing, no_logits = network.run(crops[:0])
        assert nothing.shape == (0, 62) and no_logits is not None and no_logits.shape == (0,)


def test_a_head_for_presence_is_kept_by_checkpoints_and_exports(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "headed.pth"
    torch.save({"state_dict": {f"module.{name}": torch.tensor(v) for name, v in headed_state().items()}}, path)
    spec, state = network_state(load_checkpoint(path))
    assert spec == MOBILE and {name: value.shape for name, value in state.items()} == state_shapes(MOBILE, True)
    assert np.array_equal(state["fc_presence.weight"], headed_state()["fc_presence.weight"])
    crops = random_crops(3)
    expected = openvino_network(MOBILE, headed_state()).run(crops)
    for opened in (open_network(path, device="cpu"), open_network(export_network(path, tmp_path / "headed.xml"))):
        for given, answer in zip(expected, opened.run(crops), strict=True):
            assert given is not None and answer is not None and np.abs(given - answer).max() <= 1e-5


def test_a_head_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    wide = headed_state() | {"fc_presence.weight": np.zeros((2, 256), np.float32)}
    with pytest.raises(ValueError, match=r"1 of the wrong shape: fc_presence.weight is \(2, 256\)"):
        network_state(Checkpoint(wide, tmp_path / "a.pth"))
    half = {name: value for name, value in headed_state().items() if name != "fc_presence.bias"}
    with pytest.raises(ValueError, match=r"1 missing: fc_presence.bias"):
        network_state(Checkpoint(half, tmp_path / "a.pth"))
    other = seeded_state(SMALL) | {"fc_presence.bias": np.zeros(1, np.float32)}
    with pytest.raises(ValueError, match=r"1 unexpected: fc_presence.bias"):
        network_state(Checkpoint(other, tmp_path / "a.pth"))


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_float16_weights_are_computed_with_in_float32(runtime: str, mobile_checkpoint: Path) -> None:
    pytest.importorskip(runtime)
    crops = random_crops(5)
    rounded = {
        name: value.astype(np.float16).astype(np.float32) if value.dtype == np.float32 else value
        for name, value in lively_state(MOBILE).items()
    }
    expected = TorchNetwork(MOBILE, rounded, "cpu")(crops)
    answer = open_network(mobile_checkpoint, device="cpu", runtime=runtime)(crops)
    assert answer.dtype == np.float32
    assert np.abs(answer - expected).max() <= 1e-5 * np.abs(expected).max()


def test_an_untrained_radan_mobile_answers_about_the_mean_face() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    with torch.inference_mode():
        parameters = torch_module(MOBILE).train()(torch.tensor(random_crops(16)).permute(0, 3, 1, 2) / 128 - 1)
    assert parameters.std(dim=0).max() > 0  # and yet it sees the crops
    assert parameters.abs().max() < 0.5  # standard deviations


def test_radan_graph_and_torch_agree_on_real_crops(real_crops: tuple[np.ndarray, np.ndarray]) -> None:
    crops = np.concatenate([real_crops[0][..., :: 1 - 2 * flip, :] // shade for flip in (0, 1) for shade in (1, 2, 3)])
    state = calibrated_state(RADAN, crops)
    ours, torchs = openvino_network(RADAN, state)(crops), TorchNetwork(RADAN, state, "cpu")(crops)
    assert np.ptp(torchs, axis=0).max() > 0.1
    assert np.abs(ours - torchs).max() <= TOLERANCE


@pytest.fixture(params=["openvino", "torch"])
def small_network(request: pytest.FixtureRequest) -> Network:
    return openvino_network(SMALL) if request.param == "openvino" else torch_network(SMALL)


def test_a_crop_is_answered_the_same_alone_and_among_others(small_network: Network) -> None:
    crops = random_crops(9)
    together = small_network(crops)
    alone = np.concatenate([small_network(crops[i : i + 1]) for i in range(9)])
    assert np.abs(together - alone).max() <= 1e-5 * np.abs(together).max()


def test_no_crops_are_no_parameters(small_network: Network) -> None:
    parameters = small_network(random_crops(0))
    assert parameters.shape == (0, 62) and parameters.dtype == np.float32


def test_answers_are_the_callers_own_and_crops_are_left_alone(small_network: Network) -> None:
    crops = random_crops(2)
    before = crops.copy()
    first = small_network(crops)
    kept = first.copy()
    small_network(random_crops(3)[:2])
    small_network(255 - crops[:1])
    assert np.array_equal(first, kept) and np.array_equal(crops, before)
    crops.flags.writeable = False
    view = np.repeat(crops, 2, axis=0)[::2]  # read-only, and not contiguous
    assert np.array_equal(small_network(crops), kept) and np.array_equal(small_network(view), kept)


@pytest.mark.parametrize("shape, dtype", [((1, 120, 120, 3), "f4"), ((120, 120, 3), "u1"), ((1, 3, 120, 120), "u1")])
def test_other_crops_are_refused(small_network: Network, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(N, 120, 120, 3\), not"):
        small_network(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    "kind, name", [("small_checkpoint", "mobilenet_v1 x0.25"), ("mobile_checkpoint", "radan_mobile")]
)
def test_an_exported_network_answers_as_its_checkpoint(
    kind: str, name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("openvino")
    checkpoint = request.getfixturevalue(kind)
    out = export_network(checkpoint, tmp_path / "small.xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.bin", "small.xml"]
    exported, original = open_network(out), open_network(checkpoint, device="cpu")
    assert (exported.name, exported.device) == (name, "cpu") and exported.name == original.name
    for count in (0, 1, 5):
        assert np.array_equal(exported(random_crops(count)), original(random_crops(count)))


def test_the_export_of_the_trained_network_answers_as_the_reference(
    checkpoint: Path, real_crops: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    crops, expected = real_crops
    assert export.main([str(checkpoint), str(tmp_path / "a.xml")]) == 0
    assert np.abs(open_network(tmp_path / "a.xml")(crops) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("batch", ["one", "any"])
def test_an_onnx_file_of_3ddfa_v2s_layout_opens(small_checkpoint: Path, tmp_path: Path, batch: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    module = torch_module(SMALL, lively_state(SMALL)).eval()
    path = tmp_path / "network.onnx"
    axes = {"input": {0: "batch"}, "output": {0: "batch"}} if batch == "any" else None
    names = {"input_names": ["input"], "output_names": ["output"], "dynamic_axes": axes}
    torch.onnx.export(module, (torch.zeros(1, 3, 120, 120),), path, dynamo=False, **names)
    network = open_network(path)
    crops = random_crops(3)
    assert network.name == "network"
    assert np.abs(network(crops) - open_network(small_checkpoint, device="cpu")(crops)).max() <= TOLERANCE


def test_graphs_that_are_none_of_ours_are_refused(tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    def save(shape: list[int], kind: Any, outputs: int) -> Path:
        x = ops.parameter(shape, kind)
        flat = ops.reduce_mean(ops.convert(x, "f32"), np.array([1, 2, 3]), False)
        y = ops.matmul(
            ops.unsqueeze(flat, np.array([1])), ops.constant(np.ones((1, outputs), np.float32)), False, False
        )
        ov.save_model(ov.Model([y], [x], "other"), str(tmp_path / "other.xml"))
        return tmp_path / "other.xml"

    with pytest.raises(ValueError, match=r"other\.xml: not a network of ours: it takes u8 \[\?,224,224,3\]"):
        open_network(save([-1, 224, 224, 3], np.uint8, 62))
    with pytest.raises(ValueError, match=r"not a network of ours: it takes f32 \[\?,120,120,3\]"):
        open_network(save([-1, 120, 120, 3], np.float32, 62))
    with pytest.raises(ValueError, match=r"not a network of ours: it answers \[\?,10\]"):
        open_network(save([-1, 120, 120, 3], np.uint8, 10))
    with pytest.raises(ValueError, match="exactly 8 crops"):
        open_network(save([8, 120, 120, 3], np.uint8, 62))
    (tmp_path / "other.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"other\.bin"):
        open_network(tmp_path / "other.xml")


def test_damaged_exports_are_refused(small_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    out = export_network(small_checkpoint, tmp_path / "a.xml")
    weights, text = out.with_suffix(".bin"), out.read_text()
    whole = weights.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2]):
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.xml: OpenVINO cannot read it"):
            open_network(out)
    weights.write_bytes(whole)
    out.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"a\.xml: OpenVINO cannot read it"):
        open_network(out)
    (tmp_path / "a.onnx").write_bytes(b"no onnx file")
    with pytest.raises(ValueError, match=r"a\.onnx: OpenVINO cannot read it"):
        open_network(tmp_path / "a.onnx")


def test_bad_choices_are_named(small_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    out = export_network(small_checkpoint, tmp_path / "a.xml")
    for arguments, message in (
        ({"device": "gpu"}, "device 'gpu'"),
        ({"device": "cuda:x"}, "device 'cuda:x'"),
        ({"device": "cpu:1"}, "device 'cpu:1'"),
        ({"runtime": "onnx"}, "runtime 'onnx'"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"threads": 0}, "threads must be"),
        ({"device": "cuda", "runtime": "openvino"}, "OpenVINO runs on the CPU"),
        ({"device": "cuda:99"}, "torch finds [0-9]+ CUDA devices"),
    ):
        with pytest.raises(ValueError, match=message):
            open_network(small_checkpoint, **arguments)  # type: ignore[arg-type]
    for device, runtime in (("cuda", "auto"), ("auto", "torch")):
        with pytest.raises(ValueError, match="give its checkpoint"):
            open_network(out, device=device, runtime=runtime)
    with pytest.raises(FileNotFoundError, match="absent.pth: no such"):
        open_network(tmp_path / "absent.pth")


def test_the_cpu_needs_no_torch_and_its_absence_is_explained(small_checkpoint: Path) -> None:
    pytest.importorskip("openvino")
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from radan_ros.networks import open_network
network = open_network(sys.argv[1])
assert network.device == "cpu" and network(np.zeros((1, 120, 120, 3), np.uint8)).shape == (1, 62)
for arguments in ({"runtime": "torch"}, {"device": "cuda"}):
    try:
        open_network(sys.argv[1], **arguments)
    except ImportError as error:
        assert "pip install torch" in str(error)
    else:
        raise AssertionError("opened without torch")
sys.modules["openvino"] = None
try:
    open_network(sys.argv[1], device="cpu")
except ImportError as error:
    assert "pip install openvino" in str(error)
else:
    raise AssertionError("opened without openvino")
"""
    subprocess.run([sys.executable, "-c", code, str(small_checkpoint)], check=True, timeout=120)


def test_auto_takes_cuda_where_it_is(small_checkpoint: Path) -> None:
    torch = pytest.importorskip("torch")
    device = open_network(small_checkpoint).device
    assert device == ("cuda:0" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("spec", [RADAN, MOBILE, NetworkSpec("mobilenet_v1", 0.5)], ids=str)
def test_cuda_answers_as_the_cpu(spec: NetworkSpec) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    crops = random_crops(5)
    assert np.abs(torch_network(spec, "cuda:0")(crops) - torch_network(spec)(crops)).max() <= TOLERANCE


@pytest.mark.parametrize("spec", [SMALL, MOBILE], ids=str)
def test_training_moves_the_torch_module(spec: NetworkSpec) -> None:
    torch = pytest.importorskip("torch")
    module = torch_module(spec).train()
    module(torch.randn(2, 3, 120, 120)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_the_export_program_says_in_one_line_what_is_wrong(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    bad = tmp_path / "bad.pth"
    bad.write_bytes(small_checkpoint.read_bytes()[:1000])
    folder = tmp_path / "file"
    folder.write_text("")
    for arguments, message in (
        ([tmp_path / "absent.pth", tmp_path / "a.xml"], "no such"),
        ([bad, tmp_path / "a.xml"], str(bad)),
        ([small_checkpoint, tmp_path / "a.onnx"], "ends in .xml"),
        ([small_checkpoint, tmp_path / "absent" / "a.xml"], "no such folder"),
        ([small_checkpoint, folder / "a.xml"], "no such folder"),
        ([tmp_path, tmp_path / "a.xml"], "no such"),
    ):
        assert export.main([str(argument) for argument in arguments]) == 1
        said = capsys.readouterr()
        assert (
            said.out == ""
            and said.err.count("\n") == 1
            and said.err.startswith("radan-export: ")
            and message in said.err
        )
    assert not (tmp_path / "a.xml").exists()
    assert export.main([str(small_checkpoint), str(tmp_path / "a.xml")]) == 0
    assert capsys.readouterr().out.strip() == f"{tmp_path / 'a.xml'}: mobilenet_v1 x0.25"


def test_opening_a_network_leaves_nothing_in_the_home_folder(shared: Path, tmp_path: Path) -> None:
    checkpoint = shared / "models" / "3ddfa_v2" / "weights" / "mb05_120x120.pth"
    code = f"from radan_ros.networks import open_network; open_network({str(checkpoint)!r}, device='cpu')"
    environment = os.environ | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []
