"""Tuning of a system's vote, gate, sharpening, fusion and loop on a validation set, with one run of the networks."""

from s5.tuning.cache import Cache, collect
from s5.tuning.search import Outcome, Tuning, tune
from s5.tuning.space import PARTS, Setting, Space, vote_settings

__all__ = ["PARTS", "Cache", "Outcome", "Setting", "Space", "Tuning", "collect", "tune", "vote_settings"]
