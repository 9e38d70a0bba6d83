"""Output of a training for people: tensorboard, W&B, and examples to hear and see."""
