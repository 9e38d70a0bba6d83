"""What a training takes: for each training YAML the parameters, what autograd keeps of one scene, and the arithmetic.

Shapes alone are worked out (PyTorch's meta device): no GPU, no memory and no time are needed. What autograd keeps for
the backward pass is counted as it is handed over, each piece of memory once, in float32; with weights, gradients and
optimiser that is the least that a step takes. Temporary buffers, the allocator's waste and the CUDA context come on
top, and with checkpointing the activations of the block that is made again in the backward pass.

Arithmetic: floating point operations of matrix products and convolutions, forward and backward, as torch counts them.
The time is that of a training at a rate (``--tflops``) of which it reaches a share (``--share``). What share the
trainings of an experiment folder reached on this machine, of a matrix product's rate, ``--experiments`` tells. Scenes
are rendered by other processes meanwhile: the slower of the two decides.
"""

from __future__ import annotations

import argparse
import gc
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from s5.labels import DCASE_LABELS
from s5.separation.tse import TSE
from s5.separation.uss import USS
from s5.system.derived import derived_sizes
from s5.system.kinds import networks
from s5.utils.config import load_inherited, load_yaml, merge

N_LABELS, N_SLOTS = len(DCASE_LABELS), 3

# Shapes have no values to be checked or averaged, and the meta device has no precisions to choose from.
_WITHOUT_VALUES = {
    "isfinite": lambda tensor: True,
    "autocast": lambda *args, **kwargs: nullcontext(),
    "is_autocast_enabled": lambda device: False,
    "batch_norm_update_stats": lambda x, mean, variance, momentum: (mean.clone(), variance.clone()),
    "istft": lambda x, n_fft, hop_length, window, length: _frames(x, n_fft, window)[:, :length],
}


def _frames(spectrum: Tensor, n_fft: int, window: Tensor) -> Tensor:
    """What an inverse STFT makes before it adds the frames up, which checks its window's values."""
    return (torch.fft.irfft(spectrum.transpose(-2, -1), n=n_fft) * window).flatten(1)


def _every_index(x: Tensor) -> Tensor:
    """Result of ``nonzero`` for a tensor without zeros: all slots are active."""
    return x.new_empty(x.numel(), x.dim(), dtype=torch.long)


def build(conf: dict, n_labels: int = N_LABELS, n_slots: int = N_SLOTS) -> nn.Module:
    """The network of a training YAML, of random weights, in training mode, on the meta device."""
    table = networks()
    with torch.device("meta"):
        network = table[conf["network"]](n_labels=n_labels, **{"n_slots": n_slots, **conf["network_conf"]})
    return network.to("meta").train()


def kept_bytes(network: nn.Module, samples: int, channels: int, n_queries: int = N_SLOTS) -> int:
    """Bytes that autograd keeps of one scene, each piece of memory counted once; weights not counted."""
    weights = {t.untyped_storage()._cdata for t in [*network.parameters(), *network.buffers()]}
    kept: dict[int, Tensor] = {}  # holding the tensors keeps their addresses from being given out again

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage()._cdata
        if address not in weights:
            kept[address] = tensor.detach()
        return tensor

    n_scenes, inputs = _inputs(network, samples, channels, n_queries)
    with ExitStack() as stack:
        _without_values(stack)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
        output = network(*inputs)
    assert (output.waveform if isinstance(network, USS) else output).requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // n_scenes


def operations(
    network: nn.Module, samples: int, channels: int, n_queries: int = N_SLOTS, n_labels: int = N_LABELS
) -> int:
    """Floating point operations of a training step on one scene, forward and backward; of frozen parts forward only."""
    n_scenes, inputs = _inputs(network, samples, channels, n_queries, n_labels)
    with ExitStack() as stack:
        _without_values(stack)
        counter = stack.enter_context(FlopCounterMode(display=False))
        output = network(*inputs)
        sum(part.sum() for part in ([output] if isinstance(output, Tensor) else output)).backward()
    return counter.get_total_flops() // n_scenes


def _inputs(
    network: nn.Module, samples: int, channels: int, n_queries: int, n_labels: int = N_LABELS
) -> tuple[int, list[Tensor]]:
    """Number of scenes, and what the network is given."""
    separates = type(network) not in networks("tagger").values()
    n_scenes = 1 if separates else 2  # batch statistics of taggers want two
    inputs = [torch.empty(n_scenes, channels, samples, device="meta")]
    if separates and not isinstance(network, USS):
        inputs.append(torch.empty(n_scenes, n_queries, n_labels, device="meta"))
    if isinstance(network, TSE):
        inputs.append(torch.empty(n_scenes, n_queries, samples, device="meta"))
    return n_scenes, inputs


def _without_values(stack: ExitStack) -> None:
    for name, substitute in _WITHOUT_VALUES.items():
        stack.enter_context(mock.patch.object(torch, name, substitute))
    stack.enter_context(mock.patch.object(Tensor, "nonzero", _every_index))


