"""Times the networks on the CPU, all runtimes in one run: torch, OpenVINO in float32 and in bfloat16.

    python benchmark/networks.py [--threads 2] [--seconds 6] [--checkpoint FILE ...]

Without checkpoints: 3DDFA_V2's MobileNet of ../shared (or a random one), radan_mobile and the full RADAN network with
random weights.
The runtimes take turns in four rounds, so that a busy machine slows all of them alike; the figures are medians of
milliseconds a call, from uint8 crops to parameters. The error of bfloat16 is that of the whitened parameters against
float32: its mean and maximum over crops and entries, and the maximum as a part of the largest parameter.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from radan_ros.benchmarks.timing import interleaved
from radan_ros.networks import NetworkSpec, load_checkpoint, network_state, torch_module
from radan_ros.networks.architecture import State
from radan_ros.networks.runtime import Network, OpenVinoNetwork, TorchNetwork

SHARED = Path(__file__).resolve().parents[2] / "shared"
BATCHES = (1, 4, 16)
ROUNDS = 4


def crops_of(count: int) -> np.ndarray:
    """Real crops where the reference data is, mirrored and shaded to make as many as wanted; else coloured patches."""
    file = SHARED / "expected" / "3ddfa_v1_test1.npz"
    random = np.random.default_rng(0)
    if file.is_file():
        pack = np.load(file)
        crops = np.stack([pack[f"face{i % 2}_crop"][:, :: 1 - 2 * (i // 2 % 2)] for i in range(count)])
    else:
        crops = random.integers(0, 256, (count, 12, 12, 3)).repeat(10, axis=1).repeat(10, axis=2)
    return (crops * random.uniform(0.5, 1, (count, 1, 1, 1))).astype(np.uint8)


def random_state(spec: NetworkSpec) -> State:
    """Random weights whose batch norms fit the crops, so that the signal lives to the last layer."""
    import torch

    torch.manual_seed(0)
    module = torch_module(spec).train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the statistics of this one batch, not a running mean
    with torch.inference_mode():
        module(torch.tensor(crops_of(16)).permute(0, 3, 1, 2).float().sub(127.5).div(128))
    return {name: value.numpy() for name, value in module.state_dict().items()}


def networks(checkpoints: list[Path]) -> list[tuple[str, NetworkSpec, State]]:
    """Name, kind and weights of what is timed."""
    shared = SHARED / "models" / "3ddfa_v2" / "weights" / "mb05_120x120.pth"
    mobilenet = NetworkSpec("mobilenet_v1", 0.5)
    if checkpoints:
        return [(path.name, *network_state(load_checkpoint(path))) for path in checkpoints]
    if shared.is_file():
        first = ("mobilenet_v1 x0.5, trained", *network_state(load_checkpoint(shared)))
    else:
        first = ("mobilenet_v1 x0.5, random", mobilenet, random_state(mobilenet))
    others = (NetworkSpec("radan_mobile"), NetworkSpec("radan"))
    return [first, *((f"{spec}, random weights", spec, random_state(spec)) for spec in others)]


def main() -> int:
    """Print the table."""
    import torch
    from openvino import Core

    from radan_ros.networks.openvino_graphs import build

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6, help="per row of the table")
    parser.add_argument("--checkpoint", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{Core().get_property('CPU', 'FULL_DEVICE_NAME')}, {options.threads} threads, ms a call")
    heads = ("torch f32", "OV f32", "OV bf16", "torch/OV", "f32/bf16")
    print(f"{'network':28}{'batch':>6}" + "".join(f"{head:>11}" for head in heads))
    notes = []
    for name, spec, state in networks(options.checkpoint):
        graph = build(spec, state)
        runs: list[Network] = [TorchNetwork(spec, state, "cpu")]
        runs += [OpenVinoNetwork(graph, name, options.threads, precision) for precision in ("f32", "bf16")]
        for batch in BATCHES:
            crops = crops_of(batch)
            jobs = {str(i): partial(run, crops) for i, run in enumerate(runs)}
            times = interleaved(jobs, seconds=options.seconds / ROUNDS / len(jobs), rounds=ROUNDS, pause=0.3)
            slow, full, half = (float(np.median(of_run)) for of_run in times.values())
            row = f"{name:28}{batch:6}{slow:11.2f}{full:11.2f}{half:11.2f}{slow / full:11.2f}{full / half:11.2f}"
            print(row, flush=True)
        crops = crops_of(16)
        exact, f32, bf16 = (run(crops) for run in runs)
        error, largest = np.abs(bf16 - f32), np.abs(f32).max()
        notes.append(
            f"{name}: OV f32 against torch max {np.abs(f32 - exact).max():.1e}; bf16 against f32 "
            f"mean {error.mean():.1e}, max {error.max():.1e} = {100 * error.max() / largest:.1f} % of the largest"
        )
    print("\n".join(notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
