"""The compiled parts of a tick do what the modules they were made from do with weights rounded to 8 bits."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import njit

from duplex.audio import MEL_FRAMES_PER_TICK
from duplex.cpu import kernels
from duplex.cpu.encoder import compile_encoder
from duplex.cpu.lm import compile_draft, compile_lm
from duplex.cpu.talker import compile_talker, draw
from duplex.cpu.vocoder import compile_vocoder
from duplex.model import encoder, kv_cache, lm, talker, vocoder
from duplex.model.draft import Draft, DraftConfig
from duplex.model.features import BANDS


def rounded(module: torch.nn.Module, names: tuple[str, ...]) -> torch.nn.Module:
    """A copy whose matrices of these names have rows of 255 steps, as `kernels.pack` makes them."""
    module = copy.deepcopy(module)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and any(part in name for part in names):
            matrix = (
                parameter.data.flatten(1)
                if parameter.ndim == 3 and "conv" in name
                else parameter.data
            )
            step = matrix.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 127
            parameter.data.copy_((torch.round(matrix / step) * step).view_as(parameter))
    return module


def close(ours, theirs, share: float) -> None:
    """The difference is at most so large a share of what is compared."""
    assert float((ours - theirs).norm() / theirs.norm()) < share


@pytest.mark.parametrize("instruction", [False, True] if kernels.HAS_VNNI else [False])
@pytest.mark.parametrize("rows", [2, 8, 16])
def test_sums_are_whole_numbers(instruction, rows):
    """The same with the processor's own instruction and without, at both ends of the range."""
    sums, rng = kernels.make_sums(rows, instruction), np.random.default_rng(0)
    weights = rng.integers(0, 256, (3, 40, 64), np.uint8)  # blocks, groups, LANES * GROUP
    digits = rng.integers(-127, 128, (2, 40, rows, 4), np.int8)
    weights[1], digits[1, :, 0] = 255, -127

    @njit
    def run(digits, weights, totals):
        for block in range(3):
            sums(digits, digits.size // 2, weights, block, totals[block])

    totals = np.zeros((3, rows, 16), np.int32)
    run(digits.reshape(-1), weights, totals)
    expected = np.einsum(
        "grk,bglk->brl", digits[1].astype(int), weights.reshape(3, 40, 16, 4).astype(int)
    )
    assert np.array_equal(totals, expected)


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 13])
def test_a_product_is_that_of_the_rounded_weights(rows):
    """With a channel fifty times the others, as in a language model; sizes that fill no whole lanes."""
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(70, 37), torch.randn(rows, 70)
    x[:, 7] *= 50
    y = kernels.product(x.numpy(), kernels.pack(layer.weight, layer.bias))
    expected = rounded(layer, ("weight",))(x).detach()
    assert y.shape == (rows, 48)
    np.testing.assert_allclose(y[:, :37], expected, atol=2e-3 * float(expected.std()))
    for row in range(rows):  # whoever else is in the batch
        assert np.array_equal(
            kernels.product(x[row : row + 1].numpy(), kernels.pack(layer.weight, layer.bias)),
            y[row : row + 1],
        )


def test_zeros_are_zeros():
    y = kernels.product(
        np.zeros((2, 16), np.float32), kernels.pack(torch.randn(16, 16), torch.ones(16))
    )
    assert np.array_equal(y, np.ones((2, 16)))


def test_a_network_that_does_not_fit_says_so():
    with pytest.raises(ValueError, match="20 rows of weights are no multiple of 16: .* float32"):
        kernels.stack([torch.randn(20, 16)])


def test_functions_are_those_of_torch():
    x = torch.linspace(-20, 20, 4001).view(1, -1).contiguous()
    ours = x.clone().numpy()
    kernels.gelu(ours)
    np.testing.assert_allclose(ours, F.gelu(x), atol=3e-6)
    both, gated = torch.cat([x, x.flip(1)], 1).numpy(), np.empty_like(x)
    kernels.gated(both, gated)
    np.testing.assert_allclose(gated, F.silu(x) * x.flip(1), atol=2e-3, rtol=1e-5)
    x, weight, bias = torch.randn(5, 33) * 3 + 1, torch.randn(33), torch.randn(33)
    y = np.empty((5, 33), np.float32)
    kernels.layer_norm(x.numpy(), weight.numpy(), bias.numpy(), y)
    np.testing.assert_allclose(y, F.layer_norm(x, (33,), weight, bias), atol=1e-5)
    kernels.rms_norm(x.numpy(), weight.numpy(), 1e-5, y)
    np.testing.assert_allclose(y, F.rms_norm(x, (33,), weight, 1e-5), atol=1e-5)


