"""Reads, checks and writes Kaldi data directories and audio files. Needs no torch."""

from __future__ import annotations

from s5.data.audio import Clipped, audio_info, next_frames, open_audio, read_audio, whole_numbers, write_audio
from s5.data.content import data_content, write_content
from s5.data.datadir import DataDir, Row, remove_data_dir_files, write_data_dir

__all__ = [
    "Clipped",
    "DataDir",
    "Row",
    "audio_info",
    "data_content",
    "next_frames",
    "open_audio",
    "read_audio",
    "remove_data_dir_files",
    "whole_numbers",
    "write_audio",
    "write_content",
    "write_data_dir",
]
