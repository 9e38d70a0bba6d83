"""What belongs to the DCASE Challenge alone: its data, its baselines' checkpoints, its submissions."""
