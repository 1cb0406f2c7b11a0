"""What Hibari's network says of its voice, given to the codec's decoder: the same voice."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from duplex.training import controls, finish
from duplex.training.codec import Crops
from duplex.training.data.pool import Pool
from duplex.training.objectives.spectral import Losses
from duplex.training.speech import write_pool

from duplex.audio import CODEC_FRAME_SAMPLES
from duplex.model.codec import Codec, CodecConfig
from duplex.model.vocoder import BINS, PARTS, minimum_phase


def spectrum_of(wanted: torch.Tensor) -> torch.Tensor:
    """Controls [B, T, NUMBERS] as the decoder's network would give them [B, T, PARTS * BINS]: a frame later."""
    noise, harmonic, phase, _ = wanted.split([BINS, BINS, BINS, 1], dim=-1)
    turn = torch.polar(torch.ones_like(phase), phase) / minimum_phase(harmonic)
    turn = turn / turn.abs()
    return F.pad(torch.cat([noise, harmonic, turn.real - 1, turn.imag], -1), (0, 0, 1, 0))[:, :-1]


def power_db(wave: np.ndarray) -> float:
    return 10 * np.log10(np.square(wave).mean())


def write(folder, hours: float, voices: str = "many") -> None:
    write_pool(
        lambda first: controls.controlled(
            ["Good day, how are you today?", "Yes."], voices, 1, first
        ),
        folder,
        hours,
    )


def test_a_pool_with_controls_is_resumed(tmp_path):
    """After an interruption, whose last utterance has no line in the index."""
    write(tmp_path / "whole", 0.001)
    write(tmp_path / "parts", 0.0003)
    for name in ("audio.i16", "controls.f16"):
        with open(tmp_path / "parts" / name, "ab") as file:
            file.write(b"1234" * 1000)
    write(tmp_path / "parts", 0.001)
    for name in ("audio.i16", "controls.f16", "index.jsonl"):
        whole, parts = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "parts"))
        assert whole == parts and len(whole) > 200


@pytest.mark.parametrize("recorded", [False, True])
def test_controls_are_the_voice_they_were_taken_from(recorded, tmp_path):
    """As its synthesiser had them, and as they are found in the sound alone."""
    text, wave, fields = next(controls.controlled(["Good day, how are you today?"], "heart", 1, 0))
    write_pool(lambda first: [(text, wave, fields | {"split": "train"})], tmp_path, 1)
    folder = tmp_path / "again" if recorded else tmp_path
    if recorded:
        write_pool(lambda first: controls.recorded(tmp_path, None, first), folder, 1)
    pool, rows, known = (
        Pool(folder),
        controls.ControlPool(folder).numbers,
        controls.ControlPool(tmp_path).numbers,
    )
    wave, hz, true = pool.wave(0), rows[:, -1].astype(float), known[:, -1].astype(float)
    assert rows.shape == known.shape and len(rows) == len(wave) // CODEC_FRAME_SAMPLES
    both = (hz > 0) & (true > 0)
    assert ((hz > 0) == (true > 0)).mean() > 0.8 and np.median(
        np.abs(np.log(hz[both] / true[both]))
    ) < 0.02
    wanted = torch.from_numpy(rows.astype(np.float32))[None]
    codec = Codec(CodecConfig(decoder_blocks=1, encoder_blocks=1))
    log_hz = wanted[..., -1].clamp(min=60).log()
    made, _ = codec.decoder.sound(spectrum_of(wanted), log_hz, codec.initial_decode_state(1))
    made, true = (
        made[0, codec.decoder_delay_samples :].numpy(),
        wave[: -codec.decoder_delay_samples],
    )
    voiced = np.repeat(rows[1:-1, -1] > 0, CODEC_FRAME_SAMPLES)  # by the end of a frame's window
    for part in (voiced, ~voiced):
        assert (
            abs(power_db(made[part]) - power_db(true[part])) < 2.5
        )  # the random noise of a few frames
    losses = Losses()
    mels = [
        losses.log_mel(losses.magnitude(torch.from_numpy(w)[None], 1024), 1024)
        for w in (made, true, 0 * true + 1e-3)
    ]
    distance, without = ((mel - mels[1]).abs().mean() for mel in (mels[0], mels[2]))
    assert distance < 0.5 < 0.25 * without


