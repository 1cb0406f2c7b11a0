"""Whisper as it is, encoder and decoder, for a second pass over what the user said.

    mel [B, T, 80] -> encode -> [B, T / 2, W] -> score texts | decode

The whole clip is seen at once (Radford et al., 2022, arXiv 2212.04356). Whisper knows windows of
30 s alone; the end of a shorter one it often reads twice. So the decoder attends to a whole window,
while the encoder reads the clip with a little silence behind it. The states of the silence that
fills the window are computed once, of a window in which nobody speaks. Frames are those of
features.py without their running peak: bins of 40 Hz at 24 kHz are Whisper's at 16 kHz.

Letters in shapes: B clips or texts, T frames of 10 ms, S of 20 ms, W width, N tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duplex.model.asr.biasing import FavouredWords
from duplex.model.asr.ctranslate2 import read_tensors
from duplex.model.asr.features import BANDS
from duplex.model.asr.text_search import Search, search

# Width of an attention head, the same in all of Whisper's models.
HEAD_WIDTH = 64


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes of one of Whisper's models; the heads are 64 wide in all of them."""

    width: int = 384
    layers: int = 4
    vocabulary: int = 51_864
    positions: int = 1500
    text_positions: int = 448

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return self.width // HEAD_WIDTH


def _split(x: Tensor) -> Tensor:
    """[B, N, W] -> [B, heads, N, 64]."""
    return x.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of [B, heads, N, 64] -> [B, N, W]; mask: bool [N, M], True where a key is seen."""
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)


class MLP(nn.Module):
    """Layer norm, up, GELU, down, and the residual."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, N, W] -> [B, N, W]."""
        return x + self.down(F.gelu(self.up(self.norm(x))))


class SelfAttention(nn.Module):
    """Layer norm, self-attention, and the residual."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, cache: list[Tensor] | None = None) -> Tensor:
        """x: [B, N, W]. cache: keys and values of earlier positions, [B, heads, M, 64] each, which
        grows; with it a position sees itself and those before, without it every other one."""
        q, k, v = (_split(part) for part in self.qkv(self.norm(x)).chunk(3, -1))
        mask = None
        if cache is not None:
            if cache:
                k = torch.cat([cache[0], k], 2)
                v = torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
            if q.shape[2] > 1:
                places = torch.arange(k.shape[2], device=k.device)
                mask = places <= places[-q.shape[2] :, None]
        return x + self.out(_attend(q, k, v, mask))


class CrossAttention(nn.Module):
    """Layer norm, attention to the clip, and the residual."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def clip(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, heads, S, 64] of an encoded clip [B, S, W]."""
        k, v = self.key_value(h).chunk(2, -1)
        return _split(k), _split(v)

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """x [B, N, W], keys and values of the clip [1, heads, S, 64] -> [B, N, W]."""
        # As one text: all of them attend to the same clip.
        q = self.query(self.norm(x)).flatten(0, 1)[None]
        return x + self.out(_attend(_split(q), k, v).view(x.shape))