@pytest.mark.parametrize(("cache", "least"), [(torch.float32, 1e-3), (torch.bfloat16, 2e-2)])
def test_lm(cache, least):
    """Slots of different lengths, in calls of one to five positions, over more ticks than the window holds."""
    config = lm.LMConfig(
        width=32, layers=3, heads=4, kv_heads=2, hidden=48, vocabulary=75, rope_theta=1000.0, tick_window=6, text_window=10,
    )  # fmt: skip
    torch.manual_seed(0)
    model = lm.LM(config).merge().eval()
    plain = rounded(model, ("qkv", ".out.", "gate_up", "down", "embedding"))
    compiled, found = compile_lm(copy.deepcopy(model)), []
    for one in (plain, compiled):
        torch.manual_seed(1)
        state, hidden = (
            kv_cache.initial_state(
                config, 3, 16, dtype=cache if one is compiled else torch.float32
            ),
            [],
        )
        for counts in ([1, 0, 0], [2, 3, 1], *[[1, 5, 1]] * 6, [0, 0, 1]):
            x, is_tick = (
                torch.randn(3, max(counts), config.width),
                np.arange(max(counts))[None].repeat(3, 0) % 2 == 0,
            )
            h, state = kv_cache.step(one, x, counts, is_tick, state)
            hidden += [h[slot, :count] for slot, count in enumerate(counts)]
        for after in ("prompt", "all"):
            hidden.append(
                kv_cache.consider(one, torch.randn(3, config.width), [-1, 0, 0], state, 1, after)
            )
        found.append((torch.cat(hidden), one.logits(torch.cat(hidden)).detach()))
    close(found[1][0], found[0][0], least)
    close(found[1][1], found[0][1], least)
    assert found[1][1].shape == found[0][1].shape


def test_draft():
    torch.manual_seed(0)
    plain = Draft(DraftConfig(width=24, hidden=40)).eval()
    torch.nn.init.normal_(plain.down.weight)
    compiled = compile_draft(copy.deepcopy(plain))
    hidden, x = torch.randn(3, 24), torch.randn(3, 24)
    close(compiled(hidden, x), rounded(plain, ("gate_up", "down"))(hidden, x).detach(), 1e-3)


def test_encoder():
    """Longer than its window, two slots, one of which begins anew."""
    torch.manual_seed(0)
    config = encoder.EncoderConfig(width=32, layers=2, heads=2, window=16)
    plain = encoder.Encoder(config).eval()
    for block in plain.blocks:
        torch.nn.init.normal_(block.distance_bias)
    compiled = compile_encoder(copy.deepcopy(plain))
    plain, found = rounded(plain, ("qkv", "out", "up", "down", "conv")), []
    mel = torch.randn(2, 8 * MEL_FRAMES_PER_TICK, BANDS)
    for one in (plain, compiled):
        state, heard = one.initial_state(2), []
        for tick, part in enumerate(mel.split(MEL_FRAMES_PER_TICK, 1)):
            if tick == 3:
                encoder.reset(state, [1])
            (features, phones), state = one.step(part, state)
            heard.append(torch.cat([features.flatten(1), phones.flatten(1)], 1).detach())
        found.append(torch.cat(heard, 1))
    close(found[1], found[0], 1e-3)


