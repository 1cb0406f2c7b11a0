"""What the talker learns from: codes with their phones, phone by phone."""

import json

import numpy as np
import pytest
import torch

from duplex.audio import CODEC_FRAME_SAMPLES
from duplex.model.tts.codec import Codec, CodecConfig
from duplex.training.data.utterances import EncodedPool, frame_positions

CONFIG = CodecConfig(
    codebook_size=16,
    latent_width=8,
    encoder_width=12,
    encoder_blocks=1,
    decoder_width=16,
    decoder_blocks=1,
)
# Frames of 25 ms, 600 samples; the first phone is a long silence.
DURATIONS = [20, 4, 6, 10]


@pytest.fixture
def pool(tmp_path):
    """Three utterances of 40 durations, one of them without phones."""
    samples = 600 * sum(DURATIONS)
    rng = np.random.default_rng(0)
    (rng.normal(0, 3000, 3 * samples)).astype(np.int16).tofile(tmp_path / "audio.i16")
    known = {"phones": [0, 20, 21, 0], "durations": DURATIONS}
    lines = []
    for n in range(3):
        place = {"offset": n * samples, "samples": samples, "split": "train"}
        lines.append(json.dumps(place | (known if n < 2 else {})))
    (tmp_path / "index.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_batch_has_each_frame_in_its_phone(pool, tmp_path):
    torch.manual_seed(0)
    codec = Codec(CONFIG).eval()
    data = EncodedPool(pool, codec, tmp_path)
    assert data.split == {"train": [0, 1], "valid": []}
    batch = data.batch([0, 1], patch_frames=6, rng=np.random.default_rng(0))
    frames = batch.inside.sum(1)
    assert batch.codes.shape[1] % 6 == 0 and torch.equal(batch.frames.sum(1).long(), frames)
    assert 2 <= batch.frames[0, 0] < 10, "most of the first silence is cut"
    for b in range(2):
        counted = torch.bincount(batch.phone[b, : frames[b]], minlength=4)
        assert torch.equal(counted, batch.frames[b].long())
    # The last frames are those of the whole utterance, encoded by itself.
    wave = torch.from_numpy(data.pool.wave(0))
    padding = -len(wave) % CODEC_FRAME_SAMPLES
    codes = codec.encode(torch.nn.functional.pad(wave, (0, padding))[None, None])[0].T
    kept = batch.codes[0, : frames[0]]
    assert torch.equal(kept, codes[len(codes) - len(kept) :])


def test_codes_are_kept_beside_the_run(pool, tmp_path):
    codec = Codec(CONFIG).eval()
    first = EncodedPool(pool, codec, tmp_path)
    first.encode([0, 1])
    again = EncodedPool(pool, None or codec, tmp_path)
    assert np.array_equal(first.codes, again.codes) and again.codes[: again.starts[2]].any()


def test_positions_tell_what_lies_behind_and_what_is_to_come():
    positions = frame_positions(np.array([2, 0, 3]))
    assert positions.shape == (5, 4)
    np.testing.assert_allclose(positions[:, 0], [0.25, 0.75, 1 / 6, 0.5, 5 / 6], rtol=1e-6)
    np.testing.assert_allclose(positions[:, 2], [0.0, 0.1, 0.0, 0.1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(positions[:, 3], [0.2, 0.1, 0.3, 0.2, 0.1], rtol=1e-6)
