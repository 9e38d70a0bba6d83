"""Models that are trained on the outputs of others: what a system's YAML may say, and the order of trainings."""

import pytest
import yaml

from s5.system.config import SystemConfig
from s5.system.plan import plan
from s5.utils.errors import InputError

KEYS = {
    "taggers": {"tags": {"train": "t.yaml", "finetune": "t2.yaml"}},
    "separators": {
        "first": {"train": "s.yaml"},
        "second": {"train": "s.yaml", "finetune": "s2.yaml", "checkpoint": "3epoch.pth"},
        "ready": {"experiment": "published"},
    },
    "source_taggers": {"source": {"train": "c.yaml", "finetune": "c2.yaml", "estimates": ["first", "ready"]}},
}


def written(folder, source=None, **changes):
    entry = {**KEYS["source_taggers"]["source"], **(source or {})}
    path = folder / "system.yaml"
    path.write_text(yaml.safe_dump({**KEYS, "source_taggers": {"source": entry}, **changes}))
    for name in ("t", "t2", "s", "s2", "c", "c2"):
        (folder / f"{name}.yaml").write_text("{}\n")
    return str(path)


def test_what_learns_from_estimates_is_trained_after_its_estimators(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = {one["folder"]: one for one in plan(written(tmp_path)) if one["what"] == "training"}
    assert {name: one["stage"] for name, one in entries.items()} == {
        "tags": "3",
        "tags_ft": "4",
        "first": "5",
        "second": "5",
        "second_ft": "6",
        "source": "6",
        "source_ft": "6",
    }
    assert entries["source"]["needs"] == "first published" and entries["source_ft"]["needs"] == "source first published"
    order = list(entries)
    assert order.index("first") < order.index("source") < order.index("source_ft")


def test_each_phase_may_have_estimators_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    system = written(tmp_path, {"estimates": {"train": ["first"], "finetune": ["second"]}})
    needs = {one["folder"]: one.get("needs", "") for one in plan(system) if one["what"] == "training"}
    assert needs["source"] == "first" and needs["source_ft"] == "source second_ft"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"estimates": ["firt"]}, "source_taggers.source.estimates: found model firt, expected first"),
        ({"estimates": ["tags"]}, "estimates: found model tags"),  # posteriors are no waveforms
        ({"estimates": ["source"]}, "estimates: found model source"),
        ({"estimates": {"finetune2": ["first"]}}, "estimates: found phase finetune2, expected "),
    ],
)
def test_estimators_are_models_with_waveforms(tmp_path, source, message):
    with pytest.raises(InputError) as e:
        SystemConfig.load(written(tmp_path, source))
    assert message in str(e.value) and "\n" not in str(e.value)


def test_only_some_kinds_learn_from_estimates(tmp_path):
    separators = {**KEYS["separators"], "first": {"train": "s.yaml", "estimates": ["second"]}}
    with pytest.raises(InputError, match=r"separators\.first\.estimates: found models, expected none"):
        SystemConfig.load(written(tmp_path, separators=separators))


def test_a_cycle_is_told_with_its_models(tmp_path, monkeypatch):
    from s5.system.kinds import KINDS

    monkeypatch.setitem(KINDS, "separator", KINDS["separator"]._replace(takes_estimates=True))
    separators = {"a": {"train": "s.yaml", "estimates": ["b"]}, "b": {"train": "s.yaml", "estimates": ["a"]}}
    with pytest.raises(InputError, match=r"key estimates: found a cycle, (a -> b -> a|b -> a -> b), expected models"):
        SystemConfig.load(written(tmp_path, {"estimates": ["a"]}, separators=separators))


def test_frames_are_a_taggers_and_come_from_its_last_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    separators = {"first": {"train": "s.yaml", "finetune": "s2.yaml", "frames": "tags"}, "ready": {"experiment": "x"}}
    entries = {one["folder"]: one for one in plan(written(tmp_path, {"estimates": ["ready"]}, separators=separators))
               if one["what"] == "training"}  # fmt: skip
    assert (entries["first"]["stage"], entries["first"]["needs"]) == ("5", "tags_ft")
    assert (entries["first_ft"]["stage"], entries["first_ft"]["needs"]) == ("6", "first tags_ft")
    with pytest.raises(InputError, match="estimates: found model first, which needs frames, expected models without"):
        SystemConfig.load(written(tmp_path, {"estimates": ["first"]}, separators=separators))
    with pytest.raises(InputError, match=r"source\.frames: found tagger tags, expected "):
        SystemConfig.load(written(tmp_path, {"estimates": ["ready"], "frames": "tags"}, separators=separators))
    separators["first"]["frames"] = "tag"
    with pytest.raises(InputError, match=r"separators\.first\.frames: found tagger tag, expected tags"):
        SystemConfig.load(written(tmp_path, {"estimates": ["ready"]}, separators=separators))
