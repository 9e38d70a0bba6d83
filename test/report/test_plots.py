"""Tests of the figures: their values, and that they become pictures."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta

import kaldiio
import numpy as np
import pytest
import soundfile
from PIL import Image

from s5.bin.figures import main
from s5.inference.bounds import BoundsFolder
from s5.labels import LabelSet
from s5.metrics import Bootstrap, Scorer, score_bounds
from s5.report import plots
from s5.report.curves import draw_curves, read_curves
from s5.report.features import active_times, choose_mixture, extract
from s5.report.markdown import results_markdown
from s5.report.results import find_bounds, find_results
from s5.report.taggers import tagger_accuracies
from s5.system.training_log import write_epochs
from s5.utils.errors import InputError
from s5.utils.plotting import label_offsets

DATE = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = (["Pour", "Pour"], ["Cough"], ["Cough", "Pour"], [], ["Cough"], ["Pour", "Cough"])
HEARD = (["Pour", "Pour"], ["Pour"], ["Cough"], ["Pour"], ["Cough"], ["Pour", "Cough"])


def write_scores(folder, gain, oracle):
    rng = np.random.default_rng(0)
    scorer = Scorer(bootstrap=Bootstrap(50))
    for i, (refs, heard) in enumerate(zip(LABELS, HEARD, strict=True)):
        ref = rng.standard_normal((len(refs), 400))
        mixture = ref.sum(axis=0) + 0.5 * rng.standard_normal(400)
        names = refs if oracle else heard
        est = gain * np.resize(ref, (len(names), 400)) if len(refs) else np.ones((len(names), 400))
        scene = {"room": f"room{i % 2}", "snr": [5.0 + 4 * i] * len(refs), "angle": 90.0 if i == 0 else None}
        scorer.update(f"m{i}", names, est, refs, ref, mixture, scene=scene)
    folder.mkdir(parents=True)
    extra = {"set": "test", "system": folder.parent.name, "oracle_labels": oracle, "options": {}}
    (folder / "scores.json").write_text(json.dumps({**extra, **scorer.compute()}))


def write_bounds(folder):
    """Floors and ceilings of the mixtures of :func:`write_scores`."""
    rng = np.random.default_rng(0)
    rows = []
    for i, refs in enumerate(LABELS):
        ref = rng.standard_normal((len(refs), 400))
        mixture = ref.sum(axis=0) + 0.5 * rng.standard_normal(400)
        scene = {"room": f"room{i % 2}", "snr": [5.0 + 4 * i] * len(refs), "angle": 90.0 if i == 0 else None}
        rows.append(score_bounds(f"m{i}", refs, ref, mixture, 16000, scene=scene))
    BoundsFolder(folder).update(rows, "test", {}, Bootstrap(50))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Two systems, one tagger with posteriors, one trained model, and the audio of one mixture."""
    root = tmp_path_factory.mktemp("figures")
    for i, (system, gain) in enumerate({"old": 0.5, "new": 0.8}.items()):
        for name in ("test", "test_oracle"):
            write_scores(root / "exp" / system / name, gain, name != "test")
            os.utime(root / "exp" / system / name / "scores.json", (1e9 + i, 1e9 + i))
    labels = LabelSet(("Cough", "Pour"))
    posteriors = root / "exp/new/test/posteriors"
    posteriors.mkdir()
    table = {}
    for i, heard in enumerate(HEARD):
        index = [labels.index(name, "") for name in heard]
        table[f"m{i}"] = np.eye(3, dtype=np.float32)[index + [2] * (2 - len(index))]
    kaldiio.save_ark(str(posteriors / "tagger_4c.ark"), table)
    labels.save(posteriors / "labels.txt")
    (posteriors / "n_slots").write_text("2\n")
    model = root / "exp/tagger_4c"
    model.mkdir()
    conf = "network_conf: {n_channels: 4}\nmax_epoch: 3\nbest_model_criterion: [[valid, acc3, max]]\n"
    (model / "config.yaml").write_text(conf)
    stats = {
        epoch: {
            "train": {"loss": 2 / epoch, "grad_norm": 3.1, "optim0_lr0": 1e-3, "train_time": 0.1, "total_count": epoch},
            "valid": {"loss": 3 / epoch, "acc3": accuracy, "acc3_dup": 0.1, "time": timedelta(seconds=1)},
        }
        for epoch, accuracy in enumerate((0.25, 0.625, 0.5), 1)
    }
    write_epochs(model, stats, 1000, 1000)
    data = root / "data/test"
    data.mkdir(parents=True)
    t = np.arange(16000) / 16000
    for name, wave in {
        "m2": np.sin(2 * np.pi * 440 * t) * (t < 0.5),
        "s0": np.sin(880 * np.pi * t) * (t < 0.5),
    }.items():
        channels = 4 if name == "m2" else 1
        soundfile.write(data / f"{name}.wav", np.stack([wave] * channels, 1), 16000, subtype="FLOAT")
    (data / "wav.scp").write_text(f"m2 {data}/m2.wav\n")
    (data / "labels").write_text("m2 Pour\n")
    (data / "source1.scp").write_text(f"m2 {data}/s0.wav\n")
    return root


