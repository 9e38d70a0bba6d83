"""Label-queried separators and their losses."""

from s5.separation.resunetk import ResUNetK

SEPARATORS = {"resunetk": ResUNetK}
"""Separators by the name that a configuration uses."""

__all__ = ["SEPARATORS", "ResUNetK"]
