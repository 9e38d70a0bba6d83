"""Stages in shards: the same bytes as in one piece, and joins that bear 10,000 of them."""

import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from s5 import S5System
from s5.bin.fuse import main as fuse_main
from s5.bin.score import main as score_main
from s5.bin.separate import main as separate_main
from s5.bin.simulate import main as simulate_main
from s5.bin.tag import main as tag_main
from s5.data import DataDir
from s5.inference import stages
from s5.inference.results import Posteriors
from s5.utils.errors import InputError
from s5.utils.shards import RESULTS, Shards, results

N = 3


def in_shards(main, options, parts, prepare=False):
    """A stage as run.sh runs it on a cluster, the shards in another order."""
    if prepare:
        main([*options, "--prepare", "--parts", parts])
    for index in (2, 3, 1):
        main([*options, "--shard", f"{index}/{N}", "--parts", parts])
    main([*options, "--join", str(N), "--parts", parts])
    shutil.rmtree(parts)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def test_every_item_is_in_one_shard():
    for n_items in (0, 1, 5, 12):
        for count in (1, 3, 12, 20):
            parts = [Shards(Path(), count).part(range(n_items), i + 1) for i in range(count)]
            assert [item for part in parts for item in part] == list(range(n_items))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_decoding_stages_give_the_same_bytes(trained, recipe, tmp_path):
    """Of a system with a gate and a refinement."""
    system = tmp_path / "refined.yaml"
    system.write_text(
        f"inherit: {trained.parent / 'system.yaml'}\ngate: {{silence: 0.9, margin: 60}}\n"
        "refine: {loops: 2, n_min: 1, candidates: {threshold: 0.0}}\n"
    )
    made = {}
    for name in ("whole", "shards"):
        # The same folder for both: posteriors/*.scp has its name.
        out, parts = tmp_path / "out", str(tmp_path / "parts")
        common = ["--system", str(system), "--data", "data/valid", "--out", str(out), "--device", "cpu"]
        common += ["--expdir", str(trained)]
        for main in (tag_main, separate_main, fuse_main):
            if main is separate_main:
                stages.vote(S5System.from_yaml(system, trained), out)
            if name == "whole":
                main(common)
            else:
                in_shards(main, common, parts)
        scoring = [
            "--estimates",
            str(out / "estimates"),
            "--references",
            "data/valid",
            "--out",
            str(out / "scores.json"),
            "--bounds",
            str(out / "bounds"),
        ]
        if name == "whole":
            score_main(scoring)
        else:
            in_shards(score_main, scoring, parts)
        made[name] = contents(out)
        shutil.rmtree(out)
    assert made["whole"] == made["shards"]
    assert {"scores.json", "bounds/silence.json", "final_labels", "posteriors/tagger.scp"} < made["whole"].keys()


def test_scenes_are_the_same_bytes(recipe, tmp_path):
    config = Path("scenes.yaml")
    made = {}
    for name in ("whole", "shards"):
        out = Path("data/again")
        options = ["--config", str(config), "--out", str(out), "--num_scenes", "4", "--rest", "residual"]
        if name == "whole":
            simulate_main(options)
        else:
            in_shards(simulate_main, options, str(out / ".parts"), prepare=True)
        made[name] = contents(out)
        shutil.rmtree(out)
    assert made["whole"] == made["shards"] and {"wav/again_0003.wav", "rest/again_0003.wav"} <= made["whole"].keys()


def test_a_missing_shard_or_one_of_other_items_is_named(tmp_path):
    for index in (1, 2):
        assert results(Shards(tmp_path, 2, index), "abcd", lambda part: part) is None
    assert list(results(Shards(tmp_path, 2), "abcd", list)) == list("abcd")
    for items, found in (("abcde", "2: found 2 items, expected 3"), ("abdc", "2: found 2 items, expected 2")):
        with pytest.raises(InputError, match=found):
            list(results(Shards(tmp_path, 2), items, list))
    (tmp_path / "2" / RESULTS).write_text('"c"\n"d\n')
    with pytest.raises(InputError, match=r"found no JSON.*, expected what shards write"):
        list(results(Shards(tmp_path, 2), "abcd", list))
    shutil.rmtree(tmp_path / "1")
    with pytest.raises(InputError, match=r"1/items: found No such file or directory, expected shard 1 of 2"):
        list(results(Shards(tmp_path, 2), "abcd", list))