def test_the_distance_is_none_for_the_controls_themselves_and_some_for_others():
    rng = torch.Generator().manual_seed(0)
    noise, harmonic = torch.randn(1, 4, BINS, generator=rng), torch.randn(1, 4, BINS, generator=rng)
    wanted = torch.cat(
        [noise, harmonic, torch.rand(1, 4, BINS, generator=rng), torch.full((1, 4, 1), 200.0)], -1
    )
    spectrum, log_hz = spectrum_of(wanted), torch.full((1, 4), 200.0).log()
    terms = controls.control_terms(spectrum, log_hz, wanted)
    assert all(abs(term) < 1e-4 for term in terms.values())
    for part, name in enumerate(("noise", "harmonic", "turn")):
        changed = spectrum.clone()
        changed[..., part * BINS : (part + 1) * BINS] += 1.0
        moved = controls.control_terms(changed, log_hz, wanted)
        assert moved[name] > 0.05 and (moved["bands"] > 0.05) == (name != "turn")
        assert all(abs(moved[other]) < 1e-4 for other in terms if other not in (name, "bands"))
    assert abs(controls.control_terms(spectrum, log_hz + np.log(2), wanted)["pitch"] - 1) < 1e-4


def test_below_the_floor_all_is_one_but_digital_silence():
    floor, lower = torch.tensor(controls.FLOOR), torch.tensor(controls.DIGITAL_SILENCE)
    assert controls.told_apart(floor - 1, floor) == 0 and controls.told_apart(floor + 1, floor) == 1
    assert (
        controls.told_apart(floor, lower) == floor - lower
        and controls.told_apart(lower, lower) == 0
    )


def test_a_codec_says_how_pulses_and_noise_are_mixed_and_each_band_stays_as_loud():
    torch.manual_seed(0)
    codec, rng = Codec(CodecConfig(decoder_blocks=1, encoder_blocks=1)), np.random.default_rng(0)
    wave = 0.1 * rng.standard_normal(40 * CODEC_FRAME_SAMPLES).astype(np.float32)
    rows = controls.taken_apart(wave)
    mixed = controls.mixed_by(codec, wave, rows)
    assert mixed.shape == rows.shape
    wanted, ours = (
        controls.log_bands(*torch.from_numpy(part[:, : 2 * BINS]).chunk(2, -1))
        for part in (rows, mixed)
    )
    assert (ours - wanted).abs().mean() < 0.1
    with torch.no_grad():
        latent = codec.dequantize(codec.encode(torch.from_numpy(wave)[None, None]))
        noise, harmonic = codec.decoder.controls(latent, codec.initial_decode_state(1).histories)[
            0
        ][0].chunk(PARTS, -1)[:2]
    louder = torch.from_numpy(mixed[:, BINS : 2 * BINS] - mixed[:, :BINS])
    torch.testing.assert_close(louder[:-1], (harmonic - noise)[1:], atol=1e-4, rtol=0)


def test_crops_with_controls_fit_their_sound(tmp_path):
    write(tmp_path, 0.001)
    crops = Crops([(Pool(tmp_path), 1e-9)], 1, [(controls.ControlPool(tmp_path), 1.0, True)])
    wave, wanted, _ = crops.batch(3, 4)
    frames = wave.unflatten(-1, (-1, CODEC_FRAME_SAMPLES)).square().mean(-1)[:, 0]
    assert wanted.shape == (*frames.shape, controls.NUMBERS)
    levels = wanted[..., : 2 * BINS].amax(-1)
    assert ((levels == controls.DIGITAL_SILENCE) <= (frames == 0)).all() and (
        levels == controls.DIGITAL_SILENCE
    ).any()
    loud, voiced = frames > 1e-3, wanted[..., -1] > 0
    assert (loud & voiced).sum() > 0.7 * loud.sum()  # what is loud is a vowel, nearly always
    assert torch.equal(crops.batch(3, 4)[1], wanted)


def test_a_finished_codec_has_the_pitch_and_the_spectrum_of_its_pool(tmp_path, monkeypatch):
    """Both nearer than before; fitted twice, there is nothing left to even out."""
    monkeypatch.setattr(finish, "BATCHES", 3)
    monkeypatch.setattr(finish, "STEPS", 400)
    write(tmp_path, 0.002, "heart")
    torch.manual_seed(0)
    codec, pool = (
        Codec(CodecConfig(decoder_blocks=1, encoder_blocks=1)),
        controls.ControlPool(tmp_path),
    )
    for codebook in codec.quantizer.vq.layers:
        codebook._codebook.embed.normal_()  # random codes still tell the frames apart
    before, after = finish.fit_pitch(codec, pool)
    assert after < 0.8 * before
    first, second = finish.even_out(codec, pool), finish.even_out(codec, pool)
    assert first.abs().mean() > 0.5 and second.abs().mean() < 0.2 * first.abs().mean()
