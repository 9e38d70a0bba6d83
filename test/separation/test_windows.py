"""Long recordings: what windows, cross-fades and tracks guarantee."""

import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from s5.labels import LabelSet
from s5.separation import ResUNetK
from s5.separation.windows import Track, fade_in, separate_long_file, separate_windows
from s5.utils.errors import InputError

RATE = 1000


def noise(channels, n, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, n)).astype(np.float32)


def pieces(x, size):
    return [x[:, i : i + size] for i in range(0, x.shape[1], size)]


def joined(segments):
    """{track: whole waveform}, and whether the segments follow each other without a gap."""
    result, end = {}, 0
    for segment in segments:
        assert segment.start == end
        end += segment.length
        for track in segment.sources:
            result.setdefault(track, [np.zeros(segment.start, np.float32)])
        for track, parts in result.items():
            parts.append(segment.sources.get(track, np.zeros(segment.length, np.float32)))
    return {track: np.concatenate(parts) for track, parts in result.items()}, end


def each(separate):
    """What is done with one window as something that is done with several."""
    return lambda windows: map(separate, windows)


@each
def two_speakers(x):
    return ["Speech", "Speech", "Cough"], x[:3]


def test_cross_fade_sums_to_one():
    rise = fade_in(50)
    assert (np.diff(rise) > 0).all() and 0 < rise[0] < rise[-1] < 1
    np.testing.assert_allclose(rise + rise[::-1], 1, atol=1e-6)


@pytest.mark.parametrize("length", [1, 99, 100, 101, 139, 180, 181, 523, 1000])
@pytest.mark.parametrize("size", [1, 37, 100, 450])
def test_what_windows_agree_on_comes_through_unchanged(length, size):
    x = noise(4, length)
    tracks, end = joined(separate_windows(pieces(x, size), two_speakers, 100, 20))
    assert end == length and set(tracks) == {Track("Speech", 0), Track("Speech", 1), Track("Cough", 0)}
    for track, channel in zip([Track("Speech", 0), Track("Speech", 1), Track("Cough", 0)], x, strict=False):
        np.testing.assert_allclose(tracks[track], channel, atol=1e-7)


def test_a_short_filter_gives_the_unwindowed_result_but_for_the_edges():
    """A separator that looks 5 samples around itself errs in the last 5 of a window, where it weighs least."""
    kernel = np.hanning(11) / 5

    @each
    def separate(x):
        return ["Cough"], [np.convolve(x[0], kernel, "same")]

    x = noise(1, 1000)
    whole = np.convolve(x[0], kernel, "same")
    tracks, _ = joined(separate_windows(pieces(x, 64), separate, 200, 100))
    error = np.abs(tracks[Track("Cough", 0)] - whole)
    assert error.max() < 0.01 * np.abs(whole).max()
    assert np.array_equal(tracks[Track("Cough", 0)][20:95], whole[20:95].astype(np.float32))  # one window alone


def test_sources_that_change_places_stay_in_their_tracks():
    x, windows = noise(2, 1000), []

    @each
    def separate(window):
        windows.append(window)
        return ["Speech", "Speech"], window if len(windows) % 2 else window[::-1]

    tracks, _ = joined(separate_windows(pieces(x, 100), separate, 200, 40))
    assert len(windows) > 4
    np.testing.assert_allclose([tracks[Track("Speech", 0)], tracks[Track("Speech", 1)]], x, atol=1e-7)


def test_tracks_begin_end_and_are_taken_up_again():
    x = noise(1, 1000)
    labels = iter([["Cough"], [], ["Speech"], ["Cough", "Speech"], ["Cough", "Cough"]] + [[]] * 9)

    @each
    def separate(window):
        found = next(labels)
        return found, [window[0]] * len(found)

    segments = list(separate_windows(pieces(x, 100), separate, 200, 40))
    assert [sorted(segment.sources) for segment in segments] == [
        [Track("Cough", 0)],
        [Track("Cough", 0)],  # fades out
        [Track("Speech", 0)],
        [Track("Cough", 0), Track("Speech", 0)],
        [Track("Cough", 0), Track("Cough", 1), Track("Speech", 0)],  # the second cough begins, speech fades out
        [Track("Cough", 0), Track("Cough", 1)],
    ]
    ended = segments[1].sources[Track("Cough", 0)]
    assert ended[:40].any() and not ended[40:].any()


def test_no_source_at_all():
    segments = list(separate_windows(pieces(noise(4, 500), 100), each(lambda x: ([], np.zeros((0, 100)))), 200, 40))
    assert sum(segment.length for segment in segments) == 500 and not any(s.sources for s in segments)


def test_memory_does_not_grow_with_the_recording():
    def peak(seconds):
        tracemalloc.start()
        x = noise(4, RATE)
        for _ in separate_windows((x for _ in range(seconds)), two_speakers, 4 * RATE, RATE):
            pass
        return tracemalloc.get_traced_memory()[1], tracemalloc.stop()

    assert peak(400)[0] < 1.1 * peak(20)[0]


