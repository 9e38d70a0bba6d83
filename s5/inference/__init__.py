"""Decoding stages: results folders, stages 7 to 10, and scoring."""
