"""Our tagger and the official one in one run, with the same weights: 4 channels x 10 s, labels, training steps, memory.

    python test/bench/tagger.py --official CHECKOUT [--packages FOLDER]

CHECKOUT is a copy of github.com/nttcslab/dcase2026_task4_baseline, whose taggers want timm (with the torchvision that
fits torch) and nnAudio: ``pip install --no-deps --target FOLDER timm nnAudio torchvision`` into a folder of your own,
then ``--packages FOLDER``. M2D's weights are random (a file in the layout of its release, read by both sides), unless
--weights names the release; the head is trained for a while on noise of many colours, so that its labels mean
something. Without --official, ours alone is timed.

Times are minima (and medians) over rounds in which the variants take turns, by the wall clock: run it on an idle
machine. On a busy one, --cpu_time with one thread counts what the process itself used. Speed is that of the minima
against the first line. Memory is the peak above the built tagger, of a process for each line; a training step's has the
optimizer's averages in it. "bf16" is the option of that name: autocast to bfloat16.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import logging
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn

from s5.checkpoints import load_official
from s5.tagging import M2DTagger
from s5.tagging.losses import pit_cross_entropy
from s5.tagging.m2d import M2DEncoder

RELEASE = "m2d_as_vit_base-80x1001p16x16p32k-240413_AS-FT_enconly"
CHANNELS, SECONDS, RATE = 4, 10, 32000
Run = Callable[[Tensor], Any]


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--official", type=Path, help="checkout of the baseline; by default only ours is timed")
    parser.add_argument("--packages", help="folder with what its taggers import, besides torch")
    parser.add_argument("--weights", type=Path, help="M2D's release file; by default random weights")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    parser.add_argument("--cpu_time", action="store_true", help="CPU seconds of the process; for --threads 1")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, each times every variant once (7)")
    parser.add_argument("--mixtures", type=int, default=8, help="mixtures whose labels are compared (8)")
    parser.add_argument("--train_mixtures", type=int, default=24, help="mixtures that the head is trained on (24)")
    parser.add_argument("--batch", type=int, default=8, help="mixtures of a training step (8)")
    parser.add_argument("--only", choices=("inference", "step"), help="inference or training steps alone")
    parser.add_argument("--no_memory", action="store_true", help="times alone")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)  # one variant in a process of its own
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    sys.path += [args.packages] if args.packages else []
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(json.dumps(peak_memory(args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.weights is None:
            args.weights = random_release(Path(folder))
        run(args)


def run(args: argparse.Namespace) -> None:
    """Times everything and prints the tables."""
    say(f"{cpu_model()}, {args.threads} threads, torch {torch.__version__}, Python {platform.python_version()}")
    taggers = build(args)
    if args.only != "step":
        train_heads(taggers, args.train_mixtures)
        run_inference(taggers, args)
    if args.only != "inference":
        run_steps(taggers, args)


def run_inference(taggers: dict[str, nn.Module], args: argparse.Namespace) -> None:
    """Times of one mixture, and whether the labels of others are the same."""
    calls = {name: variant(tagger, name, False) for name, tagger in taggers.items()}
    times = time_all(calls, mixtures(1)[0], args, args.rounds)
    show(f"inference, {CHANNELS} channels x {SECONDS} s", times, memories("inference", calls, args))

    reference = next(iter(taggers))
    unseen = [mixtures(1, seed)[0] for seed in range(args.mixtures)]
    logits = {name: torch.cat([call(item) for item in unseen]) for name, call in calls.items()}
    rows = []
    for name, values in logits.items():
        same = values.argmax(-1) == logits[reference].argmax(-1)
        difference = values - logits[reference]
        rms, largest = difference.square().mean().sqrt(), difference.abs().max()
        rows.append([name, f"{same.sum()} of {same.numel()}", f"{rms:.2g}", f"{largest:.2g}"])
    show_rows([f"{args.mixtures} other mixtures", "same top-1 labels", "RMS difference", "largest"], rows)
    say(f"the logits' own RMS is {logits[reference].square().mean().sqrt():.2g}")


def run_steps(taggers: dict[str, nn.Module], args: argparse.Namespace) -> None:
    """Times of a training step of the head, and what it needs above inference."""
    calls = {name: variant(tagger, name, True) for name, tagger in taggers.items() if "alone" not in name}
    times = time_all(calls, mixtures(args.batch)[0], args, max(3, args.rounds // 2))
    steps, inference = (memories(kind, calls, args) for kind in ("step", "batch"))
    show(f"training step of the head, batch of {args.batch}", times, steps)
    for name in inference:
        more = steps[name] - inference[name]
        say(f"{name}: inference of that batch {inference[name]:.0f} MB, the step {more:.0f} MB more")
    head = sum(p.numel() for p in taggers["ours, float32"].head.parameters()) * 4 / 2**20
    say(f"the head has {head:.0f} MB; its gradient and AdamW's two averages are {3 * head:.0f} MB")


def build(args: argparse.Namespace) -> dict[str, nn.Module]:
    """The taggers by the name of the variant that they run in; the same weights in all."""
    torch.manual_seed(0)
    encoder = {"weights": str(args.weights)}
    ours = M2DTagger(n_channels=CHANNELS, encoder=encoder, trainable="head").eval()
    ours.encoder.load_weights()
    found: dict[str, nn.Module] = {}
    if args.official:
        official = official_tagger(args.official, args.weights).eval()
        load_official(ours, official.state_dict())
        found["official, float32"] = official
    return found | {"ours, float32": ours, "ours, bf16": ours}


def official_tagger(checkout: Path, weights: Path) -> nn.Module:
    """The official 4-channel tagger whose head is trained."""
    sys.path.insert(0, str(checkout))
    from src.models.m2dat.m2dat_spatial import M2dAtSpatial

    with contextlib.redirect_stdout(None):
        return M2dAtSpatial(
            weight_file=str(weights),
            num_classes=19,
            num_outputs=3,
            nchan=CHANNELS,
            finetuning_layers="head",
            head_layer="catchan_average_linear",
        )


def variant(tagger: nn.Module, name: str, step: bool) -> Run:
    """A function of a batch of mixtures: logits, or one training step."""
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=not name.endswith("float32"))
    official = name.startswith("official")

    def logits(mixture: Tensor) -> Tensor:
        with autocast:
            return tagger({"waveform": mixture})["probabilities"] if official else tagger(mixture)

    if not step:
        return lambda mixture: _inferred(logits, mixture)
    trained = [p for p in tagger.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)

    def train(mixture: Tensor) -> None:
        tagger.train()
        target = torch.arange(3).expand(len(mixture), 3)
        optimizer.zero_grad()
        pit_cross_entropy(logits(mixture), target)[0].mean().backward()
        optimizer.step()
        tagger.eval()

    return train


def _inferred(logits: Run, mixture: Tensor) -> Tensor:
    with torch.inference_mode():
        return logits(mixture).float()


def time_all(runs: dict[str, Run], mixture: Tensor, args: argparse.Namespace, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, the variants taking turns."""
    clock = time.process_time if args.cpu_time else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    for function in runs.values():
        function(mixture)
    for _ in range(rounds):
        for name, function in runs.items():
            began = clock()
            function(mixture)
            times[name].append(clock() - began)
    return times


