"""Separates the sources of a mixture that a query of labels asks for."""

import torch
from torch import nn

from s5.separation.espnet import ESPnetSeparator
from s5.separation.locoformer import Locoformer
from s5.separation.resunetk import ResUNetK
from s5.separation.tfgridnet import TFGridNet

SEPARATORS = {"resunetk": ResUNetK, "locoformer": Locoformer, "tfgridnet": TFGridNet, "espnet": ESPnetSeparator}
"""Separators by the name that a configuration uses. Those that need ESPnet import it when one is built."""


def memory_format(network: nn.Module) -> nn.Module:
    """Changes the weights to channels-last memory if the network asks for it (attribute ``channels_last``)."""
    if getattr(network, "channels_last", False):
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


__all__ = ["SEPARATORS", "ESPnetSeparator", "Locoformer", "ResUNetK", "TFGridNet", "memory_format"]
