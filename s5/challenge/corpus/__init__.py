"""From published archives to a recipe's data: download, unpack, add, refine, verify. Needs no torch."""

from __future__ import annotations
