"""ResUNetK's speed and memory beside the official network: one run, same weights, same mixture. And what the separators
of several training YAMLs cost beside each other.

    python test/bench/separator.py --official CHECKOUT [--packages FOLDER]
    python test/bench/separator.py --only step --seconds 4
    python test/bench/separator.py --official CHECKOUT --device cuda --batch 4 --only step --largest
    python test/bench/separator.py --trainings conf/tuning/separator_*_tiny.yaml --rate 16000 --seconds 4 --batch 4

First come the machine's own limits: what a matrix product and a 3x3 convolution reach on these threads, and the seconds
in which the network's operations would be done at the fastest of them. Each further line is a process of its own.
Seconds are the best of a few repetitions, ex/s mixtures a second; CPU seconds are those of all threads, which wait
without spinning, so that other work on the machine hardly counts in them. Memory is the greatest resident size of the
process, Python and torch included (on a GPU: what torch allocates there). Agreement is that of the output (forward) or
of the label MLP's gradient (step) with the official network in float32.

With --trainings, each YAML of a separator, USS or TSE is a line: parameters, multiply-adds of a forward pass of one
mixture with all slots active (and enrolled), and the columns above, with ratios to the first YAML. What TSE is trained
on, the forward pass of USS, is not counted.

The official network wants torchlibrosa: ``pip install --no-deps --target FOLDER torchlibrosa`` into a folder of your
own, then ``--packages FOLDER``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from s5.checkpoints import load_official
from s5.separation import ResUNetK, memory_format
from s5.separation.losses import ca_pi_sdr
from s5.separation.tse import TSE
from s5.separation.uss import USS
from s5.separation.uss_loss import USSLoss, USSTargets
from s5.system.derived import derived_sizes
from s5.system.kinds import networks
from s5.utils.config import load_inherited, merge

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "forward": {
        "official": {"network": "official"},
        "ours": {},
        "ours, compiled": {"compile": True},
        "ours, bfloat16": {"bf16": True},
    },
    "step": {
        "official": {"network": "official"},
        "ours": {},
        "ours, compiled": {"compile": True},
        "ours, checkpointing": {"checkpointing": True},
        "ours, bfloat16": {"bf16": True},
        "ours, bfloat16, checkpointing": {"bf16": True, "checkpointing": True},
    },
}
"""What is measured, by kind and name; ``compile`` only with ``--all`` or by name."""


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--official", help="checkout of github.com/nttcslab/dcase2026_task4_baseline; else ours alone")
    parser.add_argument("--packages", help="folder with what its network imports, besides torch")
    parser.add_argument("--trainings", nargs="+", metavar="YAML", help="measure the separators of these instead")
    parser.add_argument("--rate", type=int, default=32000, help="sampling rate in Hz (32000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the mixture (default 10)")
    parser.add_argument("--batch", type=int, default=1, help="mixtures at a time (1)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    parser.add_argument("--repeats", type=int, default=3, help="timed repetitions, after one that is not (3)")
    parser.add_argument("--device", default="cpu", help="torch device (cpu)")
    parser.add_argument("--only", choices=sorted(CASES), help="forward passes or training steps alone")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="these lines alone, e.g. official 'ours, bfloat16'")
    parser.add_argument("--all", action="store_true", help="also torch.compile")
    parser.add_argument("--largest", action="store_true", help="on a GPU, also the largest batch of a step that fits")
    parser.add_argument("--profile", action="store_true", help="operators of each line by their own time")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.largest and torch.device(args.device).type != "cuda":
        parser.error("--largest: expected a GPU as --device")
    if args.case:
        case = json.loads(args.case)
        print(json.dumps(limits(args) if case["kind"] == "limits" else measure(args, **case)))
        return
    print(f"{cpu_model()}, {args.threads} threads, torch {torch.__version__}, {args.device}")
    print(f"{args.batch} x {args.seconds:g} s at {args.rate} Hz")
    with tempfile.TemporaryDirectory() as folder:
        if args.trainings:
            trainings_table(args, Path(folder))
            return
        show_limits(args)
        make_weights(args, Path(folder))
        for kind in [args.only] if args.only else CASES:
            table(args, kind, Path(folder))


def trainings_table(args: argparse.Namespace, folder: Path) -> None:
    """Measures and prints what --trainings names."""
    for kind in [args.only] if args.only else CASES:
        columns = f"{'M param':>8} {'GMAC':>8} {'s':>8} {'ratio':>6} {'CPU s':>8} {'ratio':>6} {'MB':>6} {'ratio':>6}"
        print(f"\n{kind:<32} {columns}")
        first: dict[str, Any] | None = None
        for path in args.trainings:
            name = Path(path).stem.removeprefix("separator_")
            found = run_case(args, {"kind": kind, "folder": str(folder), "name": name, "network": path})
            if found is None:
                print(f"{name:<32} failed, see above")
                continue
            first = first or found
            cells = f"{found['parameters'] / 1e6:8.2f} {found['operations'] / 2e9:8.2f}"
            for key in ("wall", "cpu"):
                cells += f" {found[key]:8.3f} {found[key] / first[key]:6.2f}"
            print(f"{name:<32} {cells} {found['peak']:6.0f} {found['peak'] / first['peak']:6.2f}", flush=True)


def table(args: argparse.Namespace, kind: str, folder: Path) -> None:
    """Measures and prints one kind."""
    titles = f"{'s':>8} {'ex/s':>7} {'ratio':>6} {'CPU s':>8} {'ratio':>6} {'MB':>6} {'share':>6} {'1st s':>7}"
    titles += f" {'agreement':>10}" + (f" {'batch':>6}" if args.largest and kind == "step" else "")
    print(f"\n{kind:<32} {titles}")
    first: dict[str, Any] | None = None
    for name, case in CASES[kind].items():
        chosen = name in args.cases if args.cases else args.all or "compile" not in case
        if not chosen or (case.get("network") == "official" and not args.official):
            continue
        found = run_case(args, {"kind": kind, "folder": str(folder), "name": name, **case})
        if found is None:
            print(f"{name:<32} failed, see above")
            continue
        first = first or found
        agreement = agreement_db(folder / f"{kind}_{next(iter(CASES[kind]))}.pt", folder / f"{kind}_{name}.pt")
        cells = [
            f"{found['wall']:8.3f} {args.batch / found['wall']:7.2f} {first['wall'] / found['wall']:6.2f}",
            f"{found['cpu']:8.2f} {first['cpu'] / found['cpu']:6.2f}",
            f"{found['peak']:6.0f} {found['peak'] / first['peak']:6.0%} {found['first']:7.1f} {agreement:>10}",
            f"{found['largest']:6}" if "largest" in found else "",
        ]
        print(f"{name:<32} {' '.join(cells)}", flush=True)


def run_case(args: argparse.Namespace, case: dict[str, Any]) -> dict[str, Any] | None:
    """Measures one line in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--case", json.dumps(case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    *shown, last = done.stdout.strip().splitlines()
    if shown:
        print("\n".join(shown))
    return json.loads(last)


