"""The sound head: a stream gives what a whole clip gives, and a file gives the head."""

import torch

from duplex import checkpoint
from duplex.audio import ENCODER_FRAMES_PER_TICK
from duplex.model.sound import SoundConfig, SoundHead, load_sound_head

TINY = SoundConfig(width=6, names=("dog", "rain"), kinds=4)


@torch.no_grad()
def test_a_stream_gives_what_a_whole_clip_gives():
    head = SoundHead(TINY).eval()
    early = torch.randn(2, 12 * ENCODER_FRAMES_PER_TICK, 2 * TINY.width)
    parts = [head(part) for part in early.split(ENCODER_FRAMES_PER_TICK, 1)]
    assert head(early).shape == (2, 12, TINY.kinds)
    torch.testing.assert_close(torch.cat(parts, 1), head(early))


@torch.no_grad()
def test_a_folder_holds_the_head_and_its_names(tmp_path):
    head = SoundHead(TINY).eval()
    checkpoint.save(head.state_dict(), head.config, tmp_path, dtype=torch.float16)
    again = load_sound_head(tmp_path)
    early = torch.randn(1, ENCODER_FRAMES_PER_TICK, 2 * TINY.width)
    assert again.config == TINY
    torch.testing.assert_close(again(early), head(early), rtol=1e-2, atol=1e-2)
