"""The tagging task: ``python -m s5.bin.train --task tagging``."""

from __future__ import annotations

import argparse

from s5.tagging import TAGGERS
from s5.tasks.base import S5Task
from s5.tasks.models import TaggingModel


class TaggingTask(S5Task):
    """Trains a track-based tagger with permutation-invariant cross entropy."""

    networks = dict(TAGGERS)
    with_sources = False

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> TaggingModel:
        """The tagger that the arguments describe."""
        return TaggingModel(cls.build_network(args), len(args.labels), args.bf16)
