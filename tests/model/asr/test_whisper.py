"""Whisper read whole: transformers' own model is the reference, at tiny size."""

import pytest
import torch
from transformers import WhisperConfig as ReferenceConfig
from transformers import WhisperForConditionalGeneration

from duplex.model.asr.text_search import repeated_tokens
from duplex.model.asr.whisper import Whisper, WhisperConfig
from tests.tiny_whisper import tokenizer

SIZES = WhisperConfig(width=128, layers=2, vocabulary=260, positions=50, text_positions=40)


@pytest.fixture(scope="module")
def pair():
    """transformers' model and ours, with the same random weights."""
    torch.manual_seed(0)
    config = ReferenceConfig(
        vocab_size=SIZES.vocabulary,
        d_model=SIZES.width,
        encoder_layers=SIZES.layers,
        decoder_layers=SIZES.layers,
        encoder_attention_heads=SIZES.heads,
        decoder_attention_heads=SIZES.heads,
        encoder_ffn_dim=4 * SIZES.width,
        decoder_ffn_dim=4 * SIZES.width,
        max_source_positions=SIZES.positions,
        max_target_positions=SIZES.text_positions,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )
    reference = WhisperForConditionalGeneration(config).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ours = Whisper(SIZES, tokenizer())
    ours.load_state_dict(renamed(reference.model.state_dict()))
    return reference, ours


