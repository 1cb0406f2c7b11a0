"""The ears learn to spell: a CTC over phones, texts put together from phones that were heard, and pieces learned from them."""

import json
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from duplex import checkpoint
from duplex.audio import ENCODER_FRAMES_PER_TICK, TICK_SAMPLES
from duplex.encoder import PHONES, Encoder, EncoderConfig
from training import encoder as program
from training import spelling
from training.transcript import phones

SPACE = PHONES.index(" ") + 1


def test_phones_of_a_text_end_its_words():
    assert "".join(PHONES[i - 1] for i in phones("i don't bother water")) == "I dOnt bɑðəɹ wɔtəɹ "


def test_phones_are_heard_by_ctc():
    """The mean of both clips' negative log-likelihoods, each as torch's CTC has it for the clip alone."""
    torch.manual_seed(1)
    heard, lengths = ["a bee", "it's"], torch.tensor([30, 20])
    log_probs = torch.randn(2, 30, len(PHONES) + 1).log_softmax(-1)
    said = [torch.tensor([phones(text)]) for text in heard]
    alone = [
        F.ctc_loss(log_probs[b, :n, None], said[b], n[None], torch.tensor([said[b].numel()]), reduction="sum")
        for b, n in enumerate(lengths)
    ]
    count = sum(one.numel() for one in said)
    assert program.phone_loss(log_probs, heard, lengths).item() == pytest.approx(sum(alone).item() / count, rel=1e-5)


def one_hot(said: str) -> np.ndarray:
    """A frame for each phone, '-' for the blank, [frames, 1 + phones]."""
    return np.eye(len(PHONES) + 1, dtype=np.float16)[[0 if c == "-" else PHONES.index(c) + 1 for c in said]]


def every_phone() -> spelling.Cuttings:
    """Each looks like itself, for one frame, and then like nothing for another."""
    places = {(None, i + 1, None): [(2 * i, 2 * i + 2)] for i in range(len(PHONES))}
    frames = one_hot("".join(c + "-" for c in PHONES) + "----")
    return spelling.Cuttings(frames, [places] * spelling.QUALITIES, [(len(frames) - 4, len(frames))])


def test_a_text_is_put_together_from_the_phones_that_were_heard():
    """Any text becomes its phones, and each piece is due a little after its last one."""
    texts = [" tea", "ch", " bee"]
    for seed in range(20):
        made, due = spelling.put_together(every_phone(), [(1, 2), (3,)], texts, random.Random(seed))
        assert len(made) == len(due) * ENCODER_FRAMES_PER_TICK
        best = made.argmax(-1)
        assert "".join(PHONES[k - 1] for k in best if k) == "tiʧ bi "
        assert [piece for piece in due if piece] == [1, 2, 3]
        ends = np.flatnonzero(best)[[1, 2, 5]]  # of "ti", "ʧ" and "bi"
        late = np.flatnonzero(due) * ENCODER_FRAMES_PER_TICK - ends
        assert (late > 0).all() and (late <= spelling.HEARD_AFTER_FRAMES + np.array([0, ENCODER_FRAMES_PER_TICK, 0])).all()


def test_a_phone_looks_as_it_did_between_the_same_phones():
    a, b = PHONES.index("æ") + 1, PHONES.index("b") + 1
    places = [{(SPACE, a, b): [(1, 2)], (None, a, b): [(2, 3)], (None, a, None): [(3, 4)]}]
    cuttings, rng = spelling.Cuttings(one_hot("-----"), places, []), random.Random(0)
    assert cuttings.draw(0, SPACE, a, b, rng) == (1, 2)  # both neighbours
    assert cuttings.draw(0, b, a, b, rng) == (2, 3)  # the next one
    assert cuttings.draw(0, b, a, a, rng) == (3, 4)
    with pytest.raises(KeyError, match="'b' was never heard"):
        cuttings.draw(0, a, b, a, rng)


def test_words_follow_one_another_as_in_speech():
    """The end of a word looks as it did before the next word's first phone, not as at the end of all."""
    cuttings, (i, b) = every_phone(), (PHONES.index("i") + 1, PHONES.index("b") + 1)
    cuttings.frames[0, 2], cuttings.frames[2, 5] = 0.25, 0.125  # two frames to tell apart
    cuttings.places[0][i, SPACE, b], cuttings.places[0][i, SPACE, SPACE] = [(0, 1)], [(2, 3)]
    made, _ = spelling.put_together(cuttings, [(1,), (2,)], [" tea", " bee"], random.Random(0))
    assert (made == cuttings.frames[0]).all(1).sum() == 1 and (made == cuttings.frames[2]).all(1).sum() == 1
    assert np.flatnonzero((made == cuttings.frames[0]).all(1)) < np.flatnonzero((made == cuttings.frames[2]).all(1))


