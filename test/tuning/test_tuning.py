"""Tuning: what the search computes is what the pipeline gives; it finds what there is to find, without networks."""

import dataclasses
import logging

import numpy as np
import pytest
import yaml

from s5 import S5System
from s5.bin.tune import main
from s5.data import DataDir
from s5.fusion import GateConfig, VoteConfig, decide
from s5.inference import stages
from s5.labels import LabelSet
from s5.metrics import capi_sdri
from s5.system.config import SystemConfig
from s5.tuning import Cache, Setting, Space, collect, tune, vote_settings
from s5.tuning.cache import Item
from s5.tuning.result import as_table, write_yaml
from s5.tuning.search import _Search
from s5.tuning.space import decisions
from s5.utils.errors import InputError

SYSTEM = """
taggers:
  fine: {experiment: tagger, train: tagger.yaml, finetune: tagger_ft.yaml, weight: 0.7}
  coarse: {experiment: tagger, train: tagger.yaml, checkpoint: 1epoch.pth, weight: 0.3}
separators:
  last: {experiment: separator, train: separator.yaml}
  first: {experiment: separator, train: separator.yaml, checkpoint: 1epoch.pth}
fusion: {default: {last: 3.0}, classes: {Cough: {last: 2.0, first: 1.0}}}
vote: {gamma: 0.5}
"""
SPACE = Space(
    vote_step=0.5,
    gamma=[0.5, 2.0],
    gate_silence=[None, 0.2],
    gate_margin=[None, 10],
    fusion=[0.0, 0.1, 0.5],
    min_mixtures=1,
)


class Loud(S5System):
    """Silence never wins: a few training steps say silence everywhere."""

    def tag(self, mixture):
        return {name: p * ([1] * (p.shape[-1] - 1) + [0]) for name, p in super().tag(mixture).items()}


@pytest.fixture
def data(recipe):
    return DataDir.load("data/valid")


@pytest.fixture
def system(recipe, trained, tmp_path):
    (tmp_path / "two.yaml").write_text(SYSTEM)
    return Loud.from_yaml(tmp_path / "two.yaml", trained, "cpu")


def through_the_pipeline(system, data):
    """Mean CAPI-SDRi of what the system makes of each mixture."""
    values = []
    for utt in data.utts:
        mixture, _ = data.mixture(utt)
        posteriors = system.tag(mixture)
        vote = system.vote(posteriors)
        result = system.finish(mixture, vote, system.separate(mixture, vote.labels), posteriors)
        refs = list(data.labels[utt])
        value = capi_sdri(result.labels, result.sources, refs, data.sources(utt)[: len(refs)], mixture[0])
        values += [] if value is None else [value]
    return np.mean(values)


@pytest.mark.parametrize("gate", [None, GateConfig(margin=14.0)])
def test_the_search_computes_what_the_pipeline_gives(system, data, tmp_path, gate):
    config = dataclasses.replace(system.config, gate=gate)
    system = Loud(config, system.expdir, "cpu")
    cache = collect(system, data, tmp_path, SPACE)
    search = _Search(cache, config)
    assert search.score(search.start()) == pytest.approx(through_the_pipeline(system, data), abs=1e-5)


def test_the_networks_run_once(system, data, tmp_path, caplog):
    first = collect(system, data, tmp_path, SPACE)
    again = Loud(system.config, system.expdir, "cpu")
    with caplog.at_level(logging.INFO):
        second = collect(again, data, tmp_path, SPACE)
    assert not {"taggers", "separators"} & set(vars(again))
    assert "the networks do not run again" in caplog.text
    assert (first.settings, first.variants, first.labels) == (second.settings, second.variants, second.labels)
    for a, b in zip(first.items, second.items, strict=True):
        assert (a.utt, a.ref_labels, a.n_samples) == (b.utt, b.ref_labels, b.n_samples)
        for key in a.products:
            np.testing.assert_array_equal(a.products[key], b.products[key])
    part = collect(again, stages.spread(data, 2), tmp_path / "part", SPACE)
    assert [item.utt for item in part.items] == [data.utts[0], data.utts[-1]]
    changed = dataclasses.replace(SPACE, gamma=[0.1])
    assert collect(again, data, tmp_path, changed).settings != first.settings
    (tmp_path / "tuning.pt").write_bytes(b"broken")
    assert len(collect(again, data, tmp_path, SPACE).items) == len(first.items)