def measure(
    args: argparse.Namespace,
    kind: str,
    folder: str,
    name: str,
    network: str = "ours",
    bf16: bool = False,
    compile: bool = False,
    checkpointing: bool = False,
) -> dict[str, Any]:
    """Seconds, CPU seconds and peak memory of one line; writes what its agreement is taken from."""
    torch.set_num_threads(args.threads)
    model: nn.Module
    if network.endswith(".yaml"):
        training = load_inherited(network)
        training = merge(training, derived_sizes(training, args.rate, args.seconds))
        bf16 = bool(training.get("bf16")) and torch.device(args.device).type != "cpu"
        torch.manual_seed(0)
        model = memory_format(networks()[training["network"]](**{**training["network_conf"], "n_slots": 3}))
    elif network == "official":
        model = official_network(args)
        model.load_state_dict(torch.load(Path(folder) / "weights.pt"))
    else:
        model = ResUNetK(checkpointing=checkpointing)
        load_official(model, torch.load(Path(folder) / "weights.pt"))
        model = memory_format(model)
    model = model.to(args.device).train(kind == "step")
    call: Callable[..., Tensor] = torch.compile(model) if compile else model
    device = torch.device(args.device).type
    mixture, query, target = inputs(args, args.batch)

    def forward() -> Tensor:
        autocast = torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()
        with autocast, torch.inference_mode() if kind == "forward" else nullcontext():
            if network == "official":
                return call({"mixture": mixture, "label_vector": query.flatten(1)})["waveform"][:, :, 0]
            return separated(call, mixture, query, target)

    def step() -> Tensor:
        model.zero_grad()
        label_index = torch.arange(3, device=args.device).expand(len(target), 3)
        if isinstance(model, USS):
            rows = USSTargets(target, label_index, target[:, : model.interference], target[:, : model.rest])
            with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
                output = call(mixture)
            loss = USSLoss()(output, rows, mixture[:, 0])[0]["loss"]
        else:
            loss, _ = ca_pi_sdr(forward().float(), target, label_index, 18)
        loss.mean().backward()
        if network.endswith(".yaml"):  # there is nothing to agree with
            return loss.detach()
        embedding = ("label_embedding", "slot_embedding")
        return torch.cat([p.grad.flatten() for n, p in model.named_parameters() if n.startswith(embedding)])

    result, times = None, []
    for _ in range(args.repeats + 1):
        start = time.perf_counter(), time.process_time()
        result = forward() if kind == "forward" else step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    assert result is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    torch.save(result.float().cpu(), Path(folder) / f"{kind}_{name}.pt")
    if args.profile:
        show_profile(forward if kind == "forward" else step, name)
    wall, cpu = (min(t[i] for t in times[1:]) for i in range(2))
    found = {"wall": wall, "cpu": cpu, "first": times[0][0], "peak": peak}
    if network.endswith(".yaml"):
        found["parameters"] = sum(p.numel() for p in model.parameters())
        found["operations"] = forward_operations(model, *inputs(args, 1))
    if args.largest and kind == "step":

        def fits(batch: int) -> bool:
            nonlocal mixture, query, target
            try:
                mixture, query, target = inputs(args, batch)
                step()
                torch.cuda.synchronize()
            except torch.cuda.OutOfMemoryError:
                return False
            finally:
                model.zero_grad()
                torch.cuda.empty_cache()
            return True

        found["largest"] = largest(fits)
    return found