def draw(recipe, out, *options):
    folders = ["--expdir", str(recipe / "exp"), "--data_root", str(recipe / "data"), "--out", str(out)]
    main(["--system", "new", *folders, *options])
    return sorted(file.name for file in out.iterdir())


def test_all_figures_are_pictures(recipe, tmp_path, capsys):
    names = draw(recipe, tmp_path, "--mixture", "m2")
    assert names == [
        "learning_tagger_4c.png",
        "test_accuracy_by_class.png",
        "test_confusion.png",
        "test_features_m2.png",
        "test_sdri_by_class.png",
        "test_sdri_by_n_sources.png",
        "test_sdri_by_scene.png",
        "test_systems.png",
        "test_taggers.png",
    ]
    assert capsys.readouterr().out.split() and len(capsys.readouterr().err) == 0
    for name in names:
        picture = np.asarray(Image.open(tmp_path / name).convert("L"))
        assert min(picture.shape) > 250 and (picture < 128).mean() > 0.005  # something dark on white
        assert picture[0].min() > 200 and picture[:, 0].min() > 200  # nothing is cut at the edges


def test_one_kind_and_unknown_mixture(recipe, tmp_path):
    assert draw(recipe, tmp_path, "--only", "learning") == ["learning_tagger_4c.png"]
    with pytest.raises(InputError, match="m9"):
        draw(recipe, tmp_path, "--only", "features", "--mixture", "m9")


def test_system_without_scores_is_refused(recipe, tmp_path):
    with pytest.raises(InputError, match="no scored data set"):
        main(["--system", "none", "--expdir", str(recipe / "exp"), "--out", str(tmp_path)])


def test_values_of_the_bars_are_the_scores(recipe):
    """Numbers above the bars and in the cells are those of scores.json."""
    own = [r for r in find_results(recipe / "exp") if r.system == "new"]
    own.sort(key=lambda r: r.oracle)
    figure = plots.sdri_by_n_sources(own)
    texts = [text.get_text() for text in figure.axes[0].texts]
    expected = [
        f"{r.scores[group][key]['CAPI-SDRi']:.1f}"
        for r in own
        for group, key in [
            ("by_n_sources", "1"),
            ("by_n_sources", "2"),
            ("by_subset", "DupSet"),
            ("by_subset", "NoDupSet"),
        ]
    ]
    assert texts == expected
    cells = {text.get_text() for text in plots.confusion(own[0]).axes[0].texts}
    counts = own[0].scores["confusion"]["counts"]
    assert cells == {str(cell) for row in counts for cell in row if cell}


def test_map_needs_two_systems(recipe):
    results = find_results(recipe / "exp")
    assert plots.system_map([r for r in results if r.system == "new"]) is None
    figure = plots.system_map(results)
    assert [axes.get_title() for axes in figure.axes] == ["DupSet", "NoDupSet", "all mixtures"]
    assert {"1", "2"} <= {text.get_text() for text in figure.axes[2].texts}


