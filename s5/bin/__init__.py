"""Command-line entry points, one a stage: each parses, calls, writes, and holds no logic."""
