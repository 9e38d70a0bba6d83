"""Helpers that know nothing of the field: configuration, errors, files, processes, progress."""
