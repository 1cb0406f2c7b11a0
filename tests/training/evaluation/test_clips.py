"""The clips that hearing is measured on: sources, disturbances, what is compared of texts."""

import json

import numpy as np
import pytest
import soundfile

from duplex.audio import SAMPLE_RATE
from duplex.serving.sound import g711
from duplex.training.data.augment import active_power
from duplex.training.data.provenance import trained_on, write_sources
from duplex.training.evaluation.hearing import clip_sets, spoken_items
from duplex.training.evaluation.hearing.disturbances import (
    as_wrong_bytes,
    babble,
    from_mu_law,
    in_far_field,
    mu_law,
    over_telephone,
    with_gaps,
    with_noise,
    wordless,
    words_per_minute,
)
from duplex.training.evaluation.hearing.normal_form import characters, normal_form, recalled
from duplex.training.evaluation.hearing.rooms import (
    direct_to_reverberant_db,
    far_field_response,
    reverberation_time,
)
from duplex.training.evaluation.intervals import interval, rate

HISS = np.random.default_rng(5).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)


def item(source: str, number: int, split: str = "train", **fields) -> dict:
    """A line of audio.jsonl."""
    known = {"kind": "speech", "seconds": 1.0, "text": f"text {number}", "speaker": str(number)}
    file = f"{source[-1]}{number}.flac"
    return known | {"file": file, "source": source, "split": split} | fields


