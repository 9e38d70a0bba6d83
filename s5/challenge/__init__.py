"""Code for the DCASE Challenge alone: its data, its baselines' checkpoints and its submissions."""
