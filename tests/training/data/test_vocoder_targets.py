"""What Hibari's network says of its voice, given to the codec's decoder: the same voice."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from duplex.audio import CODEC_FRAME_SAMPLES
from duplex.model.tts.codec import Codec, CodecConfig
from duplex.model.tts.vocoder import BINS, PARTS, minimum_phase
from duplex.training import finish
from duplex.training.controls import controlled, recorded
from duplex.training.data.crops import Crops
from duplex.training.data.pool import Pool, write_pool
from duplex.training.data.vocoder_targets import (
    DIGITAL_SILENCE,
    FLOOR,
    NUMBERS,
    ControlPool,
    analyze_with_world,
    log_bands,
    mix_by_codec,
)
from duplex.training.objectives.spectral import (
    SpectralDistance,
    control_terms,
    log_magnitude_distance,
)

CONFIG = CodecConfig(decoder_blocks=1, encoder_blocks=1)


def spectrum_of(wanted: torch.Tensor) -> torch.Tensor:
    """Controls [B, T, NUMBERS] as the decoder's network gives them, a frame later.

    [B, T, PARTS * BINS]
    """
    noise, harmonic, phase, _ = wanted.split([BINS, BINS, BINS, 1], dim=-1)
    turn = torch.polar(torch.ones_like(phase), phase) / minimum_phase(harmonic)
    turn = turn / turn.abs()
    parts = torch.cat([noise, harmonic, turn.real - 1, turn.imag], -1)
    return F.pad(parts, (0, 0, 1, 0))[:, :-1]


def power_db(wave: np.ndarray) -> float:
    return 10 * np.log10(np.square(wave).mean())


def write(folder, hours: float, voices: str = "many") -> None:
    texts = ["Good day, how are you today?", "Yes."]
    write_pool(partial(controlled, texts, voices, 1), folder, hours)


@pytest.mark.slow
def test_a_pool_with_controls_is_resumed(tmp_path):
    """After an interruption, whose last utterance has no line in the index."""
    write(tmp_path / "whole", 0.001)
    write(tmp_path / "parts", 0.0003)
    for name in ("audio.i16", "controls.f16"):
        with open(tmp_path / "parts" / name, "ab") as file:
            file.write(b"1234" * 1000)
    write(tmp_path / "parts", 0.001)
    for name in ("audio.i16", "controls.f16", "index.jsonl"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert whole == (tmp_path / "parts" / name).read_bytes() and len(whole) > 200


@pytest.mark.slow
@pytest.mark.parametrize("is_recorded", [False, True])
def test_controls_are_the_voice_they_were_taken_from(is_recorded, tmp_path):
    """As its synthesiser had them, and as they are found in the sound alone."""
    text, wave, fields = next(controlled(["Good day, how are you today?"], "heart", 1, 0))
    write_pool(lambda first: [(text, wave, fields | {"split": "train"})], tmp_path, 1)
    folder = tmp_path / "again" if is_recorded else tmp_path
    if is_recorded:
        write_pool(partial(recorded, tmp_path, None), folder, 1)
    wave = Pool(folder).wave(0)
    rows = ControlPool(folder).numbers
    known = ControlPool(tmp_path).numbers
    assert rows.shape == known.shape and len(rows) == len(wave) // CODEC_FRAME_SAMPLES
    check_pitch(rows[:, -1].astype(float), known[:, -1].astype(float))
    check_sound(torch.from_numpy(rows.astype(np.float32))[None], wave)


def check_pitch(hz: np.ndarray, true: np.ndarray) -> None:
    """Both [T], 0 where unvoiced: within 2 % of each other, voiced in nearly the same frames."""
    both = (hz > 0) & (true > 0)
    assert ((hz > 0) == (true > 0)).mean() > 0.8
    assert np.median(np.abs(np.log(hz[both] / true[both]))) < 0.02


def check_sound(wanted: torch.Tensor, wave: np.ndarray) -> None:
    """The controls [1, T, NUMBERS] sound like the wave [N]: as loud, and near in mel bands."""
    codec = Codec(CONFIG)
    log_hz = wanted[..., -1].clamp(min=60).log()
    made, _ = codec.decoder.sound(spectrum_of(wanted), log_hz, codec.initial_decode_state(1))
    made = made[0, codec.decoder_delay_samples :].numpy()
    true = wave[: -codec.decoder_delay_samples]
    # By the end of a frame's window.
    voiced = np.repeat(wanted[0, 1:-1, -1].numpy() > 0, CODEC_FRAME_SAMPLES)
    for part in (voiced, ~voiced):
        # The random noise of a few frames.
        assert abs(power_db(made[part]) - power_db(true[part])) < 2.5
    distance = SpectralDistance()

    def log_mel(sound: np.ndarray) -> torch.Tensor:
        return distance.log_mel(distance.magnitude(torch.from_numpy(sound)[None], 1024), 1024)

    near = (log_mel(made) - log_mel(true)).abs().mean()
    far = (log_mel(0 * true + 1e-3) - log_mel(true)).abs().mean()
    assert near < 0.5 < 0.25 * far


def test_the_distance_is_none_for_the_controls_themselves_and_some_for_others():
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, BINS, generator=rng)
    harmonic = torch.randn(1, 4, BINS, generator=rng)
    phase = torch.rand(1, 4, BINS, generator=rng)
    wanted = torch.cat([noise, harmonic, phase, torch.full((1, 4, 1), 200.0)], -1)
    spectrum = spectrum_of(wanted)
    log_hz = torch.full((1, 4), 200.0).log()
    terms = control_terms(spectrum, log_hz, wanted)
    assert all(abs(term) < 1e-4 for term in terms.values())
    for part, name in enumerate(("noise", "harmonic", "turn")):
        changed = spectrum.clone()
        changed[..., part * BINS : (part + 1) * BINS] += 1.0
        moved = control_terms(changed, log_hz, wanted)
        assert moved[name] > 0.05 and (moved["bands"] > 0.05) == (name != "turn")
        assert all(abs(moved[other]) < 1e-4 for other in terms if other not in (name, "bands"))
    assert abs(control_terms(spectrum, log_hz + np.log(2), wanted)["pitch"] - 1) < 1e-4


def test_below_the_floor_all_is_one_but_digital_silence():
    floor = torch.tensor(FLOOR)
    lower = torch.tensor(DIGITAL_SILENCE)
    assert log_magnitude_distance(floor - 1, floor) == 0
    assert log_magnitude_distance(floor + 1, floor) == 1
    assert log_magnitude_distance(floor, lower) == floor - lower
    assert log_magnitude_distance(lower, lower) == 0


def test_a_codec_says_how_pulses_and_noise_are_mixed_and_each_band_stays_as_loud():
    torch.manual_seed(0)
    codec = Codec(CONFIG)
    rng = np.random.default_rng(0)
    wave = 0.1 * rng.standard_normal(40 * CODEC_FRAME_SAMPLES).astype(np.float32)
    rows = analyze_with_world(wave)
    mixed = mix_by_codec(codec, wave, rows)
    assert mixed.shape == rows.shape
    wanted, ours = (
        log_bands(*torch.from_numpy(part[:, : 2 * BINS]).chunk(2, -1)) for part in (rows, mixed)
    )
    assert (ours - wanted).abs().mean() < 0.1
    with torch.no_grad():
        latent = codec.dequantize(codec.encode(torch.from_numpy(wave)[None, None]))
        state = codec.initial_decode_state(1)
        spectrum = codec.decoder.controls(latent, state.histories)[0]
    noise, harmonic = spectrum[0].chunk(PARTS, -1)[:2]
    louder = torch.from_numpy(mixed[:, BINS : 2 * BINS] - mixed[:, :BINS])
    torch.testing.assert_close(louder[:-1], (harmonic - noise)[1:], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_crops_with_controls_fit_their_sound(tmp_path):
    write(tmp_path, 0.001)
    crops = Crops([(Pool(tmp_path), 1e-9)], 1, [(ControlPool(tmp_path), 1.0, True)])
    wave, wanted, _ = crops.batch(3, 4)
    frames = wave.unflatten(-1, (-1, CODEC_FRAME_SAMPLES)).square().mean(-1)[:, 0]
    assert wanted.shape == (*frames.shape, NUMBERS)
    silent = wanted[..., : 2 * BINS].amax(-1) == DIGITAL_SILENCE
    assert (silent <= (frames == 0)).all() and silent.any()
    loud = frames > 1e-3
    voiced = wanted[..., -1] > 0
    assert (loud & voiced).sum() > 0.7 * loud.sum(), "what is loud is a vowel, nearly always"
    assert torch.equal(crops.batch(3, 4)[1], wanted)


@pytest.mark.slow
def test_a_finished_codec_has_the_pitch_and_the_spectrum_of_its_pool(tmp_path):
    """Both nearer than before; fitted twice, there is nothing left to even out."""
    write(tmp_path, 0.002, "heart")
    torch.manual_seed(0)
    codec = Codec(CONFIG)
    pool = ControlPool(tmp_path)
    for codebook in codec.quantizer.vq.layers:
        codebook._codebook.embed.normal_()  # Random codes still tell the frames apart.
    before, after = finish.fit_pitch(codec, pool, count=3, steps=400)
    assert after < 0.8 * before
    first = finish.even_out(codec, pool, count=3)
    second = finish.even_out(codec, pool, count=3)
    assert first.abs().mean() > 0.5 and second.abs().mean() < 0.2 * first.abs().mean()