@pytest.mark.parametrize(
    ("temperature", "cache", "least"),
    [(0.0, torch.float32, 1e-3), (0.6, torch.float32, 1e-3), (0.6, torch.bfloat16, 2e-2)],
)
def test_talker(temperature, cache, least):
    """The same codes from the same random numbers, and silence where it is forced."""
    torch.manual_seed(0)
    config = talker.TalkerConfig(
        phone_width=16, width=32, layers=2, heads=2, hidden=48, code_width=16, codebooks=4, codebook_size=48, drawn_codebooks=3,
        window_frames=24, temperature_first=temperature, temperature_rest=temperature, top_k=7,
    )  # fmt: skip
    model = talker.Talker(config).eval()
    model.silence_codes.copy_(torch.tensor([3, 1, 2, 0]))
    compiled, plain = compile_talker(copy.deepcopy(model)), copy.deepcopy(model)
    for name in ("inner", "outer"):  # applied from the other side
        parameter = getattr(plain.head, name)
        step = parameter.data.abs().amax(1, keepdim=True) / 127
        parameter.data = torch.round(parameter.data / step) * step
    joined = torch.cat([plain.history_in.weight, plain.condition_in.weight], 1).data
    step = joined.abs().amax(1, keepdim=True) / 127
    plain.history_in.weight.data, plain.condition_in.weight.data = (
        torch.round(joined / step) * step
    ).chunk(2, 1)
    plain = rounded(
        plain, ("qkv", "out.", "gate_up", "down", "head_in", "head_condition", "head_previous")
    )
    ring = config.window + 1
    shape = (config.layers, 3, config.heads, ring, config.width // config.heads)
    caches = [
        (torch.zeros(shape, dtype=kind), torch.zeros(shape, dtype=kind))
        for kind in (torch.float32, cache)
    ]
    visible, histories, same = (
        torch.zeros(3, 1, 2, ring, dtype=torch.bool),
        torch.zeros(3, 2, 2 * config.code_width),
        [],
    )
    for step in range(0, 30, 2):  # two patches at once
        places = torch.tensor([step, step + 1]) % ring
        visible[..., places[0]], visible[:, :, 1, places[1]], visible[:, :, 0, places[1]] = (
            True,
            True,
            False,
        )
        forced = torch.tensor([[False, False], [step % 3 == 0, False], [True, True]])
        forced_both = forced[:, None].expand(3, 2, 2).contiguous()
        conditions, uniform = (
            torch.randn(3, 2, 2, config.code_width),
            torch.rand(3, 2, config.drawn),
        )
        with torch.no_grad():
            given, rows = (
                (histories, conditions, forced_both, plain.rotary[step : step + 2]),
                (visible, places),
            )
            hidden, our_hidden = (
                of.states(*given, *both, *rows)
                for of, both in zip((plain, compiled), caches, strict=True)
            )
            close(our_hidden[:2], hidden[:2], least)
            given = hidden[:, 1], conditions[:, 1], uniform, forced
            (codes, sums), (our_codes, our_sums) = (
                of.draw_patch(*given) for of in (plain, compiled)
            )
        same.append((codes == our_codes).all(-1))
        assert torch.equal(our_codes[forced], model.silence_codes[:3].expand(int(forced.sum()), 3))
        torch.testing.assert_close(our_sums.view(3, 2, -1), model.embed(our_codes).sum(2))
        histories = torch.stack([histories[:, 1], sums], 1)  # both go on from the same
    assert torch.stack(same).float().mean() > 0.95  # a draw on a border may fall to the other side
    keys = (
        caches[1][0].view(*shape[:3], shape[4], ring).transpose(-1, -2)
    )  # cell beside cell in the compiled one's memory
    close(keys[:, :2], caches[0][0][:, :2], least)
    close(caches[1][1][:, :2], caches[0][1][:, :2], least)


@pytest.mark.parametrize("kind", ["spread", "ties", "equal", "below zero"])
def test_draws_are_those_of_the_whole_list(kind):
    """Whatever the logits are like, looking at the best alone draws what sorting all of them does."""
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((200, 300)) * rng.uniform(0.1, 9, (200, 1))).astype(np.float32)
    logits = {
        "spread": logits,
        "ties": logits.round(),
        "equal": np.ones_like(logits),
        "below zero": logits - 50,
    }[kind]
    uniform, best = rng.random(200, np.float32), np.empty(30, np.int64)
    ours = [
        draw(row, np.float32(0.7), 30, share, best)
        for row, share in zip(logits, uniform, strict=True)
    ]
    order = np.argsort(-logits, axis=1, kind="stable")[:, :30]  # of equal ones the first
    shares = (
        torch.from_numpy(np.take_along_axis(logits, order, 1))
        .div(0.7)
        .softmax(-1)
        .cumsum(-1)
        .numpy()
    )
    expected = [
        row[(share < u * share[-1]).sum()]
        for row, share, u in zip(order, shares, uniform, strict=True)
    ]
    assert (
        np.mean(np.array(ours) == expected) > 0.98
    )  # a draw on a border may fall to the other side


def test_vocoder():
    """In pieces, two rows."""
    torch.manual_seed(0)
    plain = vocoder.FrameDecoder(16, 32, 2, 7).eval()
    for block in plain.blocks:
        torch.nn.init.normal_(block.layer_scale)
    compiled = compile_vocoder(copy.deepcopy(plain))
    for block in plain.blocks:  # the scale is rounded with the weights
        block.down.weight.data *= block.layer_scale.data[:, None]
        block.down.bias.data *= block.layer_scale.data
        block.layer_scale.data.fill_(1.0)
    plain = rounded(plain, ("linear.weight", "up.weight", "down.weight", "to_spectrum.weight"))
    found, latent = [], torch.randn(2, 24, 16)
    for one in (plain, compiled):
        histories, parts = one.initial_state(2).histories, []
        for part in latent.split([6, 1, 11, 6], 1):
            x, spectrum, histories = one.network(part, histories)
            parts.append(torch.cat([x, spectrum], -1).detach())
        found.append(torch.cat(parts, 1))
    close(found[1], found[0], 1e-3)
