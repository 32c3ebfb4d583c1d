"""DINOv2's weights: the published layout, damaged files, and the network against transformers."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxdog.metrics.backbones import dinov2, dinov2_weights
from jaxdog.utils import errors
from tests import oracles
from tests.metrics.backbones import test_dinov2

TINY = test_dinov2.TINY


def tensors(plan: dinov2.Plan, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors named as in the published file. Tokens are small, so that a norm's epsilon counts."""
    draw, d = np.random.default_rng(seed), plan.width

    def normal(*shape: int, scale: float = 0.1) -> np.ndarray:
        return (draw.standard_normal(shape, np.float32) * scale).astype(np.float32)

    drawn = {
        "embeddings.cls_token": normal(1, 1, d, scale=1e-3),
        "embeddings.mask_token": normal(1, d),
        "embeddings.patch_embeddings.projection.weight": normal(d, 3, 14, 14, scale=1e-4),
        "embeddings.patch_embeddings.projection.bias": normal(d, scale=1e-3),
        "embeddings.position_embeddings": normal(1, 37 * 37 + 1, d, scale=1e-3),
        "layernorm.weight": 1 + normal(d),
        "layernorm.bias": normal(d),
    }
    for i in range(plan.depth):
        at = f"encoder.layer.{i}"
        for name in ("attention.attention.query", "attention.attention.key", "attention.attention.value"):
            drawn |= {f"{at}.{name}.weight": normal(d, d, scale=d**-0.5), f"{at}.{name}.bias": normal(d)}
        for name, rows, columns in (
            ("attention.output.dense", d, d),
            ("mlp.fc1", 4 * d, d),
            ("mlp.fc2", d, 4 * d),
        ):
            drawn[f"{at}.{name}.weight"] = normal(rows, columns, scale=columns**-0.5)
            drawn[f"{at}.{name}.bias"] = normal(rows)
        for j in (1, 2):
            drawn[f"{at}.norm{j}.weight"], drawn[f"{at}.norm{j}.bias"] = 1 + normal(d), normal(d)
            drawn[f"{at}.layer_scale{j}.lambda1"] = normal(d, scale=0.5)
    return drawn