@pytest.fixture
def data(tmp_path):
    """Two sources of twelve clips, half of each by test speakers, and one of a single clip."""
    splits = ("train", "test")
    lines = [item("github:x/a (A clean)", n, splits[n % 2]) for n in range(24)]
    lines += [item("github:x/b", n, splits[n % 2]) for n in range(12)]
    lines += [item("github:x/c", 0), item("github:x/a (A clean)", 90, seconds=26.0)]
    lines += [item("github:x/m", n, kind="multi", text=None) for n in range(2)]
    for line in lines:
        soundfile.write(tmp_path / line["file"], HISS, SAMPLE_RATE)
    (tmp_path / "audio.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    order = item("github:x/o", 0, "measure", text=None, words="iced mocha")
    soundfile.write(tmp_path / order["file"], HISS, SAMPLE_RATE)
    (tmp_path / "measure.jsonl").write_text(json.dumps(order) + "\n")
    return tmp_path


def test_of_a_known_source_only_test_speakers_are_measured(data):
    sets = clip_sets.recorded_sets(data, ["x/a"], 100)
    assert [(one.name, len(one.load())) for one in sets] == [("A clean test", 12), ("b", 12)]
    texts = [clip.text for clip in sets[0].load()]
    assert sorted(texts) == sorted(f"text {n}" for n in range(1, 24, 2))
    # Six test speakers of b are too few, once it is known.
    assert [one.name for one in clip_sets.recorded_sets(data, ["x/"], 100)] == ["A clean test"]


def test_clips_are_spread_over_a_source(data):
    [one, _] = clip_sets.recorded_sets(data, [], 6)
    speakers = [clip.text for clip in one.load()]
    assert len(speakers) == 6 == len(set(speakers))
    assert clip_sets.spread([*range(10)], 3) == [0, 3, 6]
    assert clip_sets.spread([1, 2], 3) == [1, 2]


def test_an_unseen_source_is_disturbed(data):
    sets = clip_sets.disturbed_sets(data, ["x/a"], 2, seed=0)
    assert [one.name for one in sets] == [
        "b, babble, 10 dB",
        "b, babble, 5 dB",
        "b, far field",
        "b, telephone",
    ]
    for one in sets:
        first, again = one.load(), one.load()
        assert all((a.wave == b.wave).all() for a, b in zip(first, again, strict=True))
        assert not np.allclose(first[0].wave, HISS, atol=1e-3) and len(first[0].wave) == len(HISS)


def test_orders_have_the_words_that_matter(data):
    [one] = clip_sets.order_sets(data, 5)
    assert one.name == "o, orders" and [clip.text for clip in one.load()] == ["iced mocha"]


def test_a_run_tells_its_sources(tmp_path):
    assert trained_on(tmp_path) is None
    pool = tmp_path / "pool"
    pool.mkdir()
    entries = [
        {"voice": "real:1", "source": "x/a", "split": "train"},
        {"voice": "real:2", "source": "x/b", "split": "valid"},
        {"voice": "kokoro:af_sky", "source": "synthetic", "split": "train"},
    ]
    (pool / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    start = tmp_path / "start"
    start.mkdir()
    run = {"arguments": {"pool": [[str(pool), 1.0]], "start": str(start)}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert trained_on(tmp_path) is None  # Nobody knows what the start was trained on.
    write_sources(start, ["piper"])
    assert trained_on(tmp_path) == ["kokoro", "piper", "x/a"]
    write_sources(start, None)
    assert trained_on(start) is None


def test_intervals_of_rates():
    assert rate([(1, 4), (0, 6)]) == pytest.approx(0.1)
    assert interval([(1, 4)] * 20) == (0.25, 0.25)
    scores = [(n % 2, 1) for n in range(400)]
    low, high = interval(scores)
    # Half of 400: a standard error of 0.025.
    assert low == pytest.approx(0.45, abs=0.01) and high == pytest.approx(0.55, abs=0.01)
    assert interval(scores) == (low, high)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("O.K., I don't, Mr. Grey", "okay i dont mister gray"),
        ("Ok, the COLOUR of our four flowers", "okay the color of our four flowers"),
        ("He realised the travellers' centre", "he realized the travelers center"),
        ("12 oz. at 9:05", "twelve ounces at nine oh five"),
    ],
)
def test_texts_are_compared_in_one_spelling(text, wanted):
    assert normal_form(text) == wanted


@pytest.mark.parametrize(
    "said, written",
    [
        ("oh seven four three two, one two", "07432-12."),
        ("A, B, as in Bravo, seven, K.", "A B as in Bravo 7K"),
        ("S, M, I, T, H.", "SMITH."),
        ("john dot smith at example dot com", "John.Smith@example.com."),
    ],
)
def test_what_is_spelled_is_compared_letter_by_letter(said, written):
    assert characters(said) == characters(written)
    assert characters(said) != characters(written[1:])


def test_recall_of_words_that_matter():
    assert recalled("mocha twelve ounce", "a 12-ounce mocha") == (3, 3)
    assert recalled("twelve ounce twelve", "twelve ounces") == (2, 3)
    assert recalled("glass", "glas") == (0, 1)


def test_items_are_as_many_as_asked_and_the_same_again():
    for make in (spoken_items.digit_strings, spoken_items.spelled, spoken_items.addresses):
        items = make(30, np.random.default_rng(1))
        assert len(items) == 30 and items == make(30, np.random.default_rng(1))
        assert len(set(items)) > 25
    strings = spoken_items.digit_strings(30, np.random.default_rng(1))[1:]
    assert {len(characters(text)) for text in strings} == {4, 5, 6, 7}
    assert len(set(spoken_items.WORDS)) == len(spoken_items.WORDS)


def test_rooms_are_far_fields():
    for seed in range(5):
        response = far_field_response(np.random.default_rng(seed))
        assert response[0] == pytest.approx(0.99, abs=0.02)
        assert 0.35 < reverberation_time(response) < 0.85
        assert -13 < direct_to_reverberant_db(response) < -1


def test_disturbances_do_what_they_say():
    rng = np.random.default_rng(0)
    noise = babble([HISS, HISS[:9000]], 2.0, rng)
    assert noise.dtype == np.int16 and len(noise) == 2 * SAMPLE_RATE
    added = with_noise(10, [noise])(HISS, rng) - HISS
    assert 10 * np.log10(active_power(HISS) / np.square(added).mean()) == pytest.approx(10, abs=0.5)
    far = in_far_field(HISS, rng)
    assert active_power(far) == pytest.approx(active_power(HISS), rel=0.01)
    spectrum = np.abs(np.fft.rfft(over_telephone(HISS, rng)))
    bins = np.fft.rfftfreq(len(HISS), 1 / SAMPLE_RATE)
    inside = spectrum[(bins > 500) & (bins < 3000)].mean()
    for outside in (bins < 100, bins > 4500):
        assert spectrum[outside].mean() < 0.05 * inside
    wrong = as_wrong_bytes(HISS)
    assert len(wrong) == len(HISS) // 6 and np.abs(wrong).max() > 0.4


def test_frames_get_lost():
    lost = with_gaps(np.ones(3 * SAMPLE_RATE, np.float32), np.random.default_rng(0)) == 0
    assert lost.reshape(3, -1).sum(1).tolist() == [SAMPLE_RATE // 10] * 3


def test_nobody_speaks_to_it(data):
    sets = clip_sets.wordless_sets(data, [], 1.0, seed=0)
    [television] = [one.load() for one in sets if one.name.startswith("television")]
    levels = [10 * np.log10(active_power(clip.wave)) for clip in television]
    assert levels == pytest.approx([clip_sets.TELEVISION_DB] * len(levels), abs=0.1) and levels


def test_mu_law_is_that_of_the_telephone():
    samples = np.random.default_rng(0).uniform(-1, 1, 999)
    nearest = np.frombuffer(g711.compress(samples, "audio/pcmu"), np.uint8)
    # Between two segments the standard's code is not always the nearest one.
    assert np.abs(mu_law(samples).astype(int) - nearest).max() <= 1
    assert (mu_law(samples) == nearest).mean() > 0.97
    codes = np.arange(256, dtype=np.uint8)
    assert (from_mu_law(codes) == g711.expand(codes.tobytes(), "audio/pcmu")).all()


def test_wordless_sound_has_words_per_minute():
    noises = [np.random.default_rng(1).integers(-9000, 9000, 48_000).astype(np.int16)]
    waves = wordless(noises, 5 / 3, np.random.default_rng(0))
    assert len(waves) == 5 and not waves[0].any()
    assert all(0 < np.abs(wave).max() <= 1 for wave in waves[1:])
    assert words_per_minute(["so it is", "", "", "", ""], waves) == pytest.approx(1.8)
