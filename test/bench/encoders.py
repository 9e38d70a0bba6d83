"""Encoders of taggers in one run: inference of a mixture, and a training step of the head on the frozen encoder.

    python test/bench/encoders.py

M2D as the official taggers have it (random weights, which take the same time) beside YAMNet as it comes with the
repository, on the reference channel of 10 s at 32 kHz, and M2D of the mini recipe beside YAMNet on 4 s at 16 kHz.

Times are minima (and medians) over rounds in which the encoders take turns, by the wall clock: run it on an idle
machine. On a busy one, --cpu_time with one thread counts what the process itself used. Speed is that of the minima
against the first line of a table, M2D.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tagger import Run, cpu_model, say, show, time_all
from torch import Tensor

from s5.tagging import Tagger
from s5.tagging.losses import pit_cross_entropy
from s5.utils.config import ROOT, load_inherited

SETTINGS = {
    "10 s at 32 kHz": (320000, {"M2D": "tagger_m2d_fc_1c", "YAMNet": "tagger_yamnet_tiny"}, {"sampling_rate": 32000}),
    "4 s at 16 kHz": (64000, {"M2D": "tagger_m2d_tiny", "YAMNet": "tagger_yamnet_tiny"}, {}),
}
"""Samples of a mixture, the training YAML that says each encoder, and what is said otherwise of YAMNet."""


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    parser.add_argument("--cpu_time", action="store_true", help="CPU seconds of the process; for --threads 1")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, each times every encoder once (7)")
    parser.add_argument("--batch", type=int, default=16, help="mixtures of a training step (16)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    say(f"{cpu_model()}, {args.threads} threads, torch {torch.__version__}, Python {platform.python_version()}")
    for what, (samples, yamls, changes) in SETTINGS.items():
        taggers = {name: build(yaml, changes if name == "YAMNet" else {}) for name, yaml in yamls.items()}
        for name, tagger in taggers.items():
            n = sum(p.numel() for p in tagger.encoder.parameters())
            say(f"{name}: {n / 1e6:.2f} M weights in the encoder, {tagger.encoder.dim} features a frame")
        mixture = 0.1 * torch.randn(args.batch, 1, samples, generator=torch.Generator().manual_seed(0))
        infer = {name: inference(tagger) for name, tagger in taggers.items()}
        show(f"inference, {what}", time_all(infer, mixture[:1], args, args.rounds), {})
        steps = {name: head_step(tagger) for name, tagger in taggers.items()}
        show(f"step of the head, batch of {args.batch}", time_all(steps, mixture, args, max(3, args.rounds // 2)), {})


def build(name: str, changes: dict[str, int]) -> Tagger:
    """A tagger whose encoder is that of a training YAML, frozen; both have the head of YAMNet's."""
    conf, head = (
        load_inherited(ROOT / f"conf/tuning/{yaml}.yaml")["network_conf"] for yaml in (name, "tagger_yamnet_tiny")
    )
    encoder = {"kind": "m2d", **conf["encoder"], **changes}
    if encoder["kind"] == "m2d":
        encoder["weights"] = None
    tagger = Tagger(encoder=encoder, head=head["head"], trainable="head")
    tagger.encoder.load_weights()
    return tagger


def inference(tagger: Tagger) -> Run:
    """A function of mixtures: logits."""

    def run(mixture: Tensor) -> Tensor:
        with torch.inference_mode():
            return tagger.eval()(mixture)

    return run


def head_step(tagger: Tagger) -> Run:
    """A function of mixtures: one training step of the head."""
    optimizer = torch.optim.AdamW(tagger.head.parameters(), lr=1e-6)

    def run(mixture: Tensor) -> None:
        optimizer.zero_grad()
        pit_cross_entropy(tagger.train()(mixture), torch.arange(3).expand(len(mixture), 3))[0].mean().backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    main()
