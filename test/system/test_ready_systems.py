"""The systems in conf/systems: they load, name trainings that there are, and have the reports' weights."""

import dataclasses
import json
import re

import pytest

from s5.fusion import ObjectsConfig
from s5.labels import DCASE_LABELS
from s5.system.config import SystemConfig, system_name
from s5.system.derived import derived_sizes
from s5.system.kinds import KEYS
from s5.system.sizes import split_size, training_keys, with_size
from s5.utils.config import ROOT, load_inherited, load_yaml, merge
from s5.utils.errors import InputError

SYSTEMS = ROOT / "conf/systems"
READY = sorted(p for p in SYSTEMS.rglob("*.yaml") if p.parent.name != "parts")
REPORTS = [p for p in READY if p.parent not in (SYSTEMS, SYSTEMS / "objects")]
OTHERS = ("taggers", "taggers_multihot", "refine", "refine_source", "objects/medium", "objects/large")
MINI = [*REPORTS, *(SYSTEMS / f"{name}.yaml" for name in OTHERS)]
ALL = [*map(str, READY), *(f"{path}:mini" for path in MINI)]


def load(name, size="full"):
    return SystemConfig.load(f"{SYSTEMS / name}.yaml:{size}")


def folders(system):
    return [[m.folder() for m in models] for models in (system.taggers, system.separators)]


def trainings(system):
    """Keys of each training of a system by its experiment folder."""
    config, size = SystemConfig.load(system), split_size(system)[1]
    models = [m for _, m in config.all_models()]
    made = {m.folder(phase): training_keys(m.files(phase), size) for m in models for phase in m.phases()}
    small = {folder: bool(re.search("tiny|smoke", folder)) for folder in made}
    scenes = {True: (16000, 4.0), False: (32000, 10.0)}
    return {folder: merge(keys, derived_sizes(keys, *scenes[small[folder]])) for folder, keys in made.items()}


def said(value):
    """A configuration without keys that have their default."""
    if isinstance(value, dict):
        return {k: said(v) for k, v in value.items() if v is not None and (k, v) not in DEFAULTS}
    return [said(entry) for entry in value] if isinstance(value, list) else value


DEFAULTS = [("amsgrad", False), ("bf16", False), ("ema_decay", 0.0), ("checkpointing", False)]
DEFAULTS += [("conditioning", "film"), ("release", "laion")]


NEW = ("taggers", "taggers_multihot", "refine", "refine_source", "yamnet", "mini_refined")


@pytest.mark.parametrize("system", ALL, ids=system_name)
def test_systems_and_trainings_are_those_that_the_figures_were_made_with(system, golden):
    """test/golden/systems.json: networks, settings and folders of when sizes had YAMLs of their own."""
    known = json.loads((golden / "systems.json").read_text())
    name, config = system_name(system), dataclasses.asdict(SystemConfig.load(system))
    if name not in known["systems"]:
        # Small ones alone then, or none yet.
        assert name.removesuffix("_mini") in NEW or "locoformer" in name or name.startswith(("mini", "objects_"))
        return
    expected = known["systems"][name]
    found = {key: [[m["name"], m["weight"], m["checkpoint"]] for m in config.pop(key)] for key in KEYS}
    assert found == {key: expected.pop(key, []) for key in KEYS}
    assert config.pop("kind") == "queried" and config.pop("objects") == dataclasses.asdict(ObjectsConfig())
    if config["refine"]:
        assert config["refine"].pop("tagger") is None
    assert json.loads(json.dumps(config)) == {key: value for key, value in expected.items() if key != "folders"}
    made = trainings(system)
    assert list(made) == expected["folders"]
    for folder, keys in made.items():
        assert json.loads(json.dumps(said(keys))) == known["trainings"][folder], folder


