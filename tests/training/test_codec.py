"""Training of the codec: it goes on where it stopped, codes keep their meaning, codebooks come back. Tiny random models."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from duplex.training import codec as training
from duplex.training.data.crops import CROP_SAMPLES, Crops
from duplex.training.data.pitch import pitch
from duplex.training.data.pool import Pool
from duplex.training.data.vocoder_targets import NUMBERS
from duplex.training.objectives import codebooks
from duplex.training.objectives.spectral import feature_distance

from duplex.audio import CODEC_FRAME_SAMPLES, CODEC_FRAMES_PER_TICK, SAMPLE_RATE, TICK_SAMPLES
from duplex.model.codec import Codec, CodecConfig, save_codec
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


def test_pitch_finds_the_fundamental():
    time = torch.arange(40 * CODEC_FRAME_SAMPLES) / SAMPLE_RATE
    for hz in (90.0, 215.0, 370.0):
        wave = 0.1 * sum(torch.cos(2 * torch.pi * hz * k * time) / k for k in range(1, 20))
        found, voiced = pitch(wave[None])
        assert voiced[0, 5:-5].all() and (found[0, 5:-5] / hz - 1).abs().max() < 0.01
    assert not pitch(0.1 * torch.randn(1, len(time)))[1].float().mean() > 0.1


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


def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """Two steps, stop, two more is the same as four; the first run is short enough to freeze nothing."""
    monkeypatch.setattr(training, "WARM_UP_STEPS", 1)
    crop = 0.1 * torch.randn(
        4, 1, 8 * CODEC_FRAME_SAMPLES, generator=torch.Generator().manual_seed(2)
    )

    def trainer() -> training.Trainer:
        return training.Trainer(CONFIG, seed=1, minutes=1, freeze_at=0.4, rate=1e-3)

    straight, first, second = trainer(), trainer(), trainer()
    for _ in range(4):
        straight.step(crop)
    for _ in range(2):
        first.step(crop)
    first.save(tmp_path)
    second.load(tmp_path)
    for _ in range(2):
        second.step(crop)
    for name, value in straight.codec.state_dict().items():
        torch.testing.assert_close(second.codec.state_dict()[name], value)
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


def test_the_encoder_hears_no_difference_between_a_sound_and_itself():
    wave, ears = 0.1 * torch.randn(2, 3 * TICK_SAMPLES), tiny_encoder()
    assert feature_distance(ears, wave, wave) == 0 < feature_distance(ears, wave.flip(1), wave)


def test_crops_are_repeatable_and_sometimes_silent(tmp_path):
    samples = 3 * CROP_SAMPLES
    np.full(samples, 8000, dtype=np.int16).tofile(tmp_path / "audio.i16")
    entry = {"offset": 0, "samples": samples, "split": "train"}
    (tmp_path / "index.jsonl").write_text(json.dumps(entry) + "\n")
    crops = Crops([(Pool(tmp_path), 1.0)], seed=3)
    batch, controls, _ = crops.batch(7, 200)
    assert batch.shape == (200, 1, CROP_SAMPLES) and batch.abs().max() <= 0.99
    assert torch.equal(batch, crops.batch(7, 200)[0]) and controls is None
    assert 0 < (batch.abs().amax((1, 2)) == 0).sum() < 20