def largest(fits: Callable[[int], bool]) -> int:
    """The greatest number that fits, where every smaller one does: by doubling and bisection; 0 if 1 does not."""
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def show_limits(args: argparse.Namespace) -> None:
    """Prints what the machine reaches by itself, and what that means for the network."""
    found = run_case(args, {"kind": "limits"})
    if found is None:
        return
    operations = network_operations(args.seconds, args.rate) * args.batch
    print(f"the network: {operations / 1e9:.0f} GFLOP forward")
    for name, speeds in found.items():
        listed = ", ".join(f"{what} {speed / 1e9:.0f}" for what, speed in speeds.items())
        print(f"{name}: GFLOP/s of {listed}; forward in no less than {operations / max(speeds.values()):.2f} s")


def limits(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Operations a second of a matrix product and of convolutions like the network's, by precision."""
    torch.set_num_threads(args.threads)
    found: dict[str, dict[str, float]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        options: dict[str, Any] = {"device": args.device, "dtype": dtype}
        a, b = torch.randn(2048, 2048, **options), torch.randn(2048, 2048, **options)
        speeds = {"a matrix product": 2 * 2048**3 / seconds_of(lambda a=a, b=b: a @ b, args)}
        for channels, rows, columns in ((32, 512, 512), (256, 128, 64)):
            x = torch.randn(1, channels, rows, columns, **options).to(memory_format=torch.channels_last)
            weight = torch.randn(channels, channels, 3, 3, **options).to(memory_format=torch.channels_last)
            work = 2 * 9 * channels**2 * rows * columns
            time_ = seconds_of(lambda x=x, w=weight: nn.functional.conv2d(x, w, padding=1), args)
            speeds[f"a convolution of {channels} channels"] = work / time_
        found[str(dtype).removeprefix("torch.")] = speeds
    return found


def seconds_of(call: Callable[[], Tensor], args: argparse.Namespace) -> float:
    """Best time of a call over a second or three calls; on a CPU that of its threads, as in the module's docstring."""
    cuda = torch.device(args.device).type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    times: list[float] = []
    with torch.inference_mode():
        call()
        while len(times) < 3 or (sum(times) < 1 and len(times) < 100):
            start = clock()
            call()
            if cuda:
                torch.cuda.synchronize()
            times.append(clock() - start)
    return min(times) / (1 if cuda else args.threads)


def separated(model: Callable[..., Any], mixture: Tensor, query: Tensor, enrolment: Tensor) -> Tensor:
    """Output of a network for a mixture: USS has no query, TSE an enrolment as well."""
    network = getattr(model, "_orig_mod", model)
    if isinstance(network, USS):
        return model(mixture).waveform
    return model(mixture, query, enrolment) if isinstance(network, TSE) else model(mixture, query)


def forward_operations(model: nn.Module, mixture: Tensor, query: Tensor, enrolment: Tensor) -> int:
    """Floating-point operations of a separator for one mixture, as :func:`network_operations`."""
    # Without inference mode and fused attention: the operators that are left are those that it knows.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        separated(model.train(), mixture, query, enrolment)
    return counter.get_total_flops()


def network_operations(seconds: float, rate: int) -> int:
    """Floating-point operations of the U-Net for one mixture: a multiplication and an addition are two."""
    with torch.device("meta"):
        model = ResUNetK().eval()
        frames = round(seconds * rate) // model.hop_length + 1
        frames += -frames % model.time_ratio
        betas = model.film(model.label_embedding(torch.zeros(1, 54)))
        x = torch.zeros(1, 4, frames, model.n_fft // 2)
        with FlopCounterMode(display=False) as counter:
            model.base(model.base.pre_conv(x), betas)
    return counter.get_total_flops()


def inputs(args: argparse.Namespace, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mixture [B, 4, T] of noise, query [B, 3, 18], targets [B, 3, T] that are parts of it."""
    generator = torch.Generator().manual_seed(0)
    sources = 0.05 * torch.randn(batch, 3, round(args.seconds * args.rate), generator=generator)
    mixture = torch.einsum("mk,bkt->bmt", torch.randn(4, 3, generator=generator), sources)
    query = torch.eye(18)[:3].expand(batch, 3, 18)
    return mixture.to(args.device), query.to(args.device), sources.to(args.device)


def make_weights(args: argparse.Namespace, folder: Path) -> None:
    """Weights of the official network (of ours without one), batch norms moved from the identity."""
    torch.manual_seed(0)
    model = official_network(args) if args.official else ResUNetK()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    torch.save(model.state_dict(), folder / "weights.pt")


def official_network(args: argparse.Namespace) -> nn.Module:
    """The checkout's network at its published size."""
    sys.path[:0] = [args.official, *([args.packages] if args.packages else [])]
    try:
        from src.models.resunet2.resunet_mod import ResUNet30
    except ImportError as e:
        sys.exit(f"{args.official}: {e}; see --help on --packages")
    return ResUNet30(input_channels=4, output_channels=1, target_sources_num=3, label_len=54)


def agreement_db(reference: Path, other: Path) -> str:
    """Power of the reference over that of the difference, in dB."""
    if not reference.exists():
        return "-"
    a, b = torch.load(reference), torch.load(other)
    if a.shape != b.shape:
        return "other size"
    error = (a - b).square().sum()
    return f"{10 * torch.log10(a.square().sum() / error):.1f} dB" if error > 0 else "-"


def show_profile(run: Callable[[], Tensor], name: str) -> None:
    """The operators that take longest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    print(f"--- {name}")
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=45))


def cpu_model() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