def test_names_of_systems_and_of_experiments_are_told_apart():
    names = [system_name(system) for system in ALL]
    assert len(names) == len(set(names))
    known = {}
    for system in ALL:
        for folder, keys in trainings(system).items():
            assert known.setdefault(folder, keys) == keys, f"{system}: {folder} is another training elsewhere"
    assert not set(names) & set(known)  # both have their folders in exp/


def test_inheritance_is_two_deep_at_most():
    for path in [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "egs").rglob("conf/**/*.yaml")]:
        assert depth(path) <= 2, path


def depth(path):
    parents = load_yaml(path).get("inherit") or []
    parents = [parents] if isinstance(parents, str) else parents
    return max((1 + depth(path.parent / parent) for parent in parents), default=0)


@pytest.mark.parametrize("path", MINI, ids=system_name)
def test_a_size_changes_models_and_what_mini_scenes_ask_for_alone(path):
    full, mini = SystemConfig.load(path), SystemConfig.load(f"{path}:mini")
    assert [m.name for m in full.taggers] == [m.name for m in mini.taggers]
    assert [m.name for m in full.separators] == [m.name for m in mini.separators]
    assert (full.weights(), full.fusion, full.gate) == (mini.weights(), mini.fusion, mini.gate)
    assert full.vote == dataclasses.replace(mini.vote, n_min=full.vote.n_min)
    assert (full.refine is None) == (mini.refine is None)
    for a, b in zip([*full.taggers, *full.separators], [*mini.taggers, *mini.separators], strict=True):
        assert len(a.phases()) == len(b.phases()) and "_tiny" in b.folder() and "_tiny" not in a.folder()


def test_a_size_that_has_nothing_for_a_model_is_refused():
    with pytest.raises(InputError, match=r"sizes/mini.yaml: key taggers: found no yamnet_tiny, which .*mini.yaml has"):
        load("mini", "mini")
    with pytest.raises(InputError, match="--size: found minni, expected mini"):
        load("deng2026/final", "minni")
    with pytest.raises(InputError, match=r"--size: found mini, expected none with a.s5"):
        with_size("a.s5", "mini")


# Deng et al..


def test_the_vote_of_deng2026():
    for row in ("vote", "silence_gate", "clap_gate", "finetuned", "tfgridnet", "final"):
        config = load(f"deng2026/{row}")
        assert config.weights() == {"m2d_bigru": 0.52, "m2d_fc_4c": 0.16, "clap_fc": 0.32}
        assert (config.vote.rule, config.vote.gamma, config.refine) == ("vote", 0.5, None)


def test_the_fusion_weights_of_table_2():
    config = load("deng2026/final")
    assert config.fusion.default == {"resunetk_ft": 1.0, "tfgridnet": 0.0}
    groups = {
        "VacuumCleaner MechanicalFans HairDryer": [0.95, 0.05],
        "Typing Blender": [0.99, 0.01],
        "Percussion Cough Clapping AlarmClock MusicalKeyboard Buzzer": [0.995, 0.005],
    }
    expected = {label: weights for labels, weights in groups.items() for label in labels.split()}
    found = {label: [w["resunetk_ft"], w["tfgridnet"]] for label, w in config.fusion.rules().items()}
    assert found == expected and set(found) <= set(DCASE_LABELS)


def test_the_rows_of_table_1_add_one_thing_each():
    rows = {row: load(f"deng2026/{row}") for row in ("baseline", "vote", "silence_gate", "clap_gate", "finetuned")}
    rows |= {row: load(f"deng2026/{row}") for row in ("tfgridnet", "final", "verification")}
    assert folders(rows["baseline"]) == [["m2d_fc_1c_ft"], ["resunetk"]]
    assert folders(rows["vote"])[1] == ["resunetk"] and rows["vote"].gate is None
    assert rows["silence_gate"].gate.taggers is None and rows["clap_gate"].gate.taggers == ["clap_fc"]
    assert folders(rows["finetuned"])[1] == ["resunetk_ft2"] and rows["finetuned"].gate is None
    assert folders(rows["tfgridnet"])[1] == ["resunetk_ft2", "tfgridnet"] and not rows["tfgridnet"].fusion.sharpen
    assert set(rows["final"].fusion.sharpen) == {"resunetk_ft"} and rows["final"].fusion.sharpen["resunetk_ft"] > 0
    assert rows["verification"].refine.candidates is None and not rows["verification"].refine.separate_again


