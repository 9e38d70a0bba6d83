"""What one training step keeps in memory: for each training YAML the parameters, and what autograd keeps of one scene.

Shapes alone are worked out (PyTorch's meta device): no GPU, no memory and no time are needed. What autograd keeps for
the backward pass is counted as it is handed over, each piece of memory once, in float32; with weights, gradients and
optimiser that is the least that a step takes. Temporary buffers, the allocator's waste and the CUDA context come on
top, and with checkpointing the activations of the block that is made again in the backward pass.
"""

from __future__ import annotations

import argparse
import gc
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from s5.config import load_inherited
from s5.labels import DCASE_LABELS
from s5.separation import SEPARATORS
from s5.tagging import TAGGERS

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


def build(conf: dict) -> nn.Module:
    """The network of a training YAML, of random weights, in training mode."""
    table = {**TAGGERS, **SEPARATORS}
    return table[conf["network"]](n_labels=N_LABELS, **{"n_slots": N_SLOTS, **conf["network_conf"]}).train()


def kept_bytes(network: nn.Module, samples: int, channels: int, n_queries: int = N_SLOTS) -> int:
    """Bytes that autograd keeps of one scene, each piece of memory counted once; weights not counted."""
    weights = {t.untyped_storage()._cdata for t in [*network.parameters(), *network.buffers()]}
    kept: dict[int, Tensor] = {}  # holding the tensors keeps their addresses from being given out again

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage()._cdata
        if address not in weights:
            kept[address] = tensor.detach()
        return tensor

    separates = type(network) in SEPARATORS.values()
    n_scenes = 1 if separates else 2  # batch statistics of taggers want two
    inputs = [torch.empty(n_scenes, channels, samples, device="meta")]
    if separates:
        inputs.append(torch.empty(n_scenes, n_queries, N_LABELS, device="meta"))
    with ExitStack() as stack:
        for name, substitute in _WITHOUT_VALUES.items():
            stack.enter_context(mock.patch.object(torch, name, substitute))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
        output = network(*inputs)
    assert output.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // n_scenes


def main() -> None:
    """Prints a row a YAML."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "configs", nargs="+", type=Path, help="training YAMLs, e.g. conf/tuning/separator_resunetk.yaml"
    )
    parser.add_argument("--gpus", type=int, default=4, help="that share the batch")
    parser.add_argument("--sampling_rate", type=int, default=32000)
    parser.add_argument("--duration", type=float, default=10.0, help="of a scene in s")
    parser.add_argument("--channels", type=int, default=4)
    args = parser.parse_args()
    print(
        "| configuration | parameters (M) | trained (M) | a scene (MiB) | batch | scenes a GPU | in all a GPU (GiB) |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for path in args.configs:
        conf = load_inherited(path)
        with torch.device("meta"):
            network = build(conf).to("meta")
        n_queries = 1 if conf.get("queries") == "one" else N_SLOTS
        scene = kept_bytes(network, int(args.duration * args.sampling_rate), args.channels, n_queries)
        n_all = sum(p.numel() for p in network.parameters())
        n_trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        states = 3 if conf.get("optim_conf", {}).get("amsgrad") else 2
        on_gpu = -(-conf["batch_size"] // args.gpus)
        total = 4 * (n_all + n_trained * (1 + states)) + on_gpu * scene
        cells = [f"{n_all / 1e6:.1f}", f"{n_trained / 1e6:.1f}", f"{scene / 2**20:.0f}", str(conf["batch_size"])]
        print(f"| `{path.stem}` | {' | '.join(cells)} | {on_gpu} | {total / 2**30:.1f} |", flush=True)
        del network
        gc.collect()


if __name__ == "__main__":
    main()
