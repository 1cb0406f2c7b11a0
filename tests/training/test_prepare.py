"""From recorded conversations to a fine-tuned LM: what can be used is, what cannot is named, and windows obey the runtime."""

import json
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
import soundfile
import torch
from duplex.training import duplex as training
from duplex.training.common.distributed import average_gradients
from duplex.training.data import forced_alignment as forced
from duplex.training.data.normalize import phones
from duplex.training.data.pool import Pool
from duplex.training.duplex import Tokenizer, parse_arguments
from duplex.training.prepare import main
from duplex.training.scenes.recognition import load_ears, retell
from duplex.training.scenes.recordings import (
    SILENCE_S,
    WINDOW_S,
    Recordings,
    hearing_only,
    place,
    understand,
    window,
    window_end,
    window_starts,
)
from duplex.training.scenes.sequence import (
    IGNORE,
    NEVER,
    VOICE_DELAY_SECONDS,
    AgentTurn,
    Scene,
    UserTurn,
    Word,
    heard_symbols,
    lay_out,
)
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from duplex import checkpoint
from duplex.agent.turn_policy import TurnPolicy
from duplex.audio import SAMPLE_RATE, TICK_S, TICK_SAMPLES
from duplex.model.encoder import PHONES
from duplex.model.lm import LM, LMConfig
from duplex.model.tokens import (
    AGENT,
    END,
    FIRST_TEXT_ID,
    NEXT,
    STOP,
    USER,
    USER_END,
    Grammar,
    advance,
    allowed_mask,
)
from tests.conftest import break_off
from tests.tiny_speech_agent import tiny_encoder, tiny_tokenizer, tiny_words

POLICY = TurnPolicy()

