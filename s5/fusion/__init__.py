"""From several taggers to one set of labels, and from several separators to one waveform a slot."""

from s5.fusion.vote import align_slots, vote
from s5.fusion.waveforms import fuse

__all__ = ["align_slots", "fuse", "vote"]
