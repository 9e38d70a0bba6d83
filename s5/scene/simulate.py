"""Fixed sets: scenes drawn, rendered and written once, with their data directory.

<out>/wav/<utt>.wav                     mixture, float32
<out>/source/<utt>_<slot>_<Label>.wav   dry targets in onset order, slot from 0, float32
<out>/scene/<utt>.json                  the scene, written last: with it the item is complete
<out>/wav.scp, labels, source<k>.scp, scene.scp
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import yaml

from s5.data import Row, remove_data_dir_files, write_audio, write_bytes, write_data_dir
from s5.errors import InputError
from s5.progress import progress
from s5.scene.render import render
from s5.scene.sampler import Sampler
from s5.scene.spec import Scene


def simulate(sampler: Sampler, out: str | Path, num_scenes: int | None = None, nj: int = 1) -> list[Row]:
    """Makes a fixed set of the sampler's scenes 0 .. N-1 (of epoch 0). Complete items of an earlier run are kept.

    Args:
        sampler: its paths and ``out`` start from the working directory.
        out: the data directory; its name starts the utterances' (``test_0000``).
        num_scenes: N; None: the configuration's.
        nj: processes; the files do not depend on it.

    Returns:
        The rows of the data directory.

    Raises:
        InputError: bad material, or a configuration that allows no scene.
    """
    out = Path(out)
    n = sampler.config.num_scenes if num_scenes is None else num_scenes
    if any(c.isspace() for c in str(out)):
        raise InputError("--out", repr(str(out)), "a path without space")
    if (out / "sampler.yaml").exists():
        raise InputError(out, "sampler.yaml (a virtual set)", "a folder for a fixed set")
    for name in ("wav", "source", "scene"):
        (out / name).mkdir(parents=True, exist_ok=True)
    # Until the last item is there, nothing shall pass for a complete set.
    remove_data_dir_files(out)
    digits = max(4, len(str(n - 1)))
    utts = [f"{out.name}_{item:0{digits}d}" for item in range(n)]
    rows = list(progress(_make_all(sampler, out, utts, nj), n, "simulate"))
    write_data_dir(out, rows, sampler.config.n_slots)
    return rows


def make_virtual(sampler: Sampler, out: str | Path) -> Path:
    """Writes a virtual set: ``sampler.yaml`` with the resolved configuration, once one scene of it has been rendered.

    Raises:
        InputError: bad material, a configuration that allows no scene, or a folder that holds a fixed set.
    """
    out = Path(out)
    if (out / "wav.scp").exists():
        raise InputError(out, "wav.scp (a fixed set)", "a folder for a virtual set")
    render(sampler.scene(0, 0), sampler.root)
    out.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(sampler.to_dict(), sort_keys=False)
    write_bytes(out / "sampler.yaml", text.encode())
    return out / "sampler.yaml"


def summary(rows: Sequence[Row]) -> str:
    """One line: how many scenes, sources a scene, scenes with a repeated class, sources a class."""
    labels = [row.labels or () for row in rows]
    sizes = Counter(len(found) for found in labels)
    classes = Counter(label for found in labels for label in found)
    repeated = sum(len(set(found)) < len(found) for found in labels)
    by_size = ", ".join(f"{sizes[k]} of {k}" for k in sorted(sizes))
    by_class = ", ".join(f"{label} {classes[label]}" for label in sorted(classes))
    return f"{len(rows)} scenes; sources a scene: {by_size}; repeated class: {repeated}; sources: {by_class or 'none'}"


def _make_all(sampler: Sampler, out: Path, utts: list[str], nj: int) -> Iterator[Row]:
    nj = min(nj, len(utts))
    if nj <= 1:
        yield from (_make(sampler, out, item, utt) for item, utt in enumerate(utts))
        return
    # Spawned, not forked: forking a process with threads (a progress bar's, say) may block the child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(nj, mp_context=context, initializer=_initialize, initargs=(sampler, out)) as pool:
        try:
            chunk = max(1, min(16, len(utts) // (4 * nj)))
            yield from pool.map(_make_in_worker, range(len(utts)), utts, chunksize=chunk)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_worker: tuple[Sampler, Path] | None = None


def _initialize(sampler: Sampler, out: Path) -> None:
    global _worker
    _worker = sampler, out


def _make_in_worker(item: int, utt: str) -> Row:
    assert _worker is not None
    return _make(*_worker, item, utt)


def _make(sampler: Sampler, out: Path, item: int, utt: str) -> Row:
    """Makes one item, unless it is there and is of the same scene."""
    scene = sampler.scene(0, item)
    labels = scene.labels
    wav, json = out / "wav" / f"{utt}.wav", out / "scene" / f"{utt}.json"
    sources = [out / "source" / f"{utt}_{slot}_{label}.wav" for slot, label in enumerate(labels)]
    if not (_is_scene(json, scene) and wav.exists() and all(path.exists() for path in sources)):
        json.unlink(missing_ok=True)
        for old in (out / "source").glob(f"{utt}_*.wav"):
            old.unlink()
        rendered = render(scene, sampler.root)
        for path, dry in zip(sources, rendered.dry, strict=True):
            write_audio(path, dry, scene.config.sr)
        write_audio(wav, rendered.mixture, scene.config.sr)
        scene.save(json)
    return Row(utt, str(wav), tuple(labels), tuple(str(path) for path in sources), str(json))


def _is_scene(path: Path, scene: Scene) -> bool:
    try:
        return Scene.load(path) == scene
    except InputError:
        return False
