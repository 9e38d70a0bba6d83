"""Combines several taggers into one set of labels, and several separators into one waveform per slot."""

from s5.fusion.gates import GateConfig, gate, level
from s5.fusion.label_correction import CandidateConfig, Counts, RefineConfig, refinement
from s5.fusion.objects import Objects, ObjectsConfig, Pass, find_objects
from s5.fusion.voting import (
    Decision,
    Vote,
    VoteConfig,
    align_all,
    align_slots,
    average,
    check_weights,
    class_scores,
    decide,
    is_multi_hot,
    slot_winners,
    vote,
)
from s5.fusion.waveforms import FusionConfig, GroupConfig, fuse, match, slots_by_label

__all__ = [
    "CandidateConfig",
    "Counts",
    "Decision",
    "FusionConfig",
    "GateConfig",
    "GroupConfig",
    "Objects",
    "ObjectsConfig",
    "Pass",
    "RefineConfig",
    "Vote",
    "VoteConfig",
    "align_all",
    "align_slots",
    "average",
    "check_weights",
    "class_scores",
    "decide",
    "find_objects",
    "fuse",
    "gate",
    "is_multi_hot",
    "level",
    "match",
    "refinement",
    "slot_winners",
    "slots_by_label",
    "vote",
]