def test_labels_of_a_crowded_map_stay_apart():
    points = np.random.default_rng(0).uniform(0, 40, (27, 2))
    places = points + label_offsets(points, (11, 9))
    gaps = np.abs(places[:, None] - places)
    apart = (gaps[..., 0] >= 11) | (gaps[..., 1] >= 9)
    assert apart[~np.eye(27, dtype=bool)].all()


def test_figure_of_taggers_shows_table_1(recipe):
    taggers = tagger_accuracies(find_results(recipe / "exp"), recipe / "exp")
    figure = plots.taggers_by_subset(taggers)
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [["66.7"], ["60.0"]]
    assert figure.axes[0].get_yticklabels()[0].get_text() == "tagger_4c (4 ch.)"
    assert {marks.get_label(): marks.get_offsets()[0][0] for marks in figure.axes[1].collections} == {
        "DupSet": 100.0,
        "NoDupSet": 50.0,
        "Total": 60.0,
    }
    assert plots.taggers_by_subset([]) is None


def test_channels_are_found_through_the_systems_experiments(recipe, tmp_path):
    """A tagger's name in its system may differ from its experiment folder."""
    shutil.copytree(recipe / "exp", tmp_path / "exp")
    os.rename(tmp_path / "exp/tagger_4c", tmp_path / "exp/trained_ft")
    assert tagger_accuracies(find_results(tmp_path / "exp"), tmp_path / "exp")[0].channels is None
    systems = tmp_path / "conf/systems"
    systems.mkdir(parents=True)
    models = "tagger_4c: {experiment: trained, train: t.yaml, finetune: f.yaml}"
    (systems / "new.yaml").write_text(f"taggers: {{{models}}}\nseparators: {{s: {{train: s.yaml}}}}\n")
    assert tagger_accuracies(find_results(tmp_path / "exp"), tmp_path / "exp")[0].channels == 4


def test_older_scores_without_intervals_and_scenes(recipe):
    (own, *_) = [r for r in find_results(recipe / "exp") if r.system == "new" and not r.oracle]
    for key in ("intervals", "confusion", "by_snr", "by_angle", "by_room"):
        del own.scores[key]
    assert plots.sdri_by_class([own]) and plots.accuracy_by_class(own) and plots.sdri_by_n_sources([own])
    assert plots.confusion(own) is plots.sdri_by_scene([own]) is None


def test_curves_of_a_training_log(recipe):
    curves = read_curves(recipe / "exp/tagger_4c")
    assert set(curves) == {"loss", "acc3", "acc3_dup"}
    assert curves["acc3"] == {"valid": {1: 0.25, 2: 0.625, 3: 0.5}}
    assert curves["loss"]["train"][2] == 1.0


def test_model_that_was_never_trained_has_no_curves(tmp_path):
    (tmp_path / "config.yaml").write_text("max_epoch: 2\n")
    assert not draw_curves(tmp_path, tmp_path / "x.png") and not (tmp_path / "x.png").exists()


def test_features_tell_frequency_and_pitch():
    """440 Hz is an A; nearly all of the spectrum lies below 1 kHz, and the loudest band is around it."""
    t = np.arange(16000) / 16000
    found = extract(np.sin(2 * np.pi * 440 * t), 16000)
    middle = slice(20, 80)
    assert (found.chroma[:, middle].argmax(axis=0) == 9).all()
    assert found.rolloff[middle].max() < 1000
    assert found.mel_hz[found.mel_db[:, 50].argmax()] == pytest.approx(440, rel=0.1)
    assert found.mel_db.max() == 0.0 and found.hop == 0.01


def test_mixture_that_shows_most():
    rows = [
        {"utt": "a", "ref_labels": ["Pour", "Pour"], "CAPI-SDRi": 9.0},
        {"utt": "b", "ref_labels": ["Pour", "Cough"], "CAPI-SDRi": 3.0},
        {"utt": "c", "ref_labels": ["Pour", "Cough"], "CAPI-SDRi": 4.0},
    ]
    assert choose_mixture(rows) == "c" and choose_mixture(rows[:1]) is None


