"""TF-Locoformer's blocks as a backbone, and the label-queried separator that is made of them."""

from s5.separation.locoformer.dual_path import TFDualPath
from s5.separation.locoformer.network import Locoformer

__all__ = ["Locoformer", "TFDualPath"]