def renamed(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' weights under our names."""
    found = {
        "encoder.positions": theirs["encoder.embed_positions.weight"],
        "decoder.positions": theirs["decoder.embed_positions.weight"],
        "decoder.embedding": theirs["decoder.embed_tokens.weight"],
    }
    layers = {"encoder.conv1": "encoder.conv1", "encoder.conv2": "encoder.conv2"}
    for side in ("encoder", "decoder"):
        layers[f"{side}.norm"] = f"{side}.layer_norm"
        for i in range(SIZES.layers):
            layers[f"{side}.attention.{i}.norm"] = f"{side}.layers.{i}.self_attn_layer_norm"
            layers[f"{side}.attention.{i}.out"] = f"{side}.layers.{i}.self_attn.out_proj"
            layers[f"{side}.mlp.{i}.norm"] = f"{side}.layers.{i}.final_layer_norm"
            layers[f"{side}.mlp.{i}.up"] = f"{side}.layers.{i}.fc1"
            layers[f"{side}.mlp.{i}.down"] = f"{side}.layers.{i}.fc2"
            found |= joined(
                theirs, f"{side}.attention.{i}.qkv", f"{side}.layers.{i}.self_attn", "qkv"
            )
    for i in range(SIZES.layers):
        cross = f"decoder.layers.{i}.encoder_attn"
        layers[f"decoder.cross.{i}.norm"] = f"{cross}_layer_norm"
        layers[f"decoder.cross.{i}.query"] = f"{cross}.q_proj"
        layers[f"decoder.cross.{i}.out"] = f"{cross}.out_proj"
        found |= joined(theirs, f"decoder.cross.{i}.key_value", cross, "kv")
    for name, other in layers.items():
        found |= {f"{name}.{kind}": theirs[f"{other}.{kind}"] for kind in ("weight", "bias")}
    return found


def joined(theirs: dict, name: str, other: str, parts: str) -> dict[str, torch.Tensor]:
    """Projections of queries, keys and values as one; Whisper's keys have no bias."""
    weights = [theirs[f"{other}.{part}_proj.weight"] for part in parts]
    none = torch.zeros(SIZES.width)
    biases = [theirs.get(f"{other}.{part}_proj.bias", none) for part in parts]
    return {f"{name}.weight": torch.cat(weights), f"{name}.bias": torch.cat(biases)}


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    """log10 power of a clip that fills all positions [100, 80]."""
    return torch.randn(2 * SIZES.positions, 80, generator=torch.Generator().manual_seed(1)) - 3


def mel_of(power: torch.Tensor) -> torch.Tensor:
    """Whisper's log-mel of a whole clip, [1, 80, T]."""
    return ((power.clamp(min=power.max() - 8.0) + 4.0) / 4.0).T[None]


@torch.inference_mode()
def test_states_of_a_clip_are_the_references(pair, clip):
    reference, ours = pair
    expected = reference.model.encoder(mel_of(clip)).last_hidden_state
    torch.testing.assert_close(ours.encode(clip), expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_likelihoods_of_texts_are_the_references(pair, clip):
    """Texts of several lengths in one batch, each with its end."""
    reference, ours = pair
    texts = ["hi", "so we go now", "x"]
    found = ours.score(ours.encode(clip), texts)
    for text, value in zip(texts, found, strict=True):
        tokens = [*ours.encode_text(text), ours.end]
        inputs = torch.tensor([ours.prompt + tokens[:-1]])
        logits = reference(input_features=mel_of(clip), decoder_input_ids=inputs).logits[0]
        log_probs = logits[len(ours.prompt) - 1 :].log_softmax(-1)
        expected = sum(float(log_probs[i, token]) for i, token in enumerate(tokens))
        assert value == pytest.approx(expected, rel=1e-4)


@torch.inference_mode()
def test_the_greedy_transcript_is_the_references(pair, clip):
    """Token by token with a cache, as one pass over all of it; marks are never written."""
    reference, ours = pair
    reading = ours.decode(ours.encode(clip), max_tokens=12)
    assert reading.tokens and max(reading.tokens) < ours.end
    inputs = torch.tensor([ours.prompt + reading.tokens])
    logits = reference(input_features=mel_of(clip), decoder_input_ids=inputs).logits[0]
    logits = logits[len(ours.prompt) - 1 :, : ours.end + 1]
    for i, token in enumerate(reading.tokens[1:], 1):
        assert token == int(logits[i].argmax())
        expected = float(logits[i].log_softmax(-1)[token])
        assert reading.log_probs[i] == pytest.approx(expected, abs=1e-3)


def test_a_reading_that_repeats_itself_ends_there(pair, clip):
    _, ours = pair
    phrase = [5, 6, 7, 8]
    wanted = iter(phrase * 9)

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(*hidden.shape[:-1], SIZES.vocabulary)
        scores[..., next(wanted)] = 9.0
        return scores

    own = ours.decoder.logits
    ours.decoder.logits = logits
    try:
        reading = ours.decode(ours.encode(clip), max_tokens=30)
    finally:
        ours.decoder.logits = own
    assert reading.tokens == phrase and reading.loops and not reading.is_cut
    assert len(reading.log_probs) == len(phrase)


@torch.inference_mode()
@pytest.mark.parametrize("beams", [2, 6])
def test_several_texts_side_by_side_find_a_likelier_one(pair, clip, beams):
    """Its log-probabilities are the reference's; a draft that is not sure is searched anew."""
    reference, ours = pair
    h = ours.encode(clip)
    found = ours.decode(h, 12, beams=beams)
    greedy = ours.decode(h, 12)
    assert found.mean_log_prob >= greedy.mean_log_prob
    inputs = torch.tensor([ours.prompt + found.tokens])
    logits = reference(input_features=mel_of(clip), decoder_input_ids=inputs).logits[0]
    logits = logits[len(ours.prompt) - 1 :, : ours.end + 1]
    for i, log_prob in enumerate(found.log_probs[1:], 1):
        token = [*found.tokens, ours.end][i]
        assert log_prob == pytest.approx(float(logits[i].log_softmax(-1)[token]), abs=1e-3)
    assert ours.decode(h, 12, greedy.tokens, beams=beams).tokens == found.tokens


@pytest.mark.parametrize("right", [0, 3, 11])
def test_a_draft_saves_passes_and_changes_nothing(pair, clip, right):
    """As far as it is right it is read in one pass; the rest of it is forgotten."""
    _, ours = pair
    h = ours.encode(clip)
    expected = ours.decode(h, max_tokens=12)
    wrong = [(token + 1) % ours.end for token in expected.tokens[right:]]
    passes = []
    forward = ours.decoder.register_forward_hook(lambda *_: passes.append(1))
    found = ours.decode(h, 12, expected.tokens[:right] + wrong)
    forward.remove()
    assert found.tokens == expected.tokens and len(expected.tokens) == 12
    assert found.log_probs == pytest.approx(expected.log_probs, abs=1e-4)
    assert found.no_speech == pytest.approx(expected.no_speech, rel=1e-4)
    assert len(passes) == 12 - right


def test_a_short_clip_is_followed_by_the_silence_of_a_window(pair, clip):
    """The decoder attends to as many positions as a whole window has."""
    _, ours = pair
    h = ours.encode(clip[:40])
    state = ours.decoder.initial_state(h, ours.silent_rest(h.shape[1]))
    silent = ours.decoder.initial_state(h[:, :0], ours.silent_rest(0))
    for cross, (k, v), (silent_k, silent_v) in zip(
        ours.decoder.cross, state.clip, silent.clip, strict=True
    ):
        own_k, own_v = cross.clip(h)
        assert k.shape[2] == v.shape[2] == SIZES.positions
        torch.testing.assert_close(k, torch.cat([own_k, silent_k[:, :, 20:]], 2))
        torch.testing.assert_close(v, torch.cat([own_v, silent_v[:, :, 20:]], 2))


@pytest.mark.parametrize(
    ("tokens", "length"),
    [
        ([1, 2, 3, 4, 1, 2, 3, 4], 4),
        ([9, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5], 5),
        ([1, 1, 1], 0),  # "no, no, no"
        ([1, 2, 1, 2], 0),
        ([1, 2, 3, 4, 1, 2, 3], 0),
        ([], 0),
    ],
)
def test_loops(tokens, length):
    assert repeated_tokens(tokens) == length