def test_silence_is_never_active():
    assert active_times(np.zeros(100), 100) == []


def test_table_1_is_that_of_the_taggers_own_labels(recipe):
    """Accuracies like those of Nguyen et al., computed by hand; a mixture without a source is in no subset."""
    results = find_results(recipe / "exp")
    (found,) = tagger_accuracies(results, recipe / "exp")
    assert (found.name, found.set, found.channels) == ("tagger_4c", "test", 4)
    assert found.mixture == {"DupSet": 100.0, "NoDupSet": 50.0, "Total": 60.0}
    assert found.source == pytest.approx({"DupSet": 100.0, "NoDupSet": 100 * 4 / 7, "Total": 100 * 6 / 9})


def test_results_carry_intervals_differences_scenes_and_taggers(recipe):
    results = find_results(recipe / "exp")
    accuracies = tagger_accuracies(results, recipe / "exp")
    text = results_markdown(
        system="new",
        results=results,
        data=[],
        trainings=[],
        environment={},
        command="c",
        date=DATE,
        pages={},
        taggers=accuracies,
        figures={"test": {"confusions": "exp/new/report/figures/test_confusion.png"}},
        recipe="dcase2026_task4",
    )
    new = next(r for r in results if r.system == "new" and not r.oracle).scores
    low, high = new["intervals"]["metrics"]["CAPI-SDRi"]
    assert f"| new | tagged | {new['metrics']['CAPI-SDRi']:.2f} ± {(high - low) / 2:.2f} |" in text
    assert "| official baseline 1c | published | 8.171 | 57.143 | 67.147 | – |" in text
    assert text.index("| old | oracle |") < text.index("| official baseline 1c | published |")
    assert "| tagger_4c | 4 | 100.0 | 57.1 | 66.7 | 100.0 | 50.0 | 60.0 |" in text
    assert "| SNR 5 to 10 dB | 3 sources |" in text and "| angle 90 to 120° | 1 mixtures |" in text
    old = next(r for r in results if r.system == "old" and not r.oracle).scores
    gained = old["metrics"]["CAPI-SDRi"] - new["metrics"]["CAPI-SDRi"]
    assert f"| old | tagged | {gained:+.2f} (" in text
    assert "[confusions](<exp/new/report/figures/test_confusion.png>)" in text


def test_published_figures_stay_out_of_tables_of_other_data(recipe):
    arguments = {"results": find_results(recipe / "exp"), "data": [], "trainings": [], "environment": {}, "command": ""}
    text = results_markdown(system="new", date=DATE, pages={}, recipe="mini_s5", **arguments)
    assert "| published |" not in text[: text.index("## Published")]


def test_a_posterior_archive_that_is_damaged_is_left_out(recipe, tmp_path, caplog):
    shutil.copytree(recipe / "exp", tmp_path / "exp")
    (tmp_path / "exp/new/test/posteriors/tagger_4c.ark").write_bytes(b"m0 nothing")
    assert tagger_accuracies(find_results(tmp_path / "exp"), tmp_path / "exp") == []
    assert "tagger_4c.ark" in caplog.text


@pytest.fixture(scope="module")
def bounded(recipe, tmp_path_factory):
    """The recipe with the floors and ceilings of its data set."""
    root = tmp_path_factory.mktemp("bounded")
    shutil.copytree(recipe, root, dirs_exist_ok=True)
    write_bounds(root / "exp/bounds/test")
    return root


def test_floors_and_ceilings_are_no_systems(bounded):
    assert {r.system for r in find_results(bounded / "exp")} == {"old", "new"}
    bounds = find_bounds(bounded / "exp", "test")
    assert [bound.system for bound in bounds] == ["silence", "mixture", "best gain", "ideal mask"]
    assert {(bound.set, bound.labels) for bound in bounds} == {("test", "oracle")}
    assert find_bounds(bounded / "exp", "other") == []


def lines(axes):
    """Values of the lines by label; those of vertical lines lie on the horizontal axis."""
    found = {}
    for lines in axes.collections:
        if not lines.get_label().startswith("_") and hasattr(lines, "get_segments"):
            found[lines.get_label()] = [s[0][int(s[0][1] == s[1][1])] for s in lines.get_segments()]
    return found