def pool(folder, words: dict[str, float], clips: int):
    """A pool of tones: a word is a pitch of its own."""
    rng, waves, entries = np.random.default_rng(0), [], []
    for i in range(clips):
        said = list(rng.choice(list(words), 2))
        tone = lambda word: 0.3 * np.sin(2 * np.pi * words[word] * np.arange(6 * TICK_SAMPLES) / 24000)  # noqa: E731
        wave = np.concatenate([tone(word) for word in said])
        entries.append({"offset": sum(map(len, waves)), "samples": len(wave), "text": " ".join(said), "voice": "tone", "words": [],
                        "source": "test", "split": "valid" if i % 5 == 0 else "train"})  # fmt: skip
        waves.append(wave)
    folder.mkdir()
    (np.concatenate(waves) * 32767).astype(np.int16).tofile(folder / "audio.i16")
    (folder / "index.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))


class Letters:
    """A tokenizer whose tokens are letters, with and without a space before them."""

    texts = [*"abcdefghijklmnopqrstuvwxyz'", *(" " + c for c in "abcdefghijklmnopqrstuvwxyz'")]

    def encode(self, text, add_special_tokens=False):
        tokens = [self.texts.index(" " + text[1])] if text.startswith(" ") else [self.texts.index(text[0])]
        return tokens + [self.texts.index(c) for c in text[2 if text.startswith(" ") else 1 :]]

    def decode(self, tokens):
        return "".join(self.texts[t] for t in tokens)


def test_training_goes_on_from_another_runs_encoder(tmp_path, monkeypatch):
    pool(tmp_path / "pool", {"be": 300.0, "at": 1200.0}, 20)
    config = EncoderConfig(tuple(range(len(Letters.texts))), width=48, layers=2, heads=2, window=32)
    torch.manual_seed(0)
    known = Encoder(config).state_dict()
    checkpoint.save(known, config, tmp_path / "start")  # it hears no phones
    monkeypatch.setattr(program, "load_tokenizer", lambda folder: Letters())
    out = tmp_path / "out"
    given = ["encoder", "--start", str(tmp_path / "start"), "--tokenizer", "none", "--out", str(out)]
    given += ["--pool", f"{tmp_path / 'pool'}=1"]
    monkeypatch.setattr("sys.argv", [*given, "--minutes", "0.05", "--batch-seconds", "8"])
    program.main()
    progress = json.loads((out / "progress.json").read_text())
    assert progress["step"] > 0 and checkpoint.load_config(EncoderConfig, out) == replace(config, speller=program.SPELLER)
    ended = checkpoint.load_tensors(out)
    assert set(ended) > set(known) and ended["spelled.weight"].any()
    assert not torch.equal(known["ctc.2.weight"], ended["ctc.2.weight"])
    monkeypatch.setattr("sys.argv", [*given, "--minutes", "0.08", "--batch-seconds", "8"])
    program.main()
    assert json.loads((out / "progress.json").read_text())["step"] > progress["step"]


def test_pieces_are_learned_from_texts():
    """Words that no sound has said are told from one another by their phones; what the encoder hears phones with stays."""
    pieces = SimpleNamespace(texts=[" tea", " team", " meet", " tear", "s", "ing"])
    words = [(1,), (2,), (3,), (4,), (1, 5), (2, 5), (3, 6)]  # tea, team, meet, tear, teas, teams, meeting
    config = EncoderConfig(tuple(range(len(pieces.texts))), width=48, layers=1, heads=2, window=32, speller=64)
    torch.manual_seed(0)
    encoder, cuttings, rng = Encoder(config), every_phone(), random.Random(0)
    optimizer = torch.optim.Adam([*encoder.speller.parameters(), *encoder.spelled.parameters()], 1e-2)
    for _ in range(200):
        texts = [[rng.choice(words) for _ in range(4)] for _ in range(16)]
        loss, right = spelling.spelling_loss(encoder, encoder.spelled.weight, cuttings, texts, pieces, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert right > 0.9
    assert all(p.grad is None for name, p in encoder.named_parameters() if not name.startswith("spelle"))


def test_pieces_share_what_can_be_said_of_them():
    having = spelling.shared_traits([" tea", " team", " meet", "ing", "in"])
    alike = having @ having.T
    assert alike[1, 2] > alike[1, 3] and alike[1, 4] == 0.0 < alike[4, 5]  # "tea" and "team" begin alike
    assert not having[0].any() and torch.allclose(having[1:].norm(dim=1), torch.ones(5))
    assert "0t" in spelling.traits(" tea") and "-1i" in spelling.traits(" tea") and "2 phones" in spelling.traits(" tea")


def test_an_encoder_begins_with_some_weights(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["encoder", "--tokenizer", "none", "--pool", "pool=1", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        program.main()
    assert "--whisper or --start" in capsys.readouterr().err