def product_rate(size: int = 512, repeats: int = 300) -> float:
    """Operations a second of a matrix product in float32 on this machine's processor: one core's best, times cores."""
    n_threads, x, times = torch.get_num_threads(), torch.randn(size, size), []
    torch.set_num_threads(1)  # which other work on the machine disturbs least
    for _ in range(repeats):
        began = time.perf_counter()
        x @ x
        times.append(time.perf_counter() - began)
    torch.set_num_threads(n_threads)
    return n_threads * 2 * size**3 / min(times)


def print_shares(expdir: Path, samples: int, channels: int) -> None:
    """A row a finished training: its operations, its time as its checkpoint tells, and the rate that makes."""
    from s5.report.training import find_trainings

    rate = product_rate()
    print(f"a matrix product: {rate / 1e9:.0f} GFLOP/s on {torch.get_num_threads()} threads")
    print("| training | GFLOP a scene | scenes | time (s) | GFLOP/s | share |")
    print("| --- | --- | --- | --- | --- | --- |")
    for training in find_trainings(expdir):
        conf = load_yaml(expdir / training.name / "config.yaml")
        if training.time is None or training.epochs is None or not conf.get("num_scenes"):
            continue
        network = build(conf, len(conf["labels"]), conf["n_slots"])
        n_queries = 1 if conf.get("queries") == "one" else conf["n_slots"]
        scene = operations(network, samples, channels, n_queries, len(conf["labels"]))
        scenes, seconds = training.epochs * conf["num_scenes"], training.time.total_seconds()
        cells = [f"{scene / 1e9:.1f}", str(scenes), f"{seconds:.0f}", f"{scene * scenes / seconds / 1e9:.0f}"]
        print(f"| `{training.name}` | {' | '.join(cells)} | {scene * scenes / seconds / rate:.2f} |", flush=True)


def main() -> None:
    """Prints a row a YAML."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "configs", nargs="*", type=Path, help="training YAMLs, e.g. conf/tuning/separator_resunetk.yaml"
    )
    parser.add_argument("--experiments", type=Path, metavar="DIR", help="finished trainings of this machine instead")
    parser.add_argument("--gpus", type=int, default=4, help="that share the batch")
    parser.add_argument("--tflops", type=float, default=35.6, help="rate of a GPU as published (RTX 3090, float32)")
    parser.add_argument("--share", type=float, default=1.0, help="of that rate which a training reaches")
    parser.add_argument("--workers", type=int, default=8, help="processes a GPU that render scenes")
    parser.add_argument("--rendered", type=float, default=32.0, help="scenes a second of each (docs/simulation.md)")
    parser.add_argument("--sampling_rate", type=int, default=32000)
    parser.add_argument("--duration", type=float, default=10.0, help="of a scene in s, unless its YAML says it")
    parser.add_argument("--channels", type=int, default=4)
    args = parser.parse_args()
    samples = int(args.duration * args.sampling_rate)
    if args.experiments:
        print_shares(args.experiments, samples, args.channels)
        return
    head = ["configuration", "parameters (M)", "trained (M)", "a scene (MiB)", "batch", "scenes a GPU"]
    head += ["in all a GPU (GiB)", "GFLOP a scene", "scenes an epoch", "epochs", "hours", "hours of rendering"]
    print(f"| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    for path in args.configs:
        conf = load_inherited(path)
        conf = merge(conf, derived_sizes(conf, args.sampling_rate, args.duration))
        network = build(conf)
        n_queries = 1 if conf.get("queries") == "one" else N_SLOTS
        samples = int(conf.get("scene_conf", {}).get("duration", args.duration) * args.sampling_rate)
        scene = kept_bytes(network, samples, args.channels, n_queries)
        n_all = sum(p.numel() for p in network.parameters())
        n_trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        states = 3 if conf.get("optim_conf", {}).get("amsgrad") else 2
        on_gpu = -(-conf["batch_size"] // args.gpus)
        total = 4 * (n_all + n_trained * (1 + states)) + on_gpu * scene
        work = operations(network, samples, args.channels, n_queries)
        scenes = conf["num_scenes"] * conf["max_epoch"]
        hours = work * scenes / (args.gpus * args.share * args.tflops * 1e12) / 3600
        rendering = scenes / (args.gpus * args.workers * args.rendered) / 3600
        cells = [f"{n_all / 1e6:.1f}", f"{n_trained / 1e6:.1f}", f"{scene / 2**20:.0f}", str(conf["batch_size"])]
        cells += [
            f"{on_gpu}",
            f"{total / 2**30:.1f}",
            f"{work / 1e9:.0f}",
            f"{conf['num_scenes']}",
            f"{conf['max_epoch']}",
        ]
        print(f"| `{path.stem}` | {' | '.join(cells)} | {hours:.1f} | {rendering:.1f} |", flush=True)
        del network
        gc.collect()


if __name__ == "__main__":
    main()
