"""Configuration of a sampler of scenes, and the limits of the numbers in a scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

LARGEST = 1e9
"""Largest magnitude of times, positions and the like."""

LOUDEST = 200.0
"""Largest magnitude of a level in dB."""

MAX_SAMPLES = 1 << 27
"""Most samples of a scene, or of an event at its rate: 70 minutes at 32 kHz."""

NUM_SCENES = 1000
"""Default number of scenes."""

Rest = Literal["none", "residual", "noise"]
"""Targets of a scene beside its labelled sources: none, or the dry interference and a rest. The rest is the mixture's
reference channel minus all dry sources (``residual``) or the backgrounds on that channel (``noise``)."""


@dataclass
class SceneDirs:
    """Folders of the raw material, in the official layout; null for a kind that scenes do without."""

    sound_event: str
    """Folder of events: ``<Label>/<source folder>/<file>`` or ``<Label>/<file>``."""
    room_ir: str
    """Folder of SOFA files, or one such file."""
    interference: str | None = None
    """Folder of interference: ``<label>/<file>``."""
    noise: str | None = None
    """Folder of multi-channel backgrounds."""


@dataclass
class Subset:
    """A part of a set with its own rules. Subsets follow each other: the first one has the set's first scenes."""

    name: str
    num_scenes: int
    n_events: tuple[int, int]
    same_class_probability: float = 0.0


@dataclass
class SpatialScaperOptions:
    """Options of the simulator ``spatialscaper`` (docs/spatialscaper.md)."""

    moving_probability: float = 0.0
    """Probability that an event moves."""
    speed_limit: float = 1.5
    """Largest speed in m/s, between the ends of a trajectory."""
    format: str = "foa"
    """Format of the files in its own folder layout, ``<room>_<format>.sofa``."""


@dataclass
class SamplerConfig:
    """Keys of a sampler's YAML. Times in seconds, levels in dB, angles in degrees; ranges include both ends."""

    labels: str | list[str]
    """Path of a file with one label per line, or the labels themselves."""
    sampling_rate: int
    duration: float
    dirs: SceneDirs
    seed: int = 0
    num_scenes: int = None  # type: ignore[assignment]  # __post_init__ sets it
    """Number of scenes of a fixed set or an epoch; default: the sum over the subsets, or 1000."""
    n_events: tuple[int, int] = (0, 3)
    n_slots: int = 3
    same_class_probability: float = 0.5
    """Probability that a scene with two or more events repeats labels."""
    same_class_min_angle: float = 60.0
    """Least angle between events of a label, seen from the microphone."""
    max_same_class: int = 2
    """Most events that repeat a label already chosen. If labels run out, events repeat them in any case."""
    max_event_overlap: int = 3
    """Most events at any time; foreground and interference are counted separately."""
    max_event_duration: float = 10.0
    """Longest event; a longer file is cut at a random start."""
    ref_db: float = -55.0
    event_snr: tuple[float, float] = (5.0, 20.0)
    interference: tuple[int, int] = (0, 2)
    interference_snr: tuple[float, float] = (0.0, 15.0)
    direct_range_ms: tuple[float, float] = (6.0, 50.0)
    """Part of the impulse response in the dry target, before and after its largest sample."""
    spatialscaper: SpatialScaperOptions = field(default_factory=SpatialScaperOptions)
    rules: Literal["dcase2026", "dcase2025"] = "dcase2026"
    """Rules of drawing and rendering; dcase2025 requires same_class_probability 0."""
    same_class_folder_depth: int = 1
    """Events of a label come from different folders this many levels below the label; 0: only from different files."""
    rest: Rest = "none"
    """Further targets of a fixed set: ``residual`` or ``noise`` also writes the dry interference and that rest of each
    mixture (docs/simulation.md). Scenes do not depend on it; a training has its own key ``rest``."""
    colour: float = 0.0
    """Gains up to this many dB, up or down, of a filter that each recording passes, dry and wet; 0: no filter."""
    room_colour: float = 0.0
    """Gains up to this many dB, up or down, of a filter that a scene's reverberation passes; 0: no filter."""
    blend: float = 0.0
    """Probability that an event is the sum of two recordings from one source folder, if its folder has others."""
    subsets: list[Subset] | None = None
    """Parts of the set; their keys replace those above. If num_scenes differs from their sum, all are scaled alike."""

    def __post_init__(self) -> None:
        if self.num_scenes is None:
            self.num_scenes = sum(subset.num_scenes for subset in self.subsets) if self.subsets else NUM_SCENES