def test_floors_and_ceilings_are_lines_in_the_figures(bounded):
    own = sorted((r for r in find_results(bounded / "exp") if r.system == "new"), key=lambda r: r.oracle)
    bounds = {bound.system: bound for bound in find_bounds(bounded / "exp", "test")}
    figure = plots.sdri_by_n_sources(own, list(bounds.values()))
    found = lines(figure.axes[0])
    assert list(found) == ["silence", "best gain", "ideal mask"]
    parts = [("by_n_sources", "1"), ("by_n_sources", "2"), ("by_subset", "DupSet"), ("by_subset", "NoDupSet")]
    for name, values in found.items():
        assert values == pytest.approx([bounds[name].scores[group][key]["CAPI-SDRi"] for group, key in parts])
    assert {"silence", "ideal mask"} < {text.get_text() for text in figure.legends[0].get_texts()}
    found = lines(plots.sdri_by_class(own, list(bounds.values())).axes[0])
    by_class = {name: sorted(part["SDRi"] for part in b.scores["by_class"].values()) for name, b in bounds.items()}
    assert {name: sorted(values) for name, values in found.items()} == {name: by_class[name] for name in found}
    assert lines(plots.sdri_by_scene(own, list(bounds.values())).axes[0]).keys() == found.keys()
    assert not lines(plots.sdri_by_n_sources(own).axes[0])


def test_the_map_lists_floors_and_ceilings(bounded):
    bounds = find_bounds(bounded / "exp", "test")
    figure = plots.system_map(find_results(bounded / "exp"), bounds)
    title = figure.legends[0].get_title().get_text()
    for bound in bounds:
        assert f"{bound.system}  {bound.scores['metrics']['CAPI-SDRi']:.2f}" in title
    for axes in figure.axes:
        low, high = axes.get_ylim()
        title = axes.get_title()
        values = {b.system: b.scores["by_subset"].get(title, b.scores["metrics"])["CAPI-SDRi"] for b in bounds}
        inside = {name for name, value in values.items() if low <= value <= high} - {"mixture"}
        assert {text.get_text() for text in axes.texts if not text.get_text().isdecimal()} == inside


def test_figures_with_floors_and_ceilings_are_pictures(bounded, tmp_path):
    names = draw(bounded, tmp_path, "--only", "results")
    assert len(names) == 6
    for name in names:
        picture = np.asarray(Image.open(tmp_path / name).convert("L"))
        assert picture[0].min() > 200 and picture[:, 0].min() > 200  # nothing is cut at the edges


def test_floors_and_ceilings_are_rows_of_the_results(bounded):
    bounds = find_bounds(bounded / "exp", "test")
    arguments = {"data": [], "trainings": [], "environment": {}, "command": "", "date": DATE, "pages": {}}
    results = find_results(bounded / "exp")
    text = results_markdown(system="new", results=results, bounds={"test": bounds}, **arguments)
    table = text[text.index("| system | labels |") :]
    order = ["silence", "mixture", "best gain", "ideal mask", "new"]
    assert [line.split(" | ")[0].strip("| ") for line in table.split("\n")[2:7]] == order
    for bound in bounds:
        low, high = bound.scores["intervals"]["metrics"]["CAPI-SDRi"]
        value = bound.scores["metrics"]["CAPI-SDRi"]
        assert f"| {bound.system} | oracle | {value:.2f} ± {(high - low) / 2:.2f} | 100.0 ± 0.0 |" in table
        own = next(r for r in results if r.system == "new" and r.oracle).scores["metrics"]["CAPI-SDRi"]
        assert f"| {bound.system} | oracle | {value - own:+.2f} (" in text  # the paired difference
        assert f"| {bound.system} | tagged |" not in text
    assert "| scene | of | tagged labels | oracle labels | silence | mixture | best gain | ideal mask |" in text
    assert "separate nothing" in text
    without = results_markdown(system="new", results=results, **arguments)
    assert "ideal mask" not in without and "separate nothing" not in without
