"""Helpers independent of audio: configuration, errors, files, processes, progress and figures."""
