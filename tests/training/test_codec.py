"""Training of the codec: it goes on where it stopped, and codes keep their meaning. Tiny models."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from duplex.audio import CODEC_FRAME_SAMPLES, CODEC_FRAMES_PER_TICK, TICK_SAMPLES
from duplex.model.tts.codec import Codec, CodecConfig, save_codec
from duplex.training import codec as training
from duplex.training.codec import CodecPlan, Trainer
from duplex.training.data.crops import CROP_SAMPLES, Crops
from duplex.training.data.pool import Pool
from duplex.training.data.vocoder_targets import NUMBERS
from duplex.training.objectives import codebooks
from duplex.training.objectives.spectral import feature_distance
from tests.tiny_speech_agent import tiny_encoder
from tests.training.helpers import strings

CONFIG = CodecConfig(
    codebook_size=32,
    latent_width=16,
    encoder_width=24,
    encoder_blocks=2,
    decoder_width=32,
    decoder_blocks=2,
)
FRAMES = 4 * CODEC_FRAMES_PER_TICK
# All of the time the encoder learns.
PLAN = CodecPlan(minutes=1, freeze_at=1.0)


def noise(batch: int, frames: int, seed: int) -> torch.Tensor:
    """[batch, 1, N]"""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, 1, frames * CODEC_FRAME_SAMPLES, generator=generator)


@pytest.fixture(scope="module")
def codec() -> Codec:
    torch.manual_seed(0)
    codec = Codec(CONFIG)
    with torch.no_grad():
        latent = codec.encode_latent(noise(8, FRAMES, 0)).flatten(0, 1)
    codebooks.start(codec.quantizer, latent, len(latent), torch.Generator().manual_seed(0))
    return codec.eval()


@pytest.fixture
def wave() -> torch.Tensor:
    return noise(2, FRAMES, 1)


def test_quantize_is_the_packages_quantizer(codec, wave):
    latent = codec.encode_latent(wave).detach()
    used = torch.tensor([CONFIG.codebooks, 2])
    quantized, _, codes, _ = codebooks.quantize(codec.quantizer, latent, used)
    theirs = codec.quantize(latent)
    assert torch.equal(codes.view(CONFIG.codebooks, 2, FRAMES).transpose(0, 1), theirs)
    torch.testing.assert_close(quantized[:1], codec.dequantize(theirs[:1]))
    torch.testing.assert_close(quantized[1:], codec.dequantize(theirs[1:, :2]))


@pytest.mark.slow
def test_a_dead_code_comes_back():
    quantizer = Codec(CONFIG).quantizer
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(512, CONFIG.latent_width, generator=generator)
    codebooks.start(quantizer, vectors, 512, generator)
    book = quantizer.vq.layers[0]._codebook
    book.embed_avg[3] = 1000 * book.cluster_size[3]  # Far from everything.
    book.embed[3] = 1000
    used = torch.full((1,), CONFIG.codebooks)
    for _ in range(400):
        _, _, codes, given = codebooks.quantize(quantizer, vectors[None], used)
        codebooks.update(quantizer, codes, given, generator)
    assert book.embed[3].abs().max() < 10 and (codes[0] == 3).any()


@pytest.mark.slow
def test_training_goes_on_where_it_stopped(tmp_path):
    """Two steps, stop, two more is the same as four."""
    plan = CodecPlan(minutes=1, warm_up_steps=1)
    crop = noise(4, 8, 2)
    straight = Trainer(CONFIG, plan)
    for _ in range(4):
        straight.step(crop)
    first = Trainer(CONFIG, plan)
    for _ in range(2):
        first.step(crop)
    first.save(tmp_path)
    second = Trainer(CONFIG, plan)
    second.resume(tmp_path)
    for _ in range(2):
        second.step(crop)
    for name, value in straight.codec.state_dict().items():
        torch.testing.assert_close(second.codec.state_dict()[name], value)
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["codebook_size"] == CONFIG.codebook_size


def test_an_encoder_that_learns_on_leaves_the_codes_their_meaning():
    """The encoder learns from all sound but the controlled that is encoded as before."""
    trainer = Trainer(CONFIG, PLAN)
    trainer.progress.frozen = True
    trainer.progress.step = PLAN.warm_up_steps + 1
    trainer.relearn(copy.deepcopy(trainer.codec))
    trainer.encoder = tiny_encoder().requires_grad_(False)
    wave = noise(2, 12, 2)
    controls = torch.zeros(2, 12, NUMBERS)

    def changed(*what) -> set[str]:
        before = {name: value.clone() for name, value in trainer.codec.state_dict().items()}
        trainer.step(*what)
        now = trainer.codec.state_dict()
        return {name.split(".")[0] for name in before if not before[name].equal(now[name])}

    everything = {"encoder", "quantizer", "decoder"}
    assert changed(wave) == changed(wave) == everything and trainer.terms["encoder"][-1] > 0
    for share, parts in ((0.0, everything), (1.0, everything - {"encoder"})):
        trainer.optimizer.state.clear()  # No momentum of the steps before.
        trainer.plan = replace(PLAN, known_share=share)
        assert changed(wave, controls, True) == parts
    assert changed(wave, controls, False) == everything, "voices whose codes nobody knows"
    first = trainer.first.state_dict()["encoder.to_latent.weight"]
    assert not first.equal(trainer.codec.state_dict()["encoder.to_latent.weight"])


def test_known_codes_are_looked_up_and_their_entries_alone_learn(codec, wave):
    codec = copy.deepcopy(codec)
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
    trainer = Trainer(replace(CONFIG, encoder_blocks=3, decoder_blocks=4), PLAN)
    trainer.begin_from(tmp_path)
    codes = codec.encode(wave)
    assert torch.equal(trainer.codec.encode(wave), codes)
    torch.testing.assert_close(trainer.codec.eval().decode(codes), codec.decode(codes))
    trainer.step(wave)
    assert trainer.codec.decoder.blocks[3].layer_scale.abs().max() > 0, "what is new learns"


def test_an_encoder_can_begin_anew_for_a_decoder_that_stays(codec, wave, tmp_path):
    save_codec(codec, tmp_path)
    trainer = Trainer(CONFIG, PLAN)
    trainer.begin_from(tmp_path, new_encoder=True)
    codes = codec.encode(wave)
    assert not torch.equal(trainer.codec.encode(wave), codes)
    torch.testing.assert_close(trainer.codec.eval().decode(codes), codec.decode(codes))


def test_the_encoder_hears_no_difference_between_a_sound_and_itself():
    wave = 0.1 * torch.randn(2, 3 * TICK_SAMPLES)
    encoder = tiny_encoder()
    assert feature_distance(encoder, wave, wave) == 0
    assert feature_distance(encoder, wave.flip(1), wave) > 0


def write_pool(folder, samples: int) -> None:
    """One utterance, all at one level."""
    np.full(samples, 8000, dtype=np.int16).tofile(folder / "audio.i16")
    entry = {"offset": 0, "samples": samples, "split": "train"}
    (folder / "index.jsonl").write_text(json.dumps(entry) + "\n")


def test_crops_are_repeatable_and_sometimes_silent(tmp_path):
    write_pool(tmp_path, 3 * CROP_SAMPLES)
    crops = Crops([(Pool(tmp_path), 1.0)], seed=3)
    batch, controls, _ = crops.batch(7, 200)
    assert batch.shape == (200, 1, CROP_SAMPLES) and batch.abs().max() <= 0.99
    assert torch.equal(batch, crops.batch(7, 200)[0]) and controls is None
    assert 0 < (batch.abs().amax((1, 2)) == 0).sum() < 20


def test_bad_arguments_are_told_in_one_sentence(tmp_path, capsys):
    write_pool(tmp_path, CROP_SAMPLES)
    pool = ["--pool", tmp_path, "--out", tmp_path / "run"]
    for more, sentence in (
        (["--controlled", f"{tmp_path}=0.5"], "has no controls.f16"),
        (["--scratch", "--relearn", training.DEFAULT_AGENT / "codec"], "--relearn needs --start"),
        (["--encoder", "nowhere"], "nowhere holds no trained part"),
    ):
        with pytest.raises(SystemExit):
            training.parse_arguments(strings(*pool, *more))
        assert sentence in capsys.readouterr().err.splitlines()[-1]
