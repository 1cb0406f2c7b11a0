"""G.711 against golden levels, and as a stream.

g711.json has what each of the 256 codes stands for, as little endian int16 in hex; it was made with
the module audioop of Python 3.11, which later versions lack.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from duplex.audio import SAMPLE_RATE, TICK_SAMPLES
from duplex.serving.sound import g711

GOLDEN = json.loads((Path(__file__).parent / "g711.json").read_text())


@pytest.mark.parametrize("law", g711.LEVELS)
def test_codes_mean_what_the_standard_says(law):
    levels = np.frombuffer(bytes.fromhex(GOLDEN[law]), "<i2")
    np.testing.assert_array_equal(g711.LEVELS[law], levels)
    back = g711.expand(g711.compress(levels / 32768, law), law)
    np.testing.assert_array_equal(back * 32768, levels)


@pytest.mark.parametrize("law", g711.LEVELS)
def test_tone_survives_the_telephone(law):
    times = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    sound = (0.4 * np.sin(2 * np.pi * 600 * times)).astype(np.float32)
    encoder = g711.Encoder(law)
    decoder = g711.Decoder(law)
    codes = [encoder.encode(piece) for piece in sound.reshape(-1, TICK_SAMPLES)]
    back = np.concatenate([decoder.decode(piece) for piece in codes])
    assert 15_000 < sum(map(len, codes)) <= 16_000
    # The stream is late by some samples.
    late = [sound[8000 - lag : 24000 - lag] for lag in range(200)]
    best = max(np.corrcoef(back[8000:24000], part)[0, 1] for part in late)
    assert best > 0.995 and back[8000:24000].std() == pytest.approx(sound.std(), rel=0.05)
