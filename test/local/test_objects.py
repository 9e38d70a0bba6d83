"""The study of an objects system: its figures are those of the parts, and what is not trained is said."""

import sys
from pathlib import Path

import numpy as np
import pytest

from s5 import S5System
from s5.data import DataDir
from s5.metrics import pi_sdri

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "local/studies"))
import objects as study


def test_rows_of_what_is_trained_and_reasons_for_the_rest(recipe, objects_trained, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    options = ["--data", "data/valid", "--expdir", objects_trained, "--system", "objects.yaml", "--out", out]
    study.main([*map(str, options), "--against", "system.yaml", "--queried", "system.yaml"])
    text = capsys.readouterr().out
    assert (out / "objects.md").read_text() == text.removesuffix("\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")][2:]
    found = {(row[0], row[1]): row for row in rows}
    assert {proof for proof, _ in found} == {"b", "c", "d", "e"}
    assert "objects_dry.yaml" in text.split("Not trained:")[1] and "* a, separator of system" in text
    system, data, values = S5System.from_yaml("objects.yaml", objects_trained, "cpu"), DataDir.load("data/valid"), []
    for utt in data.utts:
        mixture, _ = data.mixture(utt)
        refs = data.sources(utt)[: len(data.labels[utt])]
        if len(refs):
            from itertools import combinations

            slots = system.networks.separate(mixture[None])[0][0]
            # All choices of as many slots as sources; the best choice is at least as good as the study's.
            values.append(max(pi_sdri(slots[list(c)], refs, mixture[0]) for c in combinations(range(3), len(refs))))
    shown = float(found["b", "interference and rest, too"][3])
    assert shown == pytest.approx(np.mean(values), abs=0.3) and shown <= np.mean(values) + 0.01
    gained = found["d", "both, second pass"]
    assert float(gained[4]) == pytest.approx(float(gained[3]) - float(found["d", "label"][3]), abs=0.011)