def write(folder: pathlib.Path, plan: dinov2.Plan, drawn: dict[str, np.ndarray]) -> pathlib.Path:
    """A folder as on the Hub; returns the path of the weights."""
    config = {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": plan.width,
        "num_hidden_layers": plan.depth,
        "num_attention_heads": plan.heads,
        "image_size": 518,
        "patch_size": 14,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-06,
        "mlp_ratio": 4,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(drawn, folder / "model.safetensors", metadata={"format": "pt"})
    return folder / "model.safetensors"


def test_published_files():
    """Their sizes are those of their tensors, in float32, and a header."""
    for plan, remote in dinov2_weights.PUBLISHED.items():
        count = sum(int(np.prod(shape)) for shape in dinov2_weights.published_shapes(plan).values())
        assert 20_000 < remote.size - 4 * (count + plan.width) < 50_000
        assert re.fullmatch(r"[0-9a-f]{64}", remote.sha256)
        assert re.fullmatch(
            rf"https://huggingface\.co/facebook/{remote.name[:-12]}/resolve/[0-9a-f]{{40}}/model\.safetensors",
            remote.url,
        )


def test_load(tmp_path, monkeypatch):
    drawn = tensors(TINY)
    assert dinov2_weights.published_shapes(TINY) == {
        name: x.shape for name, x in drawn.items() if "mask" not in name
    }
    path = write(tmp_path, TINY, drawn)
    loaded = dinov2_weights.load(path, TINY)
    made = jax.tree.map(np.shape, loaded.params)
    expected = jax.tree.map(np.shape, dinov2_weights.random(TINY).params)
    assert made == expected and loaded.kind == "other" and loaded.source == str(path)
    block, d = loaded.params["blocks"], TINY.width
    for i, name in enumerate(("query", "key", "value")):
        kernel = drawn[f"encoder.layer.2.attention.attention.{name}.weight"]
        np.testing.assert_array_equal(block["qkv"]["kernel"][2, :, i * d : (i + 1) * d], kernel.T)
    remote = dinov2_weights.PUBLISHED[dinov2.LARGE]._replace(sha256=loaded.sha256)
    monkeypatch.setitem(dinov2_weights.PUBLISHED, TINY, remote)
    assert dinov2_weights.load(path, TINY).kind == "published"


WRONG = {
    "missing": (lambda x: x.pop("layernorm.bias"), "it has no tensor 'layernorm.bias' of shape (24,)"),
    "shape": (
        lambda x: x.update({"encoder.layer.1.mlp.fc1.bias": np.zeros(95, np.float32)}),
        "its tensor 'encoder.layer.1.mlp.fc1.bias' has shape (95,), expected (96,)",
    ),
    "nan": (
        lambda x: x.update({"embeddings.cls_token": np.full((1, 1, 24), np.nan, np.float32)}),
        "'embeddings.cls_token' has values other than finite floats",
    ),
    "large": (lambda x: x.update(more=np.zeros(1 << 19, np.float32)), "bytes; the limit is"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_files(tmp_path, wrong):
    change, message = WRONG[wrong]
    drawn = tensors(TINY)
    change(drawn)
    with pytest.raises(errors.UserError, match=re.escape(message)) as caught:
        dinov2_weights.load(write(tmp_path, TINY, drawn), TINY)
    assert "cannot be used as DINOv2 weights" in str(caught.value) and "Accepted are" in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(
        errors.MissingFileError, match="no such file. Accepted are the published dinov2-large"
    ):
        dinov2_weights.load(tmp_path / "nowhere.safetensors")
    path = write(tmp_path, TINY, tensors(TINY))
    content = path.read_bytes()
    for damaged in (b"", b"hello", content[:-1], content[:1000], b"\xff" * 8 + content[8:]):
        path.write_bytes(damaged)
        with pytest.raises(errors.UserError, match="it is damaged, or no safetensors file"):
            dinov2_weights.load(path, TINY)


def test_random_is_the_same_everywhere():
    weights = dinov2_weights.random(TINY)
    assert weights.kind == "random"
    assert weights.sha256 == "cd859ea9823689f711c74ffe571452a9a0b990a90735e3335dc6feb4c534dd9a"


def test_positions_are_samples_of_the_trained_ones():
    """A ramp, which this kernel keeps within 0.05, is sampled every 37 / 16.1 patches, as in the original."""
    row, column = np.mgrid[:37, :37].astype(np.float32)
    grid = np.stack([row, column], axis=-1).reshape(-1, 2)
    position = dinov2_weights.interpolate(np.concatenate([[[7.0, 8.0]], grid]).astype(np.float32))
    np.testing.assert_array_equal(position[0], [7, 8])
    np.testing.assert_allclose(dinov2_weights.interpolate(np.ones((1370, 2), np.float32)), 1, rtol=1e-6)
    at = (np.arange(16) + 0.5) * 37 / 16.1 - 0.5
    sampled = position[1:].reshape(16, 16, 2)
    np.testing.assert_allclose(sampled[1:-1, 3, 0], at[1:-1], atol=0.05)
    np.testing.assert_allclose(sampled[3, 1:-1, 1], at[1:-1], atol=0.05)


@pytest.mark.oracle
def test_positions_against_torch():
    """As the original calls it: with a scale, not a size; transformers' call gives others."""
    torch = pytest.importorskip("torch", reason="torch is an oracle (make oracles)")
    position = np.random.default_rng(0).standard_normal((1370, 8), np.float32)
    grid = torch.from_numpy(position[1:].reshape(1, 37, 37, 8).transpose(0, 3, 1, 2).copy())
    resize = torch.nn.functional.interpolate

    def tokens(x):
        return x.numpy().transpose(0, 2, 3, 1).reshape(256, 8)

    original = tokens(resize(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic"))
    np.testing.assert_allclose(dinov2_weights.interpolate(position)[1:], original, atol=1e-4)
    other = tokens(resize(grid, size=(16, 16), mode="bicubic", align_corners=False))
    np.testing.assert_allclose(dinov2_weights.interpolate(position, 0)[1:], other, atol=1e-4)
    assert np.abs(original - other).mean() > 0.01


@pytest.mark.oracle
@pytest.mark.parametrize(
    "plan", [TINY, pytest.param(dinov2.SMALL, marks=pytest.mark.long)], ids=["tiny", "S"]
)
def test_block_by_block_against_transformers(tmp_path, plan):
    """From the file on: names, layouts, every block, the last norm; with the positions of the original."""
    torch, transformers = oracles.transformers()
    path = write(tmp_path, plan, tensors(plan))
    weights = dinov2_weights.load(path, plan)
    model = transformers.Dinov2Model.from_pretrained(tmp_path).eval()
    assert all(not x.is_meta for x in model.parameters())
    position = torch.from_numpy(weights.params["position"])[None]
    model.embeddings.position_embeddings = torch.nn.Parameter(position)
    image = dinov2.preprocess(test_dinov2.noise(64, 64))
    with torch.no_grad():
        pixels = torch.from_numpy(np.asarray(image).transpose(0, 3, 1, 2).copy())
        theirs = model(pixels, output_hidden_states=True)
    network = dinov2.DINOv2(plan)
    run = jax.jit(lambda params, x: network.apply({"params": params}, x, mutable=["intermediates"]))
    ours, made = run(weights.params, image)
    blocks = made["intermediates"]["blocks"]["block"][0]
    assert len(theirs.hidden_states) == plan.depth + 1
    for i, expected in enumerate(theirs.hidden_states[1:]):
        scale = float(expected.abs().max())
        np.testing.assert_allclose(blocks[i], expected.numpy(), atol=2e-5 * scale, err_msg=f"block {i}")
    np.testing.assert_allclose(ours["class_token"], theirs.last_hidden_state[:, 0].numpy(), atol=1e-4)
    np.testing.assert_array_equal(theirs.last_hidden_state[:, 0], theirs.pooler_output)