# Nguyen et al..


def test_the_systems_of_nguyen2026_differ_in_tagger_or_loss():
    losses = {}
    for row in ("ca_pi_sdr", "ca_sdr", "pi_sdr", "4c"):
        (separator,) = load(f"nguyen2026/{row}").separators
        losses[row] = load_inherited(ROOT / separator.train)["loss"]
    assert losses == {"ca_pi_sdr": "ca_pi_sdr", "ca_sdr": "ca_sdr", "pi_sdr": "pi_sdr", "4c": "ca_pi_sdr"}
    channels = {}
    for row in ("1c", "4c"):
        (tagger,) = load(f"nguyen2026/{row}").taggers
        channels[row] = load_inherited(ROOT / tagger.train)["network_conf"]["encoder"]["n_channels"]
    assert channels == {"1c": 1, "4c": 4}


# Park et al..

ROWS = ("baseline", "retrained_tagger", "retrained", "rolloff", "chroma", "rolloff_chroma", "ensemble")


def test_the_fourteen_rows_of_park2025():
    for row in ROWS:
        plain, agent = load(f"park2025/{row}"), load(f"park2025/{row}_agent")
        assert plain.refine is None and folders(plain) == folders(agent)
        assert (agent.refine.candidates.threshold, agent.refine.candidates.top, agent.refine.n_min) == (0.5, None, 1)
        assert (agent.refine.disagreement, agent.refine.loops, agent.refine.mixture_weight) == ("remove", 1, 0.0)
        assert (plain.vote.rule, plain.vote.threshold, plain.vote.n_min) == ("average", 0.5, 1)
    separators = [folders(load(f"park2025/{row}"))[1] for row in ROWS]
    assert separators == [["resunetk_2025"]] * 2 + [["resunetk_2025_ft"]] * 5


def test_the_ensemble_of_park2025():
    weights = {"m2d_rolloff_chroma": 0.35, "m2d_chroma": 0.30, "m2d_rolloff": 0.20, "m2d_dual": 0.15}
    assert load("park2025/ensemble").weights() == weights


def test_the_yaml_of_the_documentation_is_one(tmp_path):
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/systems.md").read_text(), re.S)[1]
    (tmp_path / "other.yaml").write_text("taggers: {old: {train: old.yaml}}\n")
    (tmp_path / "system.yaml").write_text(text)
    config = SystemConfig.load(tmp_path / "system.yaml")
    assert config.weights() == {"m2d_fc": 0.16, "clap_fc": 1.0} and config.refine.candidates.top == 3


@pytest.mark.parametrize("name", ["mini", "medium", "large", "medium:mini"])
def test_an_objects_system_learns_in_the_order_of_its_clues(name):
    """USS; what hears its outputs; the source tagger again, with those of TSE. All have one network a kind."""
    system = SystemConfig.load(f"{SYSTEMS}/objects/{name.replace(':', '.yaml:') if ':' in name else f'{name}.yaml'}")
    (uss,), (tse,), (tagger,) = system.uss, system.tse, system.source_taggers
    order = list(system.trainings())
    assert order.index(uss.folder()) < order.index(tse.folder("train")) < order.index(tse.folder())
    assert order[-1] == tagger.folder() == f"{tagger.folder('train')}_ft"
    assert [tagger.estimators(phase) for phase in tagger.phases()] == [[uss.name], [uss.name, tse.name]]
    sizes = [training_keys(m.files("train"), split_size(name)[1])["network_conf"] for m in (uss, tse)]
    assert sizes[0]["dim"] == sizes[1]["dim"] and sizes[0]["bands"] == sizes[1]["bands"]  # TSE starts from USS
