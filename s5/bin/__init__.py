"""Command-line entry points: each reads its options and calls the function that does the work."""
