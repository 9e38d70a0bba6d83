"""Forms in which scenes are written down: lists of scenes, and the metadata of 2025."""
