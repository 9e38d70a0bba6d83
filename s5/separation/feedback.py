"""The estimate fed back: a separator runs several passes, and each but the first sees what the one before it made.

A step of training runs a random number of passes, of which the last one alone has a gradient; decoding runs all (after
Morocutti et al., arXiv 2507.17297).
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from s5.utils.errors import InputError


class Passes(nn.Module):
    """The number of passes that a separator runs.

    Args:
        most: passes in evaluation, and the maximum in training.

    Raises:
        InputError: less than one pass.
    """

    steps: Tensor

    def __init__(self, most: int) -> None:
        super().__init__()
        if most < 1:
            raise InputError("passes", most, "at least 1")
        self.most = most
        if most > 1:
            self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def draw(self) -> int:
        """The number of passes of this step: all in evaluation, a random number in training.

        The number follows from the count of steps: it is the same in all processes of a distributed training,
        and a resumed training draws the next one.
        """
        if self.most == 1 or not self.training:
            return self.most
        n = random.Random(int(self.steps)).randint(1, self.most)
        self.steps += 1
        return n
