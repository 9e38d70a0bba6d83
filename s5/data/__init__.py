"""Kaldi data directories and audio files <-> arrays, with checks. Needs no torch."""

from __future__ import annotations

from s5.data.audio import audio_info, read_audio, write_audio, write_bytes
from s5.data.content import data_content, write_content
from s5.data.datadir import DataDir, Row, remove_data_dir_files, write_data_dir

__all__ = [
    "DataDir",
    "Row",
    "audio_info",
    "data_content",
    "read_audio",
    "remove_data_dir_files",
    "write_audio",
    "write_bytes",
    "write_content",
    "write_data_dir",
]