def test_the_tuned_yaml_gives_what_the_search_promised(system, data, tmp_path, capsys):
    outcome = tune(collect(system, data, tmp_path, SPACE), system.config, SPACE)
    assert outcome.last > outcome.first  # the systems weights are too high
    assert outcome.last - outcome.first == pytest.approx(sum(step.gain for step in outcome.steps))
    write_yaml(tmp_path / "tuned.yaml", outcome, tmp_path / "two.yaml", data.path)
    tuned = Loud.from_yaml(tmp_path / "tuned.yaml", system.expdir, "cpu")
    assert through_the_pipeline(tuned, data) == pytest.approx(outcome.last, abs=1e-5)
    assert f"-> {outcome.last:.3f} dB" in as_table(outcome)


def test_the_command(recipe, trained, tmp_path, capsys):
    (tmp_path / "two.yaml").write_text(SYSTEM)
    (tmp_path / "space.yaml").write_text("gate_margin: [null, 20]\nfusion: [0.0, 0.5]\nmin_mixtures: 1\n")
    common = ["--system", str(tmp_path / "two.yaml"), "--expdir", str(trained), "--space", str(tmp_path / "space.yaml")]
    common += ["--data", "data/valid", "--out", str(tmp_path / "out"), "--device", "cpu", "--num", "2"]
    main(common)
    steps = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert steps[:4] == ["setting", "vote", "gate", "fusion first"] and steps[-3].startswith("CAPI-SDRi")
    assert SystemConfig.load(tmp_path / "out/tuned.yaml").taggers == SystemConfig.load(tmp_path / "two.yaml").taggers
    main([*common, "--only", "gate"])
    steps = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert steps[:2] == ["setting", "gate"] and "vote" not in steps and "fusion first" not in steps
    with pytest.raises(InputError, match="found gates, expected gate"):
        main([*common, "--only", "gates"])


def test_a_test_set_is_refused(system, data, tmp_path):
    for name in ("test", "test_real", "Eval", "dev-test", "mini_eval2"):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("wav.scp", "labels", "source1.scp", "source2.scp", "source3.scp"):
            (folder / file).write_bytes((data.path / file).read_bytes())
        with pytest.raises(InputError, match=f"found a set named {name}, expected a validation set"):
            collect(system, DataDir.load(folder), tmp_path / "out", SPACE)
    (folder.rename(tmp_path / "dev") / "labels").unlink()
    for file in (tmp_path / "dev").glob("source*.scp"):
        file.unlink()
    with pytest.raises(InputError, match="expected a validation set with references"):
        collect(system, DataDir.load(tmp_path / "dev"), tmp_path / "out", SPACE)


# The search on mixtures of its own making: what it has to find is known.

LABELS = LabelSet(("Cough", "Speech"))


def config(text=SYSTEM):
    return SystemConfig.from_keys(yaml.safe_load(text), "system")


def made_cache(space, n=12):
    """Mixtures of a Cough. The first tagger says Speech, the second Cough; what one separator has too much of the other
    has too little of, so that half of each is right."""
    rng = np.random.default_rng(0)
    settings = vote_settings(space, VoteConfig(gamma=0.5), [0.7, 0.3], multi_hot=False)
    posteriors = [np.array([[0.1, 0.6, 0.3]]), np.array([[0.6, 0.1, 0.3]])]
    items = []
    for i in range(n):
        source, noise, error = rng.standard_normal((3, 400))
        signals = np.stack([source + 0.3 * error, source - 0.3 * error, source, source + noise])
        found = decisions(posteriors, settings, VoteConfig(), 2, 1, False)
        winners, choice = np.unique(found, axis=0, return_inverse=True)
        products = {(c,): signals @ signals.T for c in (0, 1)}
        items.append(Item(f"u{i}", posteriors, ["Cough"], 400, choice.reshape(-1), winners, products))
    return Cache(LABELS, 1, [("last", 0.0), ("first", 0.0)], settings, items)