@pytest.mark.slow
def test_ten_minutes_through_a_network(tmp_path):
    """75 windows of 10 s: every sample comes out, and the arrays of a few windows are all that is held."""
    rate, minutes = 4000, 10
    with soundfile.SoundFile(tmp_path / "long.wav", "w", rate, 4, subtype="PCM_16") as file:
        for minute in range(minutes):
            file.write(noise(4, 60 * rate, minute).T)
    torch.manual_seed(0)
    network = ResUNetK(2, 3, n_fft=256, hop_length=128, widths=[2, 3], condition_dim=4, pass_through=True).eval()
    query, windows = torch.from_numpy(LabelSet(("Cough", "Speech")).query(["Speech", "Speech"], 3))[None], []

    @each
    def separate(window):
        windows.append(window.shape[1])
        with torch.inference_mode():
            return ["Speech", "Speech"], network(torch.tensor(window)[None], query)[0, :2].numpy()

    tracemalloc.start()
    written = separate_long_file(tmp_path / "long.wav", tmp_path / "out", separate)
    peak, _ = tracemalloc.get_traced_memory()[1], tracemalloc.stop()
    assert len(windows) == 75 and set(windows) == {10 * rate}
    assert [path.name for path, *_ in written] == ["long_0_Speech.wav", "long_1_Speech.wav"]
    for path, *_ in written:
        for block in soundfile.blocks(path, 60 * rate):
            assert len(block) == 60 * rate and block.any()
    whole = 4 * minutes * 60 * rate * 4  # bytes of the recording as float32
    assert peak < whole / 5


@pytest.mark.parametrize("batch_size", [2, 3, 100])
@pytest.mark.parametrize("length", [150, 523, 1000])
def test_windows_in_batches_are_those_one_by_one(length, batch_size):
    x, sizes = noise(4, length), []

    def separate(windows):
        assert len({window.shape for window in windows}) == 1
        sizes.append(len(windows))
        return two_speakers(windows)

    one_by_one, _ = joined(separate_windows(pieces(x, 64), two_speakers, 200, 100))
    batches, _ = joined(separate_windows(pieces(x, 64), separate, 200, 100, batch_size))
    assert one_by_one.keys() == batches.keys()
    for track, waveform in one_by_one.items():
        np.testing.assert_array_equal(batches[track], waveform)
    assert max(sizes) == min(batch_size, sum(sizes)) and all(size == batch_size for size in sizes[:-1])


def test_results_come_as_soon_as_they_are_known():
    taken = []

    def blocks():
        for i in range(40):
            taken.append(i)
            yield noise(4, 100)

    segments = separate_windows(blocks(), two_speakers, 400, 100)
    next(segments)
    assert len(taken) == 5  # one window, and the block that tells that it is not the last


def test_a_file(tmp_path):
    x = noise(4, 7321)
    soundfile.write(tmp_path / "long.wav", x.T, RATE, subtype="FLOAT")
    started = []

    @each
    def separate(window):
        started.append(window.shape[1])
        return (["Speech", "Speech", "Cough"], window[:3]) if len(started) > 1 else (["Cough"], window[2:3])

    written = separate_long_file(tmp_path / "long.wav", tmp_path / "out", separate, window=2, overlap=0.5)
    assert [path.name for path, *_ in written] == ["long_0_Cough.wav", "long_1_Speech.wav", "long_2_Speech.wav"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [path.name for path, *_ in written]
    cough, speech = (soundfile.read(path)[0] for path, *_ in written[:2])
    assert len(cough) == len(speech) == 7321
    assert np.abs(cough - x[2]).max() <= 0.51 / 32768
    assert not speech[:1500].any() and np.abs(speech[2000:] - x[0][2000:]).max() <= 0.51 / 32768


def test_a_separator_that_fails_leaves_nothing_behind(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(1, 5000).T, RATE)
    calls = []

    @each
    def separate(window):
        calls.append(1)
        if len(calls) > 2:
            raise InputError("mixture", "trouble", "none")
        return ["Cough"], window

    with pytest.raises(InputError, match="trouble"):
        separate_long_file(tmp_path / "long.wav", tmp_path / "out", separate, 1, 0.2)
    assert not list((tmp_path / "out").iterdir())


def test_bad_input_is_named(tmp_path):
    with pytest.raises(InputError, match="overlap: found 60 samples, expected 1 to 50"):
        list(separate_windows([noise(1, 200)], each(lambda x: (["Cough"], x)), 100, 60))
    with pytest.raises(InputError, match="found no sample"):
        list(separate_windows([], two_speakers, 100, 20))
    with pytest.raises(InputError, match="a waveform of 100 samples per label"):
        list(separate_windows([noise(1, 200)], each(lambda x: (["Cough"], x[:, 1:])), 100, 20))
    x = noise(1, 2000)
    x[0, 1500] = np.nan
    soundfile.write(tmp_path / "nan.wav", x.T, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=r"nan\.wav: found samples that are not finite"):
        separate_long_file(tmp_path / "nan.wav", tmp_path / "out", each(lambda w: (["Cough"], w)), 1, 0.2)
    assert not list((tmp_path / "out").iterdir())
