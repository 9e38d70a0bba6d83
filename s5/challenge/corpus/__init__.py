"""Prepares a recipe's data from published archives: download, unpack, add, curate, verify. Needs no torch."""

from __future__ import annotations