def test_the_search_finds_the_tagger_that_is_right_and_the_weights_that_cancel():
    space = Space(vote_step=0.25, gamma=[0.5], fusion=[0.0, 0.25, 0.5], min_mixtures=100)
    plain = config(SYSTEM.replace("{last: 3.0}, classes: {Cough: {last: 2.0, first: 1.0}}", "{last: 1.0}"))
    outcome = tune(made_cache(space), plain, space)
    setting = made_cache(space).settings[outcome.tuning.vote]
    assert setting.weights[1] > setting.weights[0]
    assert outcome.tuning.default == (0.5, 0.5)
    assert outcome.first == 0 and outcome.last > 50
    assert outcome.changed["fusion"] == {"default": {"last": 0.5, "first": 0.5}}
    assert [step.name for step in outcome.steps if step.gain] == ["vote", "fusion first"]


def test_a_gate_that_only_silences_right_sources_is_not_taken():
    space = Space(vote_step=0.5, gamma=[0.5], gate_silence=[None, 0.1], gate_margin=[None, -50])
    outcome = tune(made_cache(space), config(), space)
    assert outcome.tuning.gate == (None, None) and "gate" not in outcome.changed


def test_a_refinement_is_said_to_be_left_out(caplog):
    space = Space(vote_step=0.5, gamma=[0.5])
    tune(made_cache(space), config(), space)
    assert "refinement" not in caplog.text
    tune(made_cache(space), config(SYSTEM + "refine: {}\n"), space)
    assert "leaves out the refinement of the system" in caplog.text


def test_nothing_changes_for_less_than_the_least_gain():
    space = Space(vote_step=0.5, gamma=[0.5], fusion=[0.0, 0.5], min_gain=1000.0)
    outcome = tune(made_cache(space), config(), space)
    assert outcome.changed == {} and outcome.last == outcome.first


@pytest.mark.parametrize("rule", ["vote", "average"])
def test_decisions_under_many_settings_are_those_under_each(rule):
    rng = np.random.default_rng(0)
    for _ in range(20):
        tables = [rng.dirichlet(np.ones(4) * 0.3, 3).astype(np.float32) for _ in range(3)]
        base = VoteConfig(rule=rule, gamma=0.5)
        settings = vote_settings(Space(vote_step=0.25, gamma=[0.5, 2.0]), base, [0.52, 0.16, 0.32], False)
        found = decisions(tables, settings, base, 3, 3, False)
        for row, setting in zip(found, settings, strict=True):
            alone = decide(tables, setting.weights, dataclasses.replace(base, gamma=setting.gamma), 3, 3)
            assert [c for c in row if c != 3] == alone.index.tolist()


def test_so_are_those_of_multi_hot_taggers():
    rng = np.random.default_rng(0)
    base = VoteConfig(rule="average")
    settings = vote_settings(Space(threshold=[0.3, 0.6]), base, [0.35, 0.30, 0.20, 0.15], True)
    assert Setting((0.35, 0.30, 0.20, 0.15), 1.0, 0.5) == settings[0] and len(settings) == 573
    tables = [rng.random((1, 5)).astype(np.float32) for _ in range(4)]
    for row, setting in zip(decisions(tables, settings, base, 5, 3, True), settings, strict=True):
        alone = decide(tables, setting.weights, dataclasses.replace(base, threshold=setting.threshold), 5, 3)
        assert [c for c in row if c != 5] == alone.index.tolist()


def test_bad_spaces_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("gama: [1]\n")
    with pytest.raises(InputError, match="key gama: found an unknown key, expected gamma"):
        Space.load(tmp_path / "a.yaml")
    for bad in ({"vote_step": 0}, {"rounds": 0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            Space(**bad)


def test_the_repositorys_own_space_is_one():
    assert Space.load("conf/tune.yaml").gamma