class WhisperEncoder(nn.Module):
    """Convolutions and a transformer over the whole clip."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.conv1 = nn.Conv1d(BANDS, config.width, 3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.zeros(config.positions, config.width))
        self.attention = nn.ModuleList(SelfAttention(config.width) for _ in range(config.layers))
        self.mlp = nn.ModuleList(MLP(config.width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, mel: Tensor) -> Tensor:
        """mel [B, T, 80] -> [B, S, W]."""
        x = F.gelu(self.conv1(mel.transpose(1, 2)))
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x = mlp(attention(x))
        return self.norm(x)


@dataclass
class TextState:
    """What the decoder keeps of one or several texts about one clip."""

    clip: list[tuple[Tensor, Tensor]]  # [1, heads, S, 64] keys and values, a layer
    cache: list[list[Tensor]]  # [B, heads, M, 64] keys and values, a layer
    length: int = 0  # positions so far

    def truncate(self, length: int) -> None:
        """Forget all positions but the first `length`."""
        self.length = length
        self.cache = [[kept[:, :, :length] for kept in layer] for layer in self.cache]

    def select(self, texts: list[int]) -> None:
        """Go on from these of the B texts, some perhaps several times."""
        if texts != [*range(len(self.cache[0][0]))]:
            self.cache = [[kept[texts] for kept in layer] for layer in self.cache]


class WhisperDecoder(nn.Module):
    """A transformer over text that attends to the clip."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(config.vocabulary, config.width))
        self.positions = nn.Parameter(torch.zeros(config.text_positions, config.width))
        self.attention = nn.ModuleList(SelfAttention(config.width) for _ in range(config.layers))
        self.cross = nn.ModuleList(CrossAttention(config.width) for _ in range(config.layers))
        self.mlp = nn.ModuleList(MLP(config.width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        # Stands in for the product with the embedding, where there is a faster one.
        self.output: nn.Module | None = None

    def initial_state(self, h: Tensor, rest: list[tuple[Tensor, Tensor]]) -> TextState:
        """Nothing of a text about the clip h [1, S, W] is read yet.

        rest: what follows the clip, keys and values [1, heads, M, 64] a layer.
        """
        clip = []
        for cross, (k, v) in zip(self.cross, rest, strict=True):
            own_k, own_v = cross.clip(h)
            clip.append((torch.cat([own_k, k], 2), torch.cat([own_v, v], 2)))
        return TextState(clip, [[] for _ in self.cross])

    def forward(self, tokens: Tensor, state: TextState) -> Tensor:
        """The next tokens [B, N] of B texts -> hidden states [B, N, W]; the state moves on."""
        begin = state.length
        state.length += tokens.shape[1]
        x = self.embedding[tokens] + self.positions[begin : state.length]
        layers = zip(self.attention, self.cross, self.mlp, state.clip, state.cache, strict=True)
        for attention, cross, mlp, (k, v), cache in layers:
            x = mlp(cross(attention(x, cache), k, v))
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., W] -> [..., V]."""
        return hidden @ self.embedding.T if self.output is None else self.output(hidden)


class Whisper(nn.Module):
    """Both halves, the tokenizer (tokenizers.Tokenizer), and the marks that begin a transcript."""

    def __init__(self, config: WhisperConfig, tokenizer):
        super().__init__()
        self.config = config
        self.encoder = WhisperEncoder(config)
        self.decoder = WhisperDecoder(config)
        self.tokenizer = tokenizer
        self.end = tokenizer.token_to_id("<|endoftext|>")
        silence = [tokenizer.token_to_id(mark) for mark in ("<|nospeech|>", "<|nocaptions|>")]
        self.no_speech = next(mark for mark in silence if mark is not None)
        marks = ["<|startoftranscript|>", "<|notimestamps|>"]
        # The models for English alone have fewer tokens.
        if config.vocabulary > 51_864:
            marks[1:1] = ["<|en|>", "<|transcribe|>"]
        self.prompt = [tokenizer.token_to_id(mark) for mark in marks]
        # Keys and values of a window in which nobody speaks, a layer; see silent_rest.
        self.silence: list[tuple[Tensor, Tensor]] = []
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.encoder.positions.device

    def encode_text(self, text: str) -> list[int]:
        """Tokens of a transcript, as the decoder writes it: with a space before its first word."""
        return self.tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids

    @torch.inference_mode()
    def encode(self, power: Tensor) -> Tensor:
        """A clip's log10 power in mel bands [T, 80] -> [1, S, W], seen from its loudest moment."""
        power = power.to(self.device)
        floor = power.max() - 8.0  # What lies deeper is not heard, as in Whisper.
        mel = (power.clamp(min=floor) + 4.0) / 4.0
        return self.encoder(mel[None])

    def silent_rest(self, length: int) -> list[tuple[Tensor, Tensor]]:
        """The window behind its first `length` positions while nobody speaks there.

        Keys and values [1, heads, M, 64] of each layer, computed at the first call.
        """
        if not self.silence:
            # As deep below the loudest moment as Whisper hears.
            silent_mel = -0.5
            frames = 2 * self.config.positions
            h = self.encoder(torch.full((1, frames, BANDS), silent_mel, device=self.device))
            self.silence = [cross.clip(h) for cross in self.decoder.cross]
        return [(k[:, :, length:], v[:, :, length:]) for k, v in self.silence]

    @torch.inference_mode()
    def score(self, h: Tensor, texts: list[str]) -> list[float]:
        """Log-likelihood of each text, its end included, given the clip h [1, S, W]; one batch."""
        rows = [[*self.encode_text(text), self.end] for text in texts]
        longest = max(map(len, rows))
        padded = [row + [self.end] * (longest - len(row)) for row in rows]
        tokens = torch.tensor([self.prompt + row for row in padded], device=self.device)
        state = self.decoder.initial_state(h, self.silent_rest(h.shape[1]))
        hidden = self.decoder(tokens[:, :-1], state)[:, len(self.prompt) - 1 :]
        log_probs = self.decoder.logits(hidden).log_softmax(-1)
        found = log_probs.gather(2, tokens[:, len(self.prompt) :, None])[..., 0]
        return [float(found[i, : len(row)].sum()) for i, row in enumerate(rows)]

    @torch.inference_mode()
    def decode(
        self,
        h: Tensor,
        max_tokens: int,
        draft: Sequence[int] = (),
        favoured: FavouredWords | None = None,
        beams: int = 1,
    ) -> "Reading":
        """The transcript of the clip h [1, S, W]; it ends where it repeats itself.

        draft: how it may begin, such as an earlier reading of the same clip. It is read in one pass
        and kept as far as it is right. favoured: words that are likely; what they gain is no part
        of the log-probabilities. beams: texts that are followed side by side; 1: the greedy one.
        """
        wanted = Search(self.end, max_tokens, beams, favoured)
        found, no_speech = search(self, h, wanted, draft)
        tokens = [*found.tokens]
        text = self.tokenizer.decode(tokens).strip()
        is_cut = not found.is_over
        return Reading(text, tokens, [*found.log_probs], no_speech, found.loops, is_cut)


@dataclass
class Reading:
    """A transcript and what speaks for it."""

    text: str
    tokens: list[int]
    # Of each token, and of the end where it was reached.
    log_probs: list[float]
    # Probability that nobody speaks.
    no_speech: float
    # It repeated itself and was ended there.
    loops: bool = False
    # It had no end yet when it was as long as it may be.
    is_cut: bool = False

    @property
    def mean_log_prob(self) -> float:
        """Nats a token."""
        return sum(self.log_probs) / max(1, len(self.log_probs))


def _names(config: WhisperConfig) -> Iterator[tuple[str, str]]:
    """(our name, CTranslate2's name) of every layer."""
    yield "encoder.conv1", "encoder/conv1"
    yield "encoder.conv2", "encoder/conv2"
    for side in ("encoder", "decoder"):
        yield f"{side}.norm", f"{side}/layer_norm"
        for i in range(config.layers):
            layer = f"{side}/layer_{i}"
            yield f"{side}.attention.{i}.norm", f"{layer}/self_attention/layer_norm"
            yield f"{side}.attention.{i}.qkv", f"{layer}/self_attention/linear_0"
            yield f"{side}.attention.{i}.out", f"{layer}/self_attention/linear_1"
            yield f"{side}.mlp.{i}.norm", f"{layer}/ffn/layer_norm"
            yield f"{side}.mlp.{i}.up", f"{layer}/ffn/linear_0"
            yield f"{side}.mlp.{i}.down", f"{layer}/ffn/linear_1"
    for i in range(config.layers):
        layer = f"decoder/layer_{i}/attention"
        yield f"decoder.cross.{i}.norm", f"{layer}/layer_norm"
        yield f"decoder.cross.{i}.query", f"{layer}/linear_0"
        yield f"decoder.cross.{i}.key_value", f"{layer}/linear_1"
        yield f"decoder.cross.{i}.out", f"{layer}/linear_2"


def load_whisper(folder: Path) -> Whisper:
    """Whisper from a folder in CTranslate2's format: model.bin and tokenizer.json."""
    from tokenizers import Tokenizer

    stored = read_tensors(folder / "model.bin")
    embedding = stored["decoder/embeddings/weight"]
    layers = {name.split("/")[1] for name in stored if name.startswith("encoder/layer_")}
    config = WhisperConfig(
        width=embedding.shape[1],
        layers=len(layers - {"layer_norm"}),
        vocabulary=embedding.shape[0],
        positions=len(stored["encoder/position_encodings/encodings"]),
        text_positions=len(stored["decoder/position_encodings/encodings"]),
    )
    weights = {
        "encoder.positions": stored["encoder/position_encodings/encodings"],
        "decoder.positions": stored["decoder/position_encodings/encodings"],
        "decoder.embedding": embedding,
    }
    for ours, theirs in _names(config):
        for kind, names in (("weight", ("weight", "gamma")), ("bias", ("bias", "beta"))):
            found = [stored[f"{theirs}/{name}"] for name in names if f"{theirs}/{name}" in stored]
            weights[f"{ours}.{kind}"] = found[0]
    whisper = Whisper(config, Tokenizer.from_file(str(folder / "tokenizer.json")))
    tensors = {name: torch.from_numpy(array.astype(np.float32)) for name, array in weights.items()}
    whisper.load_state_dict(tensors)
    return whisper