def show(what: str, times: dict[str, list[float]], megabytes: dict[str, float]) -> None:
    """A table with a row a variant; speeds are against the first one."""
    first = min(next(iter(times.values())))
    rows = [
        [
            name,
            f"{min(seconds):.3f}",
            f"{statistics.median(seconds):.3f}",
            f"{first / min(seconds):.2f}",
            f"{megabytes[name]:.0f}" if name in megabytes else "-",
        ]
        for name, seconds in times.items()
    ]
    show_rows([what, "s", "median", "speed", "memory in MB"], rows)


def show_rows(head: list[str], rows: list[list[str]]) -> None:
    """A Markdown table."""
    say("")
    for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
        say("| " + " | ".join(row) + " |")
    say("")


def say(line: str) -> None:
    """Prints at once: a run takes minutes."""
    print(line, flush=True)


def memories(kind: str, names: Iterable[str], args: argparse.Namespace) -> dict[str, float]:
    """:func:`memory` of variants in ``inference`` (of one mixture), ``batch`` or ``step``; none if not asked for."""
    return {} if args.no_memory else {name: memory(args, f"{kind}/{name}") for name in names}


def memory(args: argparse.Namespace, what: str) -> float:
    """Peak memory of one variant above what the built tagger holds, in MB, from a process of its own."""
    command = [sys.executable, __file__, "--memory_of", what, "--weights", str(args.weights)]
    command += ["--threads", str(args.threads), "--batch", str(args.batch)]
    command += ["--packages", args.packages] if args.packages else []
    command += ["--official", str(args.official)] if args.official and "official" in what else []
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def peak_memory(args: argparse.Namespace) -> float:
    """See :func:`memory`; in the process of its own."""
    kind, _, name = args.memory_of.partition("/")
    tagger = build(args)[name]
    call = variant(tagger, name, kind == "step")
    size = 1 if kind == "inference" else args.batch
    ctypes.CDLL(None).malloc_trim(0)  # what building has freed
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident()
    for seed in range(2):
        call(mixtures(size, seed)[0])
    return resident("VmHWM") - before


