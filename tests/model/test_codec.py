"""The codec: streaming equals the whole clip, nothing looks ahead, slots are independent. Tiny random models."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from duplex.training import codec as training
from duplex.training.controls import NUMBERS
from duplex.training.data.pitch import pitch
from duplex.training.objectives import codebooks
from duplex.training.objectives import discriminator as adversary
from duplex.training.objectives.spectral import heard_distance

from duplex.audio import CODEC_FRAME_SAMPLES, CODEC_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.model.codec import Codec, CodecConfig, load_codec, reset, save_codec
from duplex.model.vocoder import (
    OVERLAP_FRAMES,
    WINDOW_SAMPLES,
    minimum_phase,
    overlap_add,
    pulse_train,
)
from tests.tiny_speech_agent import tiny_encoder

CONFIG = CodecConfig(
    codebook_size=32,
    latent_width=16,
    encoder_width=24,
    encoder_blocks=2,
    decoder_width=32,
    decoder_blocks=2,
)
FRAMES = 4 * CODEC_FRAMES_PER_TICK
SPLITS = ([1] * FRAMES, [CODEC_FRAMES_PER_TICK] * 4, [2, 9, 1, 12])


@pytest.fixture(scope="module")
def codec() -> Codec:
    torch.manual_seed(0)
    codec = Codec(CONFIG)
    wave = 0.1 * torch.randn(8, 1, FRAMES * CODEC_FRAME_SAMPLES)
    with torch.no_grad():
        latent = codec.encode_latent(wave).flatten(0, 1)
    codebooks.start(codec.quantizer, latent, len(latent), torch.Generator().manual_seed(0))
    return codec.eval()


@pytest.fixture
def wave() -> torch.Tensor:
    return 0.1 * torch.randn(
        2, 1, FRAMES * CODEC_FRAME_SAMPLES, generator=torch.Generator().manual_seed(1)
    )


def relative(ours: torch.Tensor, true: torch.Tensor) -> float:
    return float((ours - true).detach().norm() / true.detach().norm())


def decode_pieces(codec: Codec, codes: torch.Tensor, split: list[int]) -> torch.Tensor:
    state, pieces = codec.initial_decode_state(codes.shape[0]), []
    for part in codes.split(split, dim=2):
        piece, state = codec.decode_step(part, state)
        assert piece.shape == (codes.shape[0], part.shape[2] * CODEC_FRAME_SAMPLES)
        pieces.append(piece)
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("number", [2, 4, 8])
def test_decode_stream_is_whole(codec, wave, split, number):
    codes = codec.encode(wave, number)
    assert codes.shape == (2, number, FRAMES)
    assert relative(decode_pieces(codec, codes, split), codec.decode(codes)) <= 1e-5


@pytest.mark.parametrize("split", SPLITS)
def test_encode_stream_is_whole(codec, wave, split):
    state, latents, codes = codec.initial_encode_state(2), [], []
    other = codec.initial_encode_state(2)
    for part in wave.split([frames * CODEC_FRAME_SAMPLES for frames in split], dim=2):
        latent, state = codec.encoder.step(part[:, 0], state)
        latents.append(latent)
        piece, other = codec.encode_step(part, other)
        codes.append(piece)
    assert relative(torch.cat(latents, dim=1), codec.encode_latent(wave)) <= 1e-5
    assert (
        torch.cat(codes, dim=2) == codec.encode(wave)
    ).float().mean() > 0.99  # a tie may fall either way


def test_encode_fills_up_the_last_frame(codec, wave):
    assert codec.encode(wave[..., :-5]).shape[2] == FRAMES
    assert codec.encode(wave[..., : CODEC_FRAME_SAMPLES + 1]).shape[2] == 2


def test_codes_are_in_range_and_leading_codebooks_are_a_prefix(codec, wave):
    codes = codec.encode(wave)
    assert codes.dtype == torch.int64 and 0 <= codes.min() and codes.max() < CONFIG.codebook_size
    assert torch.equal(codec.encode(wave, 4), codes[:, :4])


def test_encoder_sees_no_later_sample(codec, wave):
    wave.requires_grad_()
    frame = 5
    codec.encode_latent(wave)[:, frame].sum().backward()
    edge = (frame + 1) * CODEC_FRAME_SAMPLES
    assert wave.grad[..., edge:].abs().max() == 0
    assert wave.grad[..., :edge].abs().max() > 0


def test_decoder_sees_no_later_frame(codec):
    latent = torch.randn(1, FRAMES, CONFIG.latent_width, requires_grad=True)
    wave, _ = codec.decoder.step(latent, codec.initial_decode_state(1))
    frame = 7
    wave[
        :, frame * CODEC_FRAME_SAMPLES : (frame + 1) * CODEC_FRAME_SAMPLES
    ].square().sum().backward()
    assert latent.grad[:, frame + 1 :].abs().max() == 0
    assert latent.grad[:, frame].abs().max() > 0


def test_overlap_add_is_the_plain_sum():
    windows = torch.randn(2, 5, OVERLAP_FRAMES * 4)
    slow = torch.zeros(2, (5 + OVERLAP_FRAMES - 1) * 4)
    for t in range(5):
        slow[:, t * 4 : (t + OVERLAP_FRAMES) * 4] += windows[:, t]
    wave, tail = overlap_add(windows, torch.zeros(2, OVERLAP_FRAMES - 1, 4))
    torch.testing.assert_close(torch.cat([wave, tail.flatten(1)], dim=1), slow)


def test_pulses_are_the_sum_of_harmonics_in_pieces_too():
    hz = torch.tensor([[200.0, 210.0, 230.0, 190.0]])
    whole, _ = pulse_train(hz, torch.tensor([200.0]), torch.zeros(1, dtype=torch.float64))
    first, cycles = pulse_train(
        hz[:, :1], torch.tensor([200.0]), torch.zeros(1, dtype=torch.float64)
    )
    second, _ = pulse_train(hz[:, 1:], hz[:, 0], cycles)
    assert relative(torch.cat([first, second], dim=1), whole) < 1e-5
    time = (
        torch.arange(1, CODEC_FRAME_SAMPLES + 1, dtype=torch.float64) / SAMPLE_RATE
    )  # the first frame: 200 Hz
    plain = sum(torch.cos(2 * torch.pi * 200 * harmonic * time) for harmonic in range(1, 56))
    assert relative(first[0].double(), plain) < 1e-3


def test_minimum_phase_is_causal_and_keeps_the_magnitude():
    frequency = torch.linspace(0, 1, WINDOW_SAMPLES // 2 + 1)
    log_magnitude = torch.sin(7 * frequency) + frequency
    spectrum = minimum_phase(log_magnitude)
    torch.testing.assert_close(spectrum.abs().log(), log_magnitude, rtol=1e-4, atol=1e-4)
    response = torch.fft.irfft(spectrum).square()
    assert response[: WINDOW_SAMPLES // 2].sum() > 0.99 * response.sum()


def test_pitch_finds_the_fundamental():
    time = torch.arange(40 * CODEC_FRAME_SAMPLES) / SAMPLE_RATE
    for hz in (90.0, 215.0, 370.0):
        wave = 0.1 * sum(torch.cos(2 * torch.pi * hz * k * time) / k for k in range(1, 20))
        found, voiced = pitch(wave[None])
        assert voiced[0, 5:-5].all() and (found[0, 5:-5] / hz - 1).abs().max() < 0.01
    assert not pitch(0.1 * torch.randn(1, len(time)))[1].float().mean() > 0.1


def test_reset_of_one_slot(codec, wave):
    """The reset slot sounds as if new, nothing of its past in it; the other goes on as if nothing happened."""
    codes = codec.encode(wave)
    begin, rest = codes[..., :10], codes[..., 10:]
    _, kept = codec.decode_step(begin, codec.initial_decode_state(2))
    _, state = codec.decode_step(begin, codec.initial_decode_state(2))
    reset(state, [1])
    assert state.tail[1].abs().max() == 0 and all(
        history[1].abs().max() == 0 for history in state.histories
    )
    ours, _ = codec.decode_step(rest, state)
    undisturbed, _ = codec.decode_step(rest, kept)
    torch.testing.assert_close(ours[0], undisturbed[0])
    torch.testing.assert_close(ours[1], codec.decode(rest)[1])
    assert relative(ours[1], undisturbed[1]) > 1e-3


def test_reset_of_the_encoder(codec, wave):
    _, state = codec.encode_step(wave, codec.initial_encode_state(2))
    reset(state, [0])
    latent, _ = codec.encoder.step(wave[:, 0], state)
    torch.testing.assert_close(latent[0], codec.encode_latent(wave)[0])
    assert relative(latent[1], codec.encode_latent(wave)[1]) > 1e-3


def test_silence_codes_are_what_lasting_silence_becomes(codec):
    codes = codec.encode(torch.zeros(1, 1, 100 * CODEC_FRAME_SAMPLES))
    assert torch.equal(codes[0, :, -1], codec.silence_codes())


def test_saved_and_loaded_it_is_the_same(codec, wave, tmp_path):
    save_codec(codec, tmp_path)
    loaded, codes = load_codec(tmp_path), codec.encode(wave)
    assert torch.equal(loaded.encode(wave), codes) and torch.equal(
        loaded.decode(codes), codec.decode(codes)
    )


def test_quantize_in_training_is_the_package_quantizer(codec, wave):
    latent = codec.encode_latent(wave).detach()
    used = torch.tensor([CONFIG.codebooks, 2])
    quantized, _, codes, _ = codebooks.quantize(codec.quantizer, latent, used)
    theirs = codec.quantize(latent)
    assert torch.equal(codes.view(CONFIG.codebooks, 2, FRAMES).transpose(0, 1), theirs)
    torch.testing.assert_close(quantized[:1], codec.dequantize(theirs[:1]))
    torch.testing.assert_close(quantized[1:], codec.dequantize(theirs[1:, :2]))


def test_a_dead_code_comes_back(codec):
    quantizer = Codec(CONFIG).quantizer
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(512, CONFIG.latent_width, generator=generator)
    codebooks.start(quantizer, vectors, 512, generator)
    book = quantizer.vq.layers[0]._codebook
    book.embed_avg[3] = 1000 * book.cluster_size[3]  # far from everything
    book.embed[3] = 1000
    for _ in range(400):
        used = torch.full((1,), CONFIG.codebooks)
        _, _, codes, given = codebooks.quantize(quantizer, vectors[None], used)
        codebooks.update(quantizer, codes, given, generator)
    assert book.embed[3].abs().max() < 10 and (codes[0] == 3).any()


@pytest.mark.parametrize("adversary_at", [1.0, 0.0])
def test_training_goes_on_where_it_stopped(adversary_at, tmp_path, monkeypatch):
    """Two steps, stop, two more is the same as four; the first run is short enough to freeze nothing."""
    monkeypatch.setattr(training, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(training, "ALONE_STEPS", 1)
    crop = 0.1 * torch.randn(
        4, 1, 8 * CODEC_FRAME_SAMPLES, generator=torch.Generator().manual_seed(2)
    )

    def trainer() -> training.Trainer:
        return training.Trainer(
            CONFIG, seed=1, minutes=1, freeze_at=0.4, rate=1e-3, adversary_at=adversary_at
        )

    straight, first, second = trainer(), trainer(), trainer()
    for _ in range(4):
        straight.step(crop)
    for _ in range(2):
        first.step(crop)
    first.save(tmp_path)
    second.load(tmp_path)
    for _ in range(2):
        second.step(crop)
    for whole, parted in (
        (straight.codec, second.codec),
        (straight.discriminator, second.discriminator),
    ):
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(parted.state_dict()[name], value)
    assert straight.progress.adversary == (0 if adversary_at else 4)
    assert (
        json.loads((tmp_path / "config.json").read_text())["codebook_size"] == CONFIG.codebook_size
    )


def test_an_encoder_that_learns_on_leaves_the_codes_their_meaning(monkeypatch):
    """The encoder learns from plain sound, and from controlled sound unless that is encoded as before; then entries alone learn."""
    trainer = training.Trainer(CONFIG, seed=1, minutes=1, freeze_at=1.0, rate=1e-3)
    trainer.progress.frozen, trainer.progress.step = True, training.WARM_UP_STEPS + 1
    trainer.relearn(copy.deepcopy(trainer.codec))
    trainer.ears = tiny_encoder().requires_grad_(False)
    wave = 0.1 * torch.randn(
        2, 1, 12 * CODEC_FRAME_SAMPLES, generator=torch.Generator().manual_seed(2)
    )
    controls = torch.zeros(2, 12, NUMBERS)

    def changed(*what) -> set[str]:
        before = {name: value.clone() for name, value in trainer.codec.state_dict().items()}
        trainer.step(*what)
        now = trainer.codec.state_dict()
        return {
            name.split(".")[0]
            for name, value in before.items()
            if not torch.equal(value, now[name])
        }

    everything = {"encoder", "quantizer", "decoder"}
    assert changed(wave) == changed(wave) == everything and trainer.sums["ears"][-1] > 0
    for share, parts in ((0.0, everything), (1.0, everything - {"encoder"})):
        trainer.optimizer.state.clear()  # no momentum of the steps before
        monkeypatch.setattr(training, "FIRST_SHARE", share)
        assert changed(wave, controls, True) == parts
    assert changed(wave, controls, False) == everything  # voices whose codes nobody knows
    first, now = trainer.first.state_dict(), trainer.codec.state_dict()
    assert not torch.equal(first["encoder.to_latent.weight"], now["encoder.to_latent.weight"])


def test_known_codes_are_looked_up_and_their_entries_alone_learn(codec, wave):
    codes = codec.encode(wave)
    entries = [layer.codebook.requires_grad_() for layer in codec.quantizer.vq.layers]
    looked = codebooks.look_up(codec.quantizer, codes, torch.tensor([CONFIG.codebooks, 2]))
    torch.testing.assert_close(looked[:1], codec.dequantize(codes[:1]))
    torch.testing.assert_close(looked[1:], codec.dequantize(codes[1:, :2]))
    looked.sum().backward()
    for k, table in enumerate(entries):
        moved = table.grad.abs().sum(1).nonzero()[:, 0].tolist()
        assert moved == sorted(set(codes[: 2 if k < 2 else 1, k].flatten().tolist()))


def test_a_deeper_codec_begins_as_the_one_it_starts_from(codec, wave, tmp_path):
    save_codec(codec, tmp_path)
    config = dataclasses.replace(CONFIG, encoder_blocks=3, decoder_blocks=4)
    trainer = training.Trainer(config, seed=1, minutes=1, freeze_at=1.0, rate=1e-3)
    trainer.begin_from(tmp_path)
    assert torch.equal(trainer.codec.encode(wave), codec.encode(wave))
    torch.testing.assert_close(
        trainer.codec.eval().decode(codec.encode(wave)), codec.decode(codec.encode(wave))
    )
    trainer.progress.frozen, trainer.progress.step = True, training.WARM_UP_STEPS + 1
    trainer.step(wave)
    assert trainer.codec.decoder.blocks[3].layer_scale.abs().max() > 0, "what is new learns"


def test_an_encoder_can_begin_anew_for_a_decoder_that_stays(codec, wave, tmp_path):
    save_codec(codec, tmp_path)
    trainer = training.Trainer(CONFIG, seed=1, minutes=1, freeze_at=1.0, rate=1e-3)
    trainer.begin_from(tmp_path, new_encoder=True)
    assert not torch.equal(trainer.codec.encode(wave), codec.encode(wave))
    torch.testing.assert_close(
        trainer.codec.eval().decode(codec.encode(wave)), codec.decode(codec.encode(wave))
    )


def test_ears_hear_no_difference_between_a_sound_and_itself():
    wave, ears = 0.1 * torch.randn(2, 3 * TICK_SAMPLES), tiny_encoder()
    assert heard_distance(ears, wave, wave) == 0 < heard_distance(ears, wave.flip(1), wave)


def test_the_discriminator_learns_to_tell_and_to_be_fooled():
    torch.manual_seed(0)
    network = adversary.discriminator()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    true = torch.sin(torch.arange(4800) * torch.linspace(0.1, 0.4, 4)[:, None])
    noise = torch.randn(4, 4800, requires_grad=True)
    losses = []
    for _ in range(12):
        losses.append(adversary.telling_loss(network, noise, true))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0] and noise.grad is None
    before = adversary.fooling_terms(network, noise, true)
    gradient = torch.autograd.grad(before["fooling"], noise)[0]
    after = adversary.fooling_terms(network, noise - 0.5 * gradient / gradient.std(), true)
    assert after["fooling"] < before["fooling"]
    assert adversary.fooling_terms(network, true, true)["features"] < 1e-3 < before["features"]


def test_every_term_has_its_share_of_the_gradient(monkeypatch):
    monkeypatch.setattr(adversary, "SHARES", {"spectral": 1.0, "fooling": 3.0})
    wave = torch.zeros(2, 4, requires_grad=True)
    terms = {"spectral": 2 * wave[0].sum(), "fooling": 1e6 * wave[1].sum()}
    gradient = adversary.balanced_gradient(terms, wave)
    assert gradient[1].norm() / gradient[0].norm() == pytest.approx(3.0)
    torch.testing.assert_close(gradient[0], torch.full((4,), 0.25 * 2.0))


def test_crops_are_repeatable_and_sometimes_silent(tmp_path):
    samples = 3 * training.CROP_SAMPLES
    np.full(samples, 8000, dtype=np.int16).tofile(tmp_path / "audio.i16")
    entry = {"offset": 0, "samples": samples, "split": "train"}
    (tmp_path / "index.jsonl").write_text(json.dumps(entry) + "\n")
    crops = training.Crops([(training.Pool(tmp_path), 1.0)], seed=3)
    batch, controls, _ = crops.batch(7, 200)
    assert batch.shape == (200, 1, training.CROP_SAMPLES) and batch.abs().max() <= 0.99
    assert torch.equal(batch, crops.batch(7, 200)[0]) and controls is None
    assert 0 < (batch.abs().amax((1, 2)) == 0).sum() < 20
