"""Renders scenes with a checkout of SpAudSyn, in an environment of its own; started by render.py.

usage: spaudsyn_worker.py CHECKOUT SCENES.json OUT.npz NUM_COMPARED    (in the folder that the scenes' paths start from)
"""

import json
import sys
import time

import numpy as np

checkout, scenes, out, compared = sys.argv[1:]
sys.path.insert(0, checkout)
from src.spatial_audio_synthesizer import SpAudSyn  # noqa: E402

with open(scenes) as file:
    metadata = json.load(file)
for scene in metadata:
    scene["room"]["module"] = "src.room"
# What the baseline's training asks for.
wanted = {"dry": True, "dry_channel": 0, "metadata": True}
SpAudSyn.from_metadata(metadata[0]).synthesize(fg_return=wanted)
kept, wall, cpu = {}, 0.0, 0.0
for i, scene in enumerate(metadata):
    wall_start, cpu_start = time.perf_counter(), time.process_time()
    made = SpAudSyn.from_metadata(scene).synthesize(fg_return=wanted)
    wall += time.perf_counter() - wall_start
    cpu += time.process_time() - cpu_start
    if i < int(compared):
        kept[f"mixture{i}"] = made["mixture"].astype(np.float32)
        kept[f"dry{i}"] = np.array([event["waveform_dry"][0] for event in made["fg_events"]], dtype=np.float32)
np.savez(out, **kept)
print(json.dumps({"scenes": len(metadata), "wall": wall, "cpu": cpu}))
