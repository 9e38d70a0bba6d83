"""Writes RESULTS.md, figures and the listening page from an experiment folder (stage 12)."""
