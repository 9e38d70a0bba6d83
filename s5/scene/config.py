"""Configuration of a sampler of scenes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

NUM_SCENES = 1000
"""Of a configuration that does not say it."""


@dataclass
class SceneDirs:
    """Folders of the raw material, in the official layout; null where a scene shall hold none of a kind."""

    sound_event: str
    """``<Label>/<source folder>/<file>`` or ``<Label>/<file>``."""
    room_ir: str
    """A folder of SOFA files, or one such file."""
    interference: str | None = None
    """``<label>/<file>``."""
    noise: str | None = None
    """Multi-channel backgrounds."""


@dataclass
class Subset:
    """A part of a set with rules of its own: the first ``num_scenes`` scenes of the set are of its first subset."""

    name: str
    num_scenes: int
    n_events: tuple[int, int]
    same_class_probability: float = 0.0


@dataclass
class SpatialScaperOptions:
    """What the simulator ``spatialscaper`` alone is told (docs/spatialscaper.md)."""

    moving_probability: float = 0.0
    """Of an event to move."""
    speed_limit: float = 1.5
    """Metres a second, between the ends of a trajectory."""
    format: str = "foa"
    """Of the files in its own folder layout: ``<room>_<format>.sofa``."""


@dataclass
class SamplerConfig:
    """Keys of a sampler's YAML. Times in seconds, levels in dB, angles in degrees; ranges include both ends."""

    labels: str | list[str]
    """Path of a file with one label a line, or the labels."""
    sampling_rate: int
    duration: float
    dirs: SceneDirs
    seed: int = 0
    num_scenes: int = None  # type: ignore[assignment]  # __post_init__ sets it
    """Scenes of a fixed set, or of one epoch; by default those of the subsets together, or 1000."""
    n_events: tuple[int, int] = (0, 3)
    n_slots: int = 3
    same_class_probability: float = 0.5
    """Of a scene with two or more events to repeat labels."""
    same_class_min_angle: float = 60.0
    """Events of a label lie further apart than this, seen from the microphone."""
    max_same_class: int = 2
    """Most events that repeat a label already chosen. Where labels run out, events repeat one in any case."""
    max_event_overlap: int = 3
    """Counted for foreground and interference apart."""
    max_event_duration: float = 10.0
    """A longer file is cut at a random start."""
    ref_db: float = -55.0
    event_snr: tuple[float, float] = (5.0, 20.0)
    interference: tuple[int, int] = (0, 2)
    interference_snr: tuple[float, float] = (0.0, 15.0)
    direct_range_ms: tuple[float, float] = (6.0, 50.0)
    """The dry target's part of the impulse response, before and after its largest sample."""
    spatialscaper: SpatialScaperOptions = field(default_factory=SpatialScaperOptions)
    rules: Literal["dcase2026", "dcase2025"] = "dcase2026"
    """Of drawing and rendering; dcase2025 wants same_class_probability 0."""
    same_class_folder_depth: int = 1
    """Events of a label come from different folders so many levels below the label; 0: from different files only."""
    subsets: list[Subset] | None = None
    """Parts of the set; their keys replace those above. Another num_scenes than their sum scales them alike."""

    def __post_init__(self) -> None:
        if self.num_scenes is None:
            self.num_scenes = sum(subset.num_scenes for subset in self.subsets) if self.subsets else NUM_SCENES
