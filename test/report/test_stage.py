"""Tests of stage 12 as a whole, through its command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s5.bin.report import main
from s5.report import stage
from s5.system.archive import pack
from s5.utils.errors import InputError

PAGE = Path("exp/small/test/report")


def make(*options):
    main(["--system", "conf/small.yaml", "--no_figures", *options])
    return Path("exp/RESULTS.md").read_text(encoding="utf-8")


def results():
    return Path("exp/RESULTS.md").read_text(encoding="utf-8")


def rows(text, start):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.split("\n")
        if line.startswith(f"| {start} |")
    ]


def test_tables_carry_the_scores_newest_first(made):
    text = results()
    head = rows(text, "system | labels")[0]
    table = [
        dict(zip(head, row, strict=True)) for row in rows(text, "small") + rows(text, "older") if len(row) == len(head)
    ]
    tagged, oracle, older = table
    assert (tagged["labels"], oracle["labels"], older["labels"]) == ("tagged", "oracle", "tagged")
    assert (tagged["CAPI-SDRi"], oracle["CAPI-SDRi"], older["CAPI-SDRi"]) == ("11.11", "11.73", "6.17")
    assert (tagged["accuracy_mix"], tagged["accuracy_src"]) == ("50.0", "62.5")
    assert (tagged["0 sources"], tagged["2 sources"]) == ("– / 50.0", "7.89 / 87.6")
    assert (tagged["DupSet"], tagged["NoDupSet"]) == ("3.14 / 12.3", "– / –")
    assert text.index("| small | tagged") < text.index("| small | oracle") < text.index("| older | tagged")
    assert ["Cough", "1", "4.32", "33.3"] in rows(text, "Cough")
    assert "71.2" in text  # recall, which is not in the main table
    assert "6 mixtures of 1 s (0.1 minutes), 4 channels, 8 kHz; 7 sources of 3 classes." in text


def test_archives_in_the_recipe_folder_tell_what_they_scored(made, trained, tmp_path):
    assert "Model archives" not in results()
    scores = {"set": "test", "oracle_labels": False, "by_class": {}, "counts": {"mixtures": 4}}
    scores["metrics"] = {"CAPI-SDRi": 1.254, "accuracy_mix": 50.0, "accuracy_src": None}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    pack(trained.parent / "system.yaml", trained, Path("tiny.s5"), [tmp_path / "scores.json"], note="For an hour.")
    text = make()
    ((_, *cells),) = rows(text, "`tiny.s5`")
    assert cells == ["test", f"{Path('tiny.s5').stat().st_size / 1e6:.1f}", "4", "1.25", "50.0", "–"]
    assert "`tiny.s5`: For an hour." in text
    Path("tiny.s5").write_bytes(b"no")
    with pytest.raises(InputError, match=r"tiny\.s5"):
        make()


def test_training_table_tells_how_models_were_made(made):
    (row,) = rows(results(), "separator_small")
    assert [row[3], *row[6:]] == ["1 of 2", "valid loss (min)", "1", "-1.625", "1 min 05 s"]


def test_published_figures_stand_apart(made):
    text = results()
    published = text.index("8.625 / 61.7")
    assert text.index("not comparable") < published
    assert text.index("## Published") > text.index("| older | tagged")


def test_results_name_no_absolute_path_and_no_host(recipe):
    text = make("--expdir", str(recipe / "exp"), "--data_root", str(recipe / "data"))
    assert "--expdir exp --out exp/RESULTS.md --data_root data" in text
    assert "`exp/small/test/report/index.html`" in text
    for file in (Path("exp/RESULTS.md"), PAGE / "index.html"):
        content = file.read_text(encoding="utf-8")
        assert str(recipe) not in content
        assert not re.search(r"(?<![\w<:/.)])/(?:\w+/)+\w+", content)
        assert "secret-host" not in content


def test_paths_outside_the_recipe_keep_only_their_name(recipe, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "models"
    shutil.move("exp", elsewhere)
    text = make("--expdir", str(elsewhere), "--out", "exp/RESULTS.md")
    assert "--expdir models " in text
    assert "`models/small/test/report/index.html`" in text


def test_number_of_mixtures_is_a_limit(recipe):
    make("--n_mixtures", "2")
    assert len(list(PAGE.glob("mixture*.js"))) == 2


def test_second_report_replaces_the_first(made):
    first = results()
    (PAGE / "left_over.flac").touch()
    second = make()
    assert not (PAGE / "left_over.flac").exists()
    assert [file.name for file in PAGE.parent.iterdir() if "report" in file.name] == ["report"]
    assert re.sub(r"\d\d:\d\d UTC", "", first) == re.sub(r"\d\d:\d\d UTC", "", second)


def test_another_system_is_heard_beside_this_one(recipe):
    text = make("--compare", "older")
    assert "--n_mixtures 12 --compare older" in text
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    order = ["small, tagged labels", "older, tagged labels", "small, oracle labels"]
    assert [page.index(f"<strong>{c}</strong> = {name}") for c, name in zip("ABC", order, strict=True)]


@pytest.mark.parametrize("other", ["small", "unknown"])
def test_no_other_system_to_compare_with(recipe, other):
    with pytest.raises(InputError, match=other):
        make("--compare", other)


def test_page_with_oracle_labels_only(recipe):
    shutil.rmtree("exp/small/test")
    assert "`exp/small/test_oracle/report/index.html`" in make()


def test_data_set_of_another_system_may_be_gone(recipe):
    shutil.copytree("exp/older/test", "exp/older/gone")
    assert "## gone\n" in make()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (
            lambda: Path("exp/small/test/estimates/m0_1_Speech.wav").unlink(),
            r"m0_1_Speech.wav: found no such file",
        ),
        (lambda: Path("exp/small/test/estimates/m0_1_Speech.wav").write_bytes(b"no"), "m0_1_Speech.wav"),
        (lambda: soundfile.write("exp/small/test/estimates/m0_1_Speech.wav", np.zeros(9), 8000), "m0_1_Speech.wav"),
        (lambda: Path("exp/older/test/scores.json").write_text("{"), "exp/older/test/scores.json"),
        (lambda: Path("exp/older/test/scores.json").write_text('{"metrics": {}}'), "mixtures"),
        (lambda: shutil.rmtree("data/test"), "data/test"),
        (lambda: Path("conf/small.yaml").unlink(), "conf/small.yaml"),
    ],
)
def test_results_and_page_stay_as_they_were_when_something_fails(made, spoil, named):
    text, page = results(), (PAGE / "index.html").read_bytes()
    spoil()
    before = sorted(os.listdir(".")), sorted(os.listdir("exp/small/test"))
    with pytest.raises(InputError, match=named):
        make()
    assert Path("exp/RESULTS.md").read_text(encoding="utf-8") == text
    assert (PAGE / "index.html").read_bytes() == page
    assert (sorted(os.listdir(".")), sorted(os.listdir("exp/small/test"))) == before


@pytest.mark.parametrize("fails", ["report", "RESULTS.md"])
def test_results_stay_as_they_were_when_the_disk_fails(made, monkeypatch, fails):
    text, before = results(), (sorted(os.listdir(".")), sorted(os.listdir(PAGE.parent)), sorted(os.listdir(PAGE)))
    replace = os.replace
    failed = []

    def full(source, target):
        if Path(target).name == fails and not failed:
            failed.append(target)
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        make()
    assert Path("exp/RESULTS.md").read_text(encoding="utf-8") == text
    assert (sorted(os.listdir(".")), sorted(os.listdir(PAGE.parent)), sorted(os.listdir(PAGE))) == before


def test_scores_that_do_not_fit_the_data_are_named(recipe):
    labels = Path("data/test/labels")
    labels.write_text(labels.read_text().replace("m4 Pour", "m4 Cough"))
    with pytest.raises(InputError, match=r"scores\.json: mixture m4: found references \[Pour\].*\[Cough\]"):
        make()


def test_missing_scores_end_in_one_line(recipe):
    shutil.rmtree("exp")
    call = [sys.executable, "-m", "s5.bin.report", "--system", "conf/small.yaml"]
    env = os.environ | {"PYTHONPATH": str(Path(stage.__file__).parents[2])}
    done = subprocess.run(call, capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert done.stderr == (
        "error: exp/small: found no scored data set, expected small/<set>/scores.json, which stage 11 writes\n"
    )
    assert not Path("exp/RESULTS.md").exists()


def test_figures_are_linked_from_where_the_report_lies(recipe):
    for out in ("exp/RESULTS.md", "RESULTS.md"):
        main(["--system", "conf/small.yaml", "--out", out])
        links = re.findall(r"\]\(<([^>]+\.png)>\)", Path(out).read_text(encoding="utf-8"))
        assert links and all((Path(out).parent / link).is_file() for link in links)


def write_bounds(change=lambda row: None):
    """Floors and ceilings as stage 11 writes them, all of the same figures but the name."""
    folder = Path("exp/bounds/test")
    folder.mkdir(parents=True)
    scores = json.loads(Path("exp/small/test_oracle/scores.json").read_text())
    for i, name in enumerate(("silence", "mixture", "best gain", "ideal mask")):
        rows = [{**row, "CAPI-SDRi": None if row["CAPI-SDRi"] is None else float(i)} for row in scores["mixtures"]]
        for row in rows:
            change(row)
        found = {**scores, "system": name, "metrics": {"CAPI-SDRi": 10.0 + i}, "mixtures": rows}
        (folder / f"{name.replace(' ', '_')}.json").write_text(json.dumps(found))


def test_floors_and_ceilings_are_beside_the_systems(recipe):
    write_bounds()
    text = make()
    first = [row[:3] for row in rows(text, "silence") + rows(text, "ideal mask")]
    assert ["silence", "oracle", "10.00"] in first and ["ideal mask", "oracle", "13.00"] in first
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    words = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert (
        "over all mixtures: silence +10.0 dB , mixture +11.0 dB , best gain +12.0 dB , ideal mask +13.0 dB ." in words
    )
    shown = "".join(file.read_text() for file in sorted(PAGE.glob("mixture*.js")))
    assert shown.count("With the true labels: silence") == 4  # of six mixtures, two have no source


def test_floors_and_ceilings_of_other_references_are_not_shown_with_a_mixture(recipe):
    write_bounds(lambda row: row.update(ref_labels=[*row["ref_labels"], "Cough"]))
    make()
    assert "With the true labels" not in "".join(file.read_text() for file in PAGE.glob("mixture*.js"))


def test_pages_without_floors_and_ceilings_do_not_mention_them(made):
    assert "true labels" not in (PAGE / "index.html").read_text(encoding="utf-8")
    assert "With the true labels" not in "".join(file.read_text() for file in PAGE.glob("mixture*.js"))


def test_a_damaged_file_of_floors_and_ceilings_is_named(recipe):
    write_bounds()
    Path("exp/bounds/test/silence.json").write_text("{")
    with pytest.raises(InputError, match=r"exp/bounds/test/silence\.json"):
        make()
