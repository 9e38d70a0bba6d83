"""A process that renders scene after scene keeps its size."""

import multiprocessing

from s5.scene import Sampler, preload, render, set_cache_budget

PAGE_MB = 4096 / (1 << 20)


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE_MB


def _soak(root, config, keep, out):
    set_cache_budget(1_000_000, 1_000_000)
    sampler = Sampler(config, root)
    preload(sampler.files(), config["sampling_rate"], sampler.rooms(), budget=500_000)  # less than there is
    sizes, kept = [], []
    for item in range(200):
        rendered = render(sampler.scene(0, item), root)
        kept += [rendered] * keep
        if item in (39, 199):
            sizes.append(resident_mb())
    out.send(sizes[1] - sizes[0])


def growth(root, config, keep: bool) -> float:
    """MB that a process grows by over 160 scenes, after 40; ``keep``: it leaks what it rendered."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_soak, args=(root, config, keep, theirs))
    child.start()
    grown = ours.recv()
    child.join()
    return grown


def test_no_growth_over_hundreds_of_scenes_with_caches_that_overflow(material, config):
    config |= {"n_events": [1, 3], "interference": [1, 2]}
    assert growth(material, config, keep=False) < 4
    assert growth(material, config, keep=True) > 15  # the measure would see it