def resident(field: str = "VmRSS") -> float:
    """Resident memory in MB, now (VmRSS) or at most since the peak was reset (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def train_heads(taggers: dict[str, Any], n: int, steps: int = 40) -> None:
    """Trains our head on ``n`` mixtures with the encoder as it is, and gives it to the official tagger too."""
    ours = taggers["ours, float32"]
    waveform, label_index = mixtures(n, 1000)
    with torch.inference_mode():
        features = torch.cat([ours.encoder(item) for item in waveform.split(1)])
    features = features.clone()  # no inference tensor: gradients pass the head
    optimizer = torch.optim.AdamW(ours.head.parameters(), lr=1e-3)
    ours.head.train()
    for _ in range(steps):
        optimizer.zero_grad()
        pit_cross_entropy(ours.head(features), label_index)[0].mean().backward()
        optimizer.step()
    ours.eval()
    for tagger in taggers.values():
        tagger.head.load_state_dict(ours.head.state_dict())


def mixtures(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise [n, 4, 320000] of a colour and a rhythm each, and its labels [n, 3]: colour, rhythm, silence."""
    generator = torch.Generator().manual_seed(seed)
    samples = SECONDS * RATE
    spectrum = torch.fft.rfft(torch.randn(n, CHANNELS, samples, generator=generator))
    colour, rhythm = torch.randint(9, (2, n, 1, 1), generator=generator)
    frequency = torch.linspace(0, 9, spectrum.shape[-1])
    spectrum = spectrum * torch.exp(-((frequency - colour - 0.5) ** 2))
    envelope = 1 + torch.sin(2 * torch.pi * (rhythm + 1) * torch.arange(samples) / RATE)
    waveform = torch.fft.irfft(spectrum, n=samples) * envelope
    label_index = torch.stack([colour, rhythm + 9, torch.full_like(colour, 18)], dim=1).view(n, 3)
    return 0.1 * waveform / waveform.std(dim=(1, 2), keepdim=True), label_index


def random_release(folder: Path) -> Path:
    """A file with the release's name, sizes and layout, and random weights."""
    torch.manual_seed(1)
    file = folder / RELEASE / "weights_random.pth"
    file.parent.mkdir()
    encoder = M2DEncoder(weights=str(file))
    torch.save({f"module.ar.runtime.backbone.{k}": v for k, v in encoder.state_dict().items()}, file)
    return file


def cpu_model() -> str:
    """Name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
