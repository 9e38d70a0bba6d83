"""What systems put out: how its files are named."""
