"""Stage 12: RESULTS.md and the listening page from what is in an experiment folder."""
