"""Audio taggers: encoders, heads and losses."""

from s5.tagging.tagger import M2DTagger

TAGGERS = {"m2d": M2DTagger}
"""Taggers by the name that a configuration uses."""

__all__ = ["TAGGERS", "M2DTagger"]
