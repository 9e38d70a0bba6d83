"""What a training shows to people: tensorboard, W&B, examples to hear and to see."""
