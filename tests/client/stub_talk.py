"""`duplex talk --server URL` with a stub of PortAudio that says a tone now and then; for tmux."""

import sys

import numpy as np

from duplex import cli
from duplex.audio import SAMPLE_RATE
from duplex.client.sound import sound_card
from tests.client.port_audio import PortAudio
from tests.helpers import tone

CARD = PortAudio(rate=48_000)
ROUND = np.concatenate([np.zeros(SAMPLE_RATE, np.float32), tone(8), np.zeros(3 * SAMPLE_RATE)])
CARD.sound = np.tile(np.repeat(ROUND, 2), 40).astype(np.float32)

if __name__ == "__main__":
    sound_card._sounddevice = lambda: CARD
    sound_card.has_sound = lambda: True
    cli.main(["talk", "--server", *sys.argv[1:]])