def test_a_shard_that_two_jobs_do_is_there_once(tmp_path):
    """The second one was begun when the first one's node was thought to be dead."""
    shards = Shards(tmp_path, 1, 1)

    def work(part):
        yield from part
        results(shards, "ab", list)

    results(shards, "ab", work)
    assert list(results(Shards(tmp_path, 1), "ab", list)) == ["a", "b"]
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_a_shard_that_fails_leaves_no_part(tmp_path):
    def work(part):
        yield 1
        raise InputError("x.wav", "nothing", "audio")

    with pytest.raises(InputError):
        results(Shards(tmp_path, 2, 1), "abcd", work)
    assert not list(tmp_path.iterdir())


def test_arrays_of_shards_are_joined_as_cat_joins_files(tmp_path):
    """An archive of all and the joined archives of parts, one of them empty, are the same bytes."""
    table = {f"u{i}": np.random.default_rng(i).random((3, 4)).astype(np.float32) for i in range(5)}
    names = ("whole", "joined", "a", "b", "c")
    folders = [tmp_path / name for name in names]
    for folder in folders:
        folder.mkdir()
    whole, joined, *parts = (Posteriors(folder) for folder in folders)
    whole.write({"m": table}, tmp_path / "final")
    for part, utts in zip(parts, (["u0", "u1"], [], ["u2", "u3", "u4"]), strict=True):
        part.write({"m": {utt: table[utt] for utt in utts}}, tmp_path / "final")
    joined.join(folders[2:], ["m"], tmp_path / "final")
    assert contents(folders[0]) == contents(folders[1])
    cat = b"".join((folder / "m.ark").read_bytes() for folder in folders[2:])
    assert cat == (folders[1] / "m.ark").read_bytes()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("4/3", None, "p"), "--shard: found 4/3, expected INDEX/COUNT"),
        (("0/3", None, "p"), "--shard: found 0/3"),
        (("1/3", 3, "p"), "found --shard --join --parts, expected --parts with one of"),
        (("1/3", None, None), "found --shard, expected --parts with one of"),
        ((None, None, "p"), "found --parts, expected --parts with one of"),
    ],
)
def test_options_that_do_not_fit_are_refused(given, complaint):
    with pytest.raises(InputError, match=complaint):
        Shards.parse(*given)
    assert Shards.parse(None, None, None) is None


def shards_of_stage_7(folder, utts, count):
    """What ``count`` jobs of stage 7 leave: posteriors of one tagger, 3 x 4."""
    shards = Shards(folder, count)
    folder.mkdir()
    posterior = np.full((3, 4), 0.25, np.float32)
    for index in range(1, count + 1):
        with Shards(folder, count, index).writing(utts) as part:
            Posteriors(part).write({"tagger": dict.fromkeys(shards.part(utts, index), posterior)})


def test_ten_thousand_shards_of_stage_7(trained, tmp_path):
    """They are joined with a handful of open files, in a time that grows as they do."""
    system = S5System.from_yaml(trained.parent / "system.yaml", trained, "cpu")
    seconds = {}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 8, limits[1]))
    try:
        for count in (1000, 10_000):
            utts = [f"u{i:05d}" for i in range(count)]
            data = DataDir(tmp_path, utts, {}, 3, {}, [], {})
            parts = tmp_path / f"{count}.parts"
            shards_of_stage_7(parts, utts, count)
            began = time.process_time()
            stages.tag(system, data, tmp_path / str(count), shards=Shards(parts, count))
            seconds[count] = time.process_time() - began
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    lines = (tmp_path / "10000/posteriors/tagger.scp").read_text().splitlines()
    assert [line.split()[0] for line in lines] == utts
    # Linear: ten times as much; quadratic: a hundred times.
    assert seconds[10_000] < 30 * max(seconds[1000], 0.05)