USER_WORDS = [["hi", 0.5, 0.9], ["you", 1.0, 1.6], ["and", 5.0, 5.6], ["now", 5.7, 6.5]]
AGENT_WORDS = [
    ["Hello.", 2.2, 2.7],
    ["Good", 2.8, 3.1],
    ["day.", 3.2, 3.6],
    ["Now", 7.0, 7.4],
    ["then.", 7.5, 7.9],
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders of a tiny encoder with random weights, of a tiny lexicon, and of a tokenizer whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    encoder = tiny_encoder()
    checkpoint.save(encoder.state_dict(), encoder.config, folder / "encoder")
    (folder / "tokenizer").mkdir(), (folder / "lexicon").mkdir()
    save_file(tiny_words(), folder / "lexicon" / "model.safetensors")
    tiny_tokenizer().save(str(folder / "tokenizer" / "tokenizer.json"))
    return folder


def spoken(words: list, seconds: float, rate: int, hertz: float) -> np.ndarray:
    """A tone wherever there is a word, a faint hiss elsewhere."""
    times = np.arange(int(seconds * rate)) / rate
    wave = 0.001 * np.random.default_rng(0).standard_normal(len(times))
    for _, start, end in words:
        wave += np.where(
            (times >= start) & (times < end), 0.3 * np.sin(2 * np.pi * hertz * times), 0.0
        )
    return wave


def alignments(user=USER_WORDS, agent=AGENT_WORDS) -> list:
    told = [[w, [a, b], "USER"] for w, a, b in user] + [
        [w, [a, b], "SPEAKER_MAIN"] for w, a, b in agent
    ]
    return sorted(told, key=lambda item: item[1][0])


def record(
    folder,
    name: str,
    labels: dict | None,
    rate: int = SAMPLE_RATE,
    channels: int = 2,
    seconds: float = 9.0,
) -> str:
    """One conversation in the layout of moshi-finetune -> its line of data.jsonl."""
    sides = [spoken(AGENT_WORDS, seconds, rate, 300.0), spoken(USER_WORDS, seconds, rate, 500.0)]
    soundfile.write(folder / f"{name}.wav", np.stack(sides, 1)[:, :channels], rate)
    if labels is not None:
        (folder / f"{name}.json").write_text(json.dumps(labels))
    return json.dumps({"path": f"{name}.wav", "duration": seconds})


def prepare(parts, folder, lines: list[str]) -> int:
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    told = ["--data", folder / "data.jsonl", "--encoder", parts / "encoder"]
    return main([str(a) for a in [*told, "--out", folder / "prepared"]])


def test_a_conversation_becomes_a_pool_entry(parts, tmp_path, capsys):
    """The right channel is kept, at the project's rate, with both sides' words; READY comes last."""
    lines = [
        record(tmp_path, "a", {"alignments": alignments()}),
        "",
        record(tmp_path, "b", {"alignments": alignments()}, 16_000),
    ]
    assert prepare(parts, tmp_path, lines) == 0
    told = capsys.readouterr().out
    assert (
        (tmp_path / "prepared" / "READY").exists()
        and "2 conversations" in told
        and "0 skipped" in told
    )
    pool = Pool(tmp_path / "prepared")
    for i, entry in enumerate(pool.entries):
        assert (
            entry["words"] == USER_WORDS
            and entry["agent"] == AGENT_WORDS
            and entry["text"] == "hi you and now"
        )
        wave = pool.wave(i)
        assert len(wave) == 9 * SAMPLE_RATE
        said, quiet = (
            wave[int(a * SAMPLE_RATE) : int(b * SAMPLE_RATE)] for a, b in ((1.1, 1.5), (2.3, 2.6))
        )
        assert said.std() > 0.1 > 0.01 > quiet.std()  # while the agent spoke the user was silent
        pitch = np.abs(np.fft.rfft(said)).argmax() / 0.4
        assert abs(pitch - 500) < 5  # the same as before, so the rate is right


def test_the_split_is_stable_and_about_a_twentieth_is_set_aside(parts, tmp_path):
    names = [f"talk{i}" for i in range(200)]
    held = [n for n in names if zlib.crc32(f"{n}.wav".encode()) % 20 == 0]
    assert 3 <= len(held) <= 20
    lines = [
        record(tmp_path, n, {"alignments": alignments()})
        for n in (held[0], next(n for n in names if n not in held))
    ]
    prepare(parts, tmp_path, lines)
    assert [e["split"] for e in Pool(tmp_path / "prepared").entries] == ["valid", "train"]


def swapped() -> list:
    told = alignments()
    told[0], told[1] = told[1], told[0]
    return told


LONG_TURN = [["um", second, second + 0.9] for second in range(39)]
BAD = {
    "mono": (dict(labels={"alignments": alignments()}, channels=1), "mono"),
    "no json": (dict(labels=None), "missing.json is missing"),
    "neither": (dict(labels={"words": []}), 'neither "alignments" nor "text"'),
    "order": (dict(labels={"alignments": swapped()}), 'out of order at "hi"'),
    "backwards": (dict(labels={"alignments": alignments([["hi", 0.9, 0.5]])}), "out of order"),
    "beyond": (
        dict(labels={"alignments": alignments([*USER_WORDS, ["late", 8.8, 9.4]])}),
        "beyond the end",
    ),
    "shape": (dict(labels={"alignments": [["hi", [0.1], "USER"]]}), "entry 1 of alignments"),
    "not a number": (
        dict(labels={"alignments": [["hi", [0.1, float("nan")], "USER"]]}),
        "entry 1 of alignments",
    ),
    "only agent": (dict(labels={"alignments": alignments([])}), "no words of the user"),
    "only user": (dict(labels={"alignments": alignments(agent=[])}), "no word of SPEAKER_MAIN"),
    "too much text": (dict(labels={"text": "several words " * 40}), "do not fit into 9.0 s"),
    "no turn": (
        dict(labels={"alignments": alignments(LONG_TURN, [["no", 4, 5]])}, seconds=40.0),
        "a whole turn of the user",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_the_rest_is_used(parts, tmp_path, capsys, case):
    how, sentence = BAD[case]
    good = record(tmp_path, "good", {"alignments": alignments()})
    assert prepare(parts, tmp_path, [good, record(tmp_path, "missing", **how)]) == 0
    told = capsys.readouterr()
    used = [entry["source"] for entry in Pool(tmp_path / "prepared").entries]
    assert used == ["good.wav"] and "1 skipped" in told.out
    assert (
        told.err.count("\n") == 1
        and told.err.startswith("data.jsonl line 2: missing.wav: ")
        and sentence in told.err
    )


def test_broken_files_are_named(parts, tmp_path, capsys):
    record(tmp_path, "a", None)
    (tmp_path / "a.json").write_text('{"alignments": [')
    (tmp_path / "b.wav").write_bytes(b"RIFF no wave")
    (tmp_path / "b.json").write_text(json.dumps({"alignments": alignments()}))
    record(tmp_path, "c", {"alignments": alignments()})
    soundfile.write(tmp_path / "c.wav", np.zeros((9 * SAMPLE_RATE, 2)), SAMPLE_RATE)
    lines = [
        '{"path": "a.wav"}',
        '{"path": "b.wav"}',
        '{"path": "c.wav"}',
        '{"path": "gone.wav"}',
        "{",
        '{"duration": 3}',
    ]
    assert prepare(parts, tmp_path, lines) == 2
    told = capsys.readouterr()
    sentences = [
        "a.json is not JSON",
        "cannot be read as sound",
        "no sound of the user",
        "no such file",
        *['with a "path"'] * 2,
    ]
    for number, (line, sentence) in enumerate(
        zip(told.err.splitlines(), sentences, strict=True), 1
    ):
        assert line.startswith(f"data.jsonl line {number}: ") and sentence in line
    assert "6 skipped" in told.out and not (tmp_path / "prepared" / "READY").exists()


def test_a_finished_folder_is_not_overwritten(parts, tmp_path):
    line = record(tmp_path, "a", {"alignments": alignments()})
    assert prepare(parts, tmp_path, [line]) == 0
    before = (tmp_path / "prepared" / "index.jsonl").read_text()
    with pytest.raises(SystemExit):
        prepare(parts, tmp_path, [line, line])
    assert (tmp_path / "prepared" / "index.jsonl").read_text() == before


def test_missing_times_come_from_the_aligner(parts, tmp_path):
    """Turns with and without times, and a text for the user's channel alone."""
    turns = [
        ["hi you", [0.5, 1.6], "USER"],
        ["Hello. Good day.", None, "SPEAKER_MAIN"],
        ["and - now", [5.0, 6.5], "USER"],
    ]
    lines = [
        record(tmp_path, "turns", {"alignments": turns}),
        record(tmp_path, "text", {"text": "hi you and"}),
    ]
    mixed = {"alignments": [["Hello.", [2.2, 2.7], "SPEAKER_MAIN"]], "text": "hi you"}
    assert prepare(parts, tmp_path, [*lines, record(tmp_path, "mixed", mixed)]) == 0
    by_turns, by_text, by_both = Pool(tmp_path / "prepared").entries
    words = by_turns["words"]
    assert [w for w, _, _ in words] == ["hi", "you", "and", "now"]  # a dash is not said
    assert all(0.5 <= a <= b <= 1.6 for _, a, b in words[:2]) and all(
        5.0 <= a <= b <= 6.5 for _, a, b in words[2:]
    )
    assert [w for w, _, _ in by_turns["agent"]] == ["Hello.", "Good", "day."]
    assert [w for w, _, _ in by_text["words"]] == ["hi", "you", "and"] and by_text["agent"] is None
    assert by_both["agent"] == [["Hello.", 2.2, 2.7]] and [w for w, _, _ in by_both["words"]] == [
        "hi",
        "you",
    ]
    for words in (by_turns["agent"], by_text["words"]):
        assert all(
            before[2] <= word[1] <= word[2] <= 9.0
            for before, word in zip(words, words[1:], strict=False)
        )


def test_forced_align_recovers_planted_spikes(monkeypatch):
    """Spikes some time after their sound, as an encoder gives them, some of them weak: words come back within a tick."""
    words = [("hello", 0.5, 1.0), ("eel", 1.5, 2.3), ("bee", 4.0, 4.6), ("it's", 4.7, 5.5)]
    rng = np.random.default_rng(0)
    probabilities, planted, targets = rng.uniform(0.001, 0.01, (320, 1 + len(PHONES))), [], []
    for word, start, end in words:
        said = phones(word)
        times = np.linspace(start + forced.AFTER_START_S, end + forced.AFTER_END_S, len(said) - 1)
        planted += [round(t / forced.FRAME_S) for t in [*times, times[-1] + 0.06]]
        targets += said
    for n, (frame, phone) in enumerate(zip(planted, targets, strict=True)):
        probabilities[frame, phone] += 0.3 if n % 3 == 0 else 1.0
    probabilities[:, 0] += np.where(probabilities[:, 1:].max(1) > 0.5, 0.0, 0.5)
    log_probs = torch.from_numpy(
        np.log(probabilities / probabilities.sum(1, keepdims=True))
    ).float()
    monkeypatch.setattr(forced, "hear", lambda encoder, wave: log_probs)
    wave = np.zeros(80 * TICK_SAMPLES, np.float32)
    found = forced.forced_align(wave, "Hello, eel -- bee it's!", None)
    assert [w for w, _, _ in found] == ["Hello,", "eel", "bee", "it's!"]
    for (_, start, end), (_, true_start, true_end) in zip(found, words, strict=True):
        assert abs(end - true_end) <= TICK_S and abs(start - true_start) <= TICK_S
    assert (
        forced.spike_frames(log_probs, targets) == planted
        and forced.spike_frames(log_probs[:10], targets) is None
    )
    with pytest.raises(ValueError, match="do not fit"):
        forced.forced_align(wave, "hello " * 99, None)


def test_listening_as_a_stream_is_listening_at_once(parts):
    ears = load_ears(parts / "encoder", parts / "lexicon")
    wave = spoken(USER_WORDS, 2.0, SAMPLE_RATE, 500.0).astype(np.float32)[: 24 * TICK_SAMPLES]
    heard = []
    ears.encoder.forward, forward = (
        lambda mel: heard.append(forward(mel)) or heard[0],
        ears.encoder.forward,
    )
    training.listen(ears, np.pad(wave, (0, 6 * TICK_SAMPLES)))
    assert (
        forced.hear(ears.encoder, wave).exp() - heard[0][1][0].exp()
    ).abs().max() < 0.02  # `listen` computes in bfloat16


def turn(*words) -> UserTurn:
    return UserTurn([Word(*w) for w in words])


def test_a_turn_is_what_was_heard_of_it():
    """Words belong to the turn in whose time they were settled; what was heard outside of all turns stays outside."""
    scene = Scene(
        8.0,
        [
            turn(("hello", 0.5, 0.9), ("you", 1.0, 1.3)),
            turn(("mhm", 3.0, 3.2)),
            turn(("go", 5.0, 5.4)),
        ],
    )
    question, _, order = scene.user
    scene.agent = [AgentTurn("Yes.", 1.7, question)]
    heard = [[] for _ in range(100)]
    heard[12], heard[20], heard[33], heard[74] = (
        [("yellow", 0.9)],
        [("you", 0.8), ("too", 0.4)],
        [("noise", 0.9)],
        [("no", 0.9)],
    )
    due = retell(scene, heard, spell)
    assert scene.user == [question, order] and [w.text for w in question.words] == [
        "yellow",
        "you",
        "too",
    ]
    assert due == [[12, 12, 20, 20], [74]] and [w.text for w in order.words] == ["no"]
    scene = Scene(8.0, [turn(("hello", 0.5, 0.9))], [])
    scene.agent = [AgentTurn("Yes.", 1.7, scene.user[0])]
    assert retell(scene, [[] for _ in range(100)], spell) is None, (
        "nothing was heard of what is answered"
    )


def spell(word: str) -> list[int]:
    return [100 + ord(letter) for letter in word[::3]]


def encode(text: str) -> list[tuple[int, str]]:
    return [(300 + len(word), " " + word) for word in text.split()]


def entry(user: list, agent: list | None, seconds: float) -> dict:
    return {"words": user, "agent": agent, "samples": int(seconds * SAMPLE_RATE)}


def random_talk(seed: int) -> dict:
    """Two speakers with pauses, overlaps, back-channels and interruptions."""
    rng = np.random.default_rng(seed)
    sides, ends = {"user": [], "agent": []}, {"user": 0.0, "agent": 0.0}
    now = float(rng.uniform(0, 2))
    for _ in range(24):
        side = str(rng.choice(["user", "agent"]))
        at = max(ends[side], now + float(rng.normal(0.4, 0.8)))
        short = side == "user" and rng.uniform() < 0.2
        for _ in range(int(rng.integers(1, 3 if short else 14))):
            word = str(
                rng.choice(
                    ["yeah", "mhm"]
                    if short
                    else ["so", "wonderful", "well", "indeed.", "I", "think"]
                )
            )
            length = 0.08 + 0.05 * len(word)
            sides[side].append([word, round(at, 3), round(at + length, 3)])
            at += length + (float(rng.uniform(0.2, 2.0)) if rng.uniform() < 0.15 else 0.02)
        ends[side] = now = at
    return entry(sides["user"], sides["agent"], max(ends.values()) + 0.5)


def heard_in(scene) -> tuple[list, list]:
    """Due ticks as an encoder would give them, and all that is heard."""
    due, last = [], -1
    for turn in scene.user:
        ticks = []
        for word in turn.words:
            for _ in spell(word.text):
                last = max(int(word.end / TICK_S) + 2, last + 1)
                ticks.append(last)
        due.append(ticks)
    place(scene, due, spell)
    return due, heard_symbols(scene, due, spell)


@pytest.mark.parametrize("cap", [1, 3])
@pytest.mark.parametrize("seed", range(25))
def test_windows_obey_the_runtime(seed, cap):
    """Every symbol is one the runtime would allow, a window begins in silence, and all whole turns are heard in order."""
    talk = random_talk(seed)
    conversation, starts = understand(talk), window_starts(understand(talk))
    assert starts
    for earliest, latest in starts:
        assert 0 <= earliest <= latest
        scene = window(conversation, latest)
        assert 0 < scene.seconds <= WINDOW_S + 1e-6 and scene.user
        words = talk["words"] + talk["agent"]
        quiet_until = latest + (SILENCE_S - 0.01 if latest > 0 else 0)
        assert not [w for w in words if w[1] < latest < w[2] or latest < w[1] < quiet_until]
        assert window_end(conversation, latest) - latest == scene.seconds
        _, heard = heard_in(scene)
        sequence = lay_out(scene, heard, [], encode, cap)
        grammar, in_tick, most = Grammar(), 0, POLICY.onset_symbols
        for token, label in zip(sequence.token, sequence.label, strict=True):
            in_tick = 0 if token < 0 else in_tick + 1
            if token < 0:
                most = max(cap, POLICY.silent_symbols) if grammar.agent_open else POLICY.onset_symbols
            if token >= 0:
                assert allowed_mask(grammar, 512, True, True)[token]
                grammar = advance(grammar, int(token))
            assert in_tick <= most and (label == IGNORE or allowed_mask(grammar, 512, True, True)[label])
        pieces = [s for _, s in heard if s >= FIRST_TEXT_ID]
        got = [t for t in sequence.token if 100 <= t < 300]
        assert got == pieces[: len(got)] and len(got) >= len(pieces) - 3
        answers = [t for turn in scene.agent for t, _ in encode(turn.text)]
        said = [t for t in sequence.token if t >= 300]
        assert len(said) <= len(answers) and (not said or said[0] == answers[0])


def test_turns_answers_back_channels_and_interruptions():
    user = [
        ["Is", 1.0, 1.2],
        ["it?", 1.3, 1.6],
        ["Yeah,", 3.5, 3.8],
        ["wait", 5.6, 5.9],
        ["a", 6.0, 6.1],
        ["bit", 6.2, 6.9],
    ]
    agent = [["Yes,", 2.0, 2.4]] + [
        [w, 2.5 + 0.5 * i, 2.9 + 0.5 * i]
        for i, w in enumerate("it is and it always was so".split())
    ]
    agent += [["I", 7.5, 7.6], ["wait.", 7.7, 8.2]]
    conversation = understand(entry(user, agent, 10.0))
    question, assent, order = conversation.user
    first, second = conversation.agent
    assert [w.text for w in question.words] == [
        "is",
        "it",
    ] and first.text == "Yes, it is and it always was so"
    assert question.answered and order.answered and not assent.answered
    assert first.answers is question and second.answers is order and second.stopped_by is None
    assert first.stopped_by is order and first.cut and first.stop == pytest.approx(5.9)
    ended = understand(
        entry(user, [[w + "." if w == "so" else w, a, b] for w, a, b in agent], 10.0)
    )
    assert ended.agent[0].stopped_by is None  # the sentence was over
    assert (
        understand(entry(user[2:3], agent[-2:], 10.0)).user[0].answered
    )  # in a silence "yeah" is an answer


def test_a_cut_turn_stops_and_drops_nothing():
    """Its text may be over before the <stop>; there nothing is asked, least of all an <end> that never came."""
    user = [["hi", 0.5, 0.8], ["no", 4.0, 4.3], ["wait", 4.4, 4.8], ["please", 4.9, 5.4]]
    agent = [
        [w, 2.0 + 0.5 * i, 2.4 + 0.5 * i]
        for i, w in enumerate("one two three four five six".split())
    ]
    scene = window(understand(entry(user, agent, 8.0)), 0.0)
    _, heard = heard_in(scene)
    sequence = lay_out(scene, heard, [], encode, 2)
    assert scene.agent[0].stop == pytest.approx(max(4.9, (int(4.3 / TICK_S) + 3) * TICK_S))
    assert (
        (sequence.dropped_at == NEVER).all()
        and END not in sequence.token
        and END not in sequence.label
    )
    stop = sequence.token.tolist().index(STOP)
    assert sequence.tick[stop] == int(np.ceil(scene.agent[0].stop / TICK_S))
    assert [t for t in sequence.token if t > 300] == [
        t for t, _ in encode("one two three four five six")
    ]
    waiting = (sequence.tick > 4.2 / TICK_S) & (sequence.tick < sequence.tick[stop])
    assert (sequence.label[waiting] == IGNORE).any() and (
        sequence.label[sequence.tick > sequence.tick[stop]] == NEXT
    ).any()
    start = sequence.tick[sequence.token.tolist().index(AGENT)] * TICK_S
    assert (
        0 <= start - (2.0 - VOICE_DELAY_SECONDS) <= TICK_S
    )  # a little before its first sound, as in the recording


def test_an_agent_that_came_in_too_early_learns_to_wait():
    user = [["so", 0.5, 0.8], ["wonderful", 0.9, 1.9]]
    scene = window(understand(entry(user, [["Yes.", 1.2, 1.6]], 5.0)), 0.0)
    due, heard = heard_in(scene)
    sequence = lay_out(scene, heard, [], encode, 1)
    symbols = [t for t in sequence.token if 0 <= t < FIRST_TEXT_ID]
    assert symbols == [USER, USER_END, AGENT, END]


def test_without_the_agents_side_only_hearing_is_learned():
    user = [["hi", 0.5, 0.8], ["you", 3.0, 3.4]]
    scene = window(understand(entry(user, None, 6.0)), 0.0)
    _, heard = heard_in(scene)
    whole = lay_out(scene, heard, [1, 2], encode, 1)
    sequence, grammar = hearing_only(whole), Grammar()
    for token, label, before in zip(
        sequence.token[2:], sequence.label[2:], whole.label[2:], strict=True
    ):
        grammar = grammar if token < 0 else advance(grammar, int(token))
        assert label == (IGNORE if before == NEXT and not grammar.user_open else before)
    assert (
        (sequence.label == NEXT).any()
        and (sequence.label == USER).sum() == 2
        and (sequence.label == USER_END).sum() == 2
    )


def tiny_lm() -> LM:
    torch.manual_seed(1)
    return LM(
        LMConfig(
            width=32, layers=1, heads=4, kv_heads=2, hidden=48, vocabulary=tiny_tokenizer().get_vocab_size(), lora_rank=2,
            feature_width=96,
        )
    )  # fmt: skip


def folders(parts) -> list:
    """The options of a training that hears."""
    return [
        option
        for name in ("encoder", "lexicon", "tokenizer")
        for option in (f"--{name}", parts / name)
    ]


def fine_tune(parts, prepared, out) -> dict[str, torch.Tensor]:
    told = ["--recordings", f"{prepared}=1", *folders(parts)]
    told += ["--backbone", "none.gguf"]
    args = parse_arguments(
        [str(a) for a in [*told, "--steps", 4, "--positions", 400, "--residual", "--out", out]]
    )
    training.run(args, tiny_lm(), training.build_ears(args))
    return checkpoint.load_tensors(out)


@pytest.fixture
def prepared(parts, tmp_path):
    lines = [record(tmp_path, name, {"alignments": alignments()}) for name in ("a", "b")]
    assert (
        prepare(parts, tmp_path, [*lines, record(tmp_path, "heard", {"text": "hi you and"})]) == 0
    )
    return tmp_path / "prepared"


def test_a_run_on_recordings_alone_learns_and_describes_itself(parts, prepared, tmp_path):
    before = {name: value.clone() for name, value in tiny_lm().state_dict().items()}
    after = fine_tune(parts, prepared, tmp_path / "run")
    moved = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert (
        "control_out" in moved
        and "residual.weight" in moved
        and any("lora_b" in name for name in moved)
    )
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (
        written["arguments"]["recordings"] == [[str(prepared), 1.0]]
        and written["arguments"]["steps"] == 4
    )
    assert (
        written["versions"]["torch"] == torch.__version__
        and written["program"] == "duplex.training.duplex"
    )


def test_an_interrupted_run_ends_with_the_same_weights(parts, prepared, tmp_path, monkeypatch):
    """Cut off in its third step after two were saved, it goes on with the batches that were left."""
    whole = fine_tune(parts, prepared, tmp_path / "whole")
    monkeypatch.setattr(training, "SAVE_SECONDS", -1.0)
    break_off(monkeypatch, training, "losses", 3)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(parts, prepared, tmp_path / "parted")
    assert json.loads((tmp_path / "parted" / "progress.json").read_text())["step"] == 2
    resumed = fine_tune(parts, prepared, tmp_path / "parted")
    assert json.loads((tmp_path / "parted" / "progress.json").read_text())["step"] == 4
    assert whole.keys() == resumed.keys() and all(
        torch.equal(whole[name], resumed[name]) for name in whole
    )


def test_recordings_take_their_share_and_nothing_else_changes(parts, prepared, tmp_path):
    """With share 0.5 about half of the scenes are windows; without the option not one random number is drawn more."""
    dialogue = {
        "turns": [{"role": "user", "text": "hi you"}, {"role": "agent", "text": "Yes."}],
        "kind": "a",
        "split": "train",
    }
    (tmp_path / "corpus.jsonl").write_text(json.dumps(dialogue) + "\n")
    told = [
        "--corpus",
        tmp_path / "corpus.jsonl",
        "--simulated",
        1,
        "--backbone",
        "none.gguf",
        "--tokenizer",
        parts / "tokenizer",
    ]
    told += ["--out", tmp_path / "run"]
    tokenizer = Tokenizer(parts / "tokenizer")
    plain = training.SceneSource(parse_arguments([str(a) for a in told]), "train", tokenizer, None)
    seen, other = np.random.default_rng(3), np.random.default_rng(3)
    drawn = plain.draw(seen)
    assert other.integers(1) == 0 and other.uniform() < 1  # the dialogue, without sound or with it
    again = plain.simulated_scene(plain.dialogues[0], other)
    assert (drawn[0].token == again[0].token).all() and drawn[2] == again[2]
    args = parse_arguments([str(a) for a in [*told, "--recordings", f"{prepared}=0.5"]])
    mixed = training.SceneSource(
        args, "train", tokenizer, load_ears(parts / "encoder", parts / "lexicon")
    )
    rng = np.random.default_rng(0)
    share = np.mean([mixed.recorded(rng) is not None for _ in range(400)])
    assert 0.4 < share < 0.6
    assert (
        len(Recordings(prepared, "train")) and sum(len(b) for b in mixed.batches(rng, 400, 1)) >= 1
    )


def test_two_processes_train_one_model_and_go_on_where_they_stopped(parts, prepared, tmp_path):
    """As on two GPUs: each draws its own data, one writes; duplex.training.common.distributed checks that both hold the same weights."""
    size = tiny_tokenizer().get_vocab_size()
    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=size,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "backbone")
    told = ["--recordings", f"{prepared}=1", *folders(parts)]
    told += [
        "--backbone",
        tmp_path / "backbone",
        "--positions",
        400,
        "--rank",
        2,
        "--out",
        tmp_path / "run",
    ]
    for steps in (25, 30):
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            "2",
            "-m",
            "duplex.training.duplex",
        ]
        command, variables = (
            [str(a) for a in [*launch, *told, "--steps", steps]],
            {**os.environ, "ACCELERATE_USE_CPU": "true"},
        )
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        progress = json.loads((tmp_path / "run/progress.json").read_text())
        assert progress["step"] == steps and len(progress["queues"]) == 2
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [25]
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


@pytest.mark.parametrize("gradients", [(1.0, 3.0), (None, 3.0)])
def test_gradients_of_all_processes_count_alike(gradients):
    class Pair:
        num_processes = 2

        def reduce(self, tensor, how):
            assert how == "mean"
            return (tensor + 5.0) / 2

    parameters = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))]
    for parameter, value in zip(parameters, gradients, strict=True):
        parameter.grad = None if value is None else torch.full_like(parameter, value)
    average_gradients(Pair(), parameters)
    for parameter, value in zip(parameters, gradients, strict=True):
        assert torch.equal(parameter.grad, torch.full_like(parameter, ((value or 0.0) + 5.0) / 2))
