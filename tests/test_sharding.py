"""How a step's memory and work are shared out: it changes where things are, not what is learnt."""

import importlib
import pathlib
import re
import types as stdlib_types
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from experiments.bench import scaling
from jaxdog import cost, sharding, types
from jaxdog.config import build, schema
from jaxdog.ops import conv
from jaxdog.systems import gan
from jaxdog.training import checkpoint, train_step
from tests.config import test_build
from tests.systems import test_gan, test_systems

PATH = test_build.ROOT / "configs" / "lsgan_sn.py"  # compiled soon


def config(**changes: Any) -> schema.Checked:
    given = test_build.load(PATH).get_config("test")
    given.update_from_flattened_dict({"data.curate": {}, **changes})
    return build.check(given)


def steps(functions: train_step.Compiled, data: Any, count: int, state: Any = None) -> tuple[Any, list[Any]]:
    """The state after so many steps, and their numbers."""
    state, said = functions.init(data) if state is None else state, []
    for _ in range(count):
        state, scalars = functions.dispatch(state, data, 0.0)
        said.append(jax.tree.map(lambda x: np.asarray(x)[0], scalars))
    return state, said


@pytest.fixture(scope="module")
def whole() -> tuple[Any, Any, list[Any]]:
    """The set, the state after two steps of the toy, and what they said; the state whole on each device."""
    checked, over = config(), sharding.mesh()
    phase = build.phases(checked, test_systems.CLASSES)[0]
    data = test_systems.toy_data(checked, over)
    return data, *steps(train_step.compiled(phase, 0, 1, over), data, 2)


def mine(state: Any) -> int:
    """Bytes of a state on the first device."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))


def test_large_arrays_are_cut_along_their_longest_even_axis() -> None:
    over = sharding.mesh()
    shapes = {
        "kernel": jax.ShapeDtypeStruct((3, 3, 64, 32), jnp.float32),
        "odd": jax.ShapeDtypeStruct((101, 103), jnp.float32),
        "small": jax.ShapeDtypeStruct((64,), jnp.float32),
        "square": jax.ShapeDtypeStruct((64, 64), jnp.float32),
    }
    found = {name: x.spec for name, x in sharding.placed(shapes, over, deal=True).items()}
    assert found == {"kernel": P(None, None, "data"), "odd": P(), "small": P(), "square": P(None, "data")}
    assert {x.spec for x in sharding.placed(shapes, over, deal=False).values()} == {P()}


def test_a_state_dealt_out_learns_the_same_with_less_memory(
    whole: tuple[Any, Any, list[Any]], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, state, said = whole
    monkeypatch.setattr(sharding, "LEAST", 2**6)  # these networks are small
    over, phase = sharding.mesh(), build.phases(config(), test_systems.CLASSES)[0]
    functions = train_step.compiled(phase, 0, 1, over, deal_state=True)
    dealt, again = steps(functions, data, 2)
    assert functions.dispatch._cache_size() == 1
    assert mine(dealt) < 0.5 * mine(state)
    for one, two in zip(said, again, strict=True):
        chex.assert_trees_all_close(one, two, rtol=1e-4, atol=1e-5)
    kept = checkpoint.Checkpoints(tmp_path, 1, 1, "fid768")
    kept.save(2, dealt, {"seconds": 1.0})
    kept.wait()
    alone = Mesh(np.array(jax.devices()[:1]), ("data",))
    shape = data.image.shape[1:]
    on_one, _ = train_step.restore(kept, [phase], 2, shape, alone)
    back, _ = train_step.restore(kept, [phase], 2, shape, over, deal_state=True)
    kept.close()
    chex.assert_trees_all_equal(jax.device_get(on_one), jax.device_get(dealt))
    assert jax.tree.map(lambda x: x.sharding, back) == jax.tree.map(lambda x: x.sharding, dealt)
    # Goes on where it was, without another compilation.
    steps(functions, data, 1, back)
    assert functions.dispatch._cache_size() == 1


def test_blocks_made_again_change_no_gradient(whole: tuple[Any, Any, list[Any]]) -> None:
    data, _, said = whole
    phase = build.phases(config(**{"devices.remat": True}), test_systems.CLASSES)[0]
    _, again = steps(train_step.compiled(phase, 0, 1, sharding.mesh()), data, 2)
    for one, two in zip(said, again, strict=True):
        chex.assert_trees_all_close(one, two, rtol=1e-4, atol=1e-5)


def test_every_network_of_two_players_keeps_less_where_blocks_are_made_again() -> None:
    """Bytes that the backward pass of each network is given, as traced."""
    seen = set()
    for path in test_build.CONFIGS:
        checked = build.check(test_build.load(path).get_config("test"))
        networks = checked.generator.get("name"), checked.discriminator.get("name")
        if not isinstance(checked.game, schema.Game | schema.Progressive) or networks in seen:
            continue
        seen.add(networks)
        kept = {remat: _residuals(checked, remat) for remat in (False, True)}
        for player in kept[False]:
            assert kept[True][player] < 0.8 * kept[False][player], (path.stem, player, kept)


def _residuals(checked: schema.Checked, remat: bool) -> dict[str, int]:
    games = importlib.import_module("jaxdog.config.systems")
    game = games._played(checked._replace(devices=checked.devices._replace(remat=remat)), 3, 0.5)
    b, of = 8, jax.ShapeDtypeStruct
    label, z = of((b,), jnp.int32), of((b, game.latent_dim), jnp.float32)
    image = of((b, checked.game.size, checked.game.size, 3), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), b))
    found = {}
    for name, network, inputs, named in (
        ("g", game.generator, (z, label), {"key": keys}),
        ("d", game.discriminator, (image, label), {}),
    ):
        init = partial(network.init, train=False)
        variables = jax.eval_shape(
            lambda *x, init=init, named=named: init(jax.random.key(0), *x, **named), *inputs
        )

        def back(variables: Any, inputs: Any, named: Any, network: Any = network) -> Any:
            stats = {k: v for k, v in variables.items() if k != "params"}
            extra = {**named, "rngs": {"dropout": jax.random.key(0)}}

            def forward(params: Any, *inputs: Any) -> Any:
                out, _ = gan._forward(game, network, params, stats, *inputs, update=False, **extra)
                return jax.tree.leaves(out)[0].sum()

            return jax.vjp(forward, variables["params"], *inputs[:1], *inputs[1:])[1]

        residuals = jax.eval_shape(back, variables, inputs, named)
        given = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(variables))
        total = sum(
            x.size * x.dtype.itemsize for x in jax.tree.leaves(residuals) if hasattr(x.dtype, "itemsize")
        )
        found[name] = max(total - given, 0)
    return found


def test_devices_apart_take_the_mean_of_what_each_would_do_alone() -> None:
    """SGD is linear in the gradient: four devices' parameters are the mean of four runs on their rows."""
    over, b = sharding.mesh(), 16
    played = test_gan.game(d_optimizer=optax.sgd(0.0))  # so that the generator's lesson is the same, too
    batch, key = test_gan.batch(b), jax.random.key(5)
    for player, game in (("g", played), ("d", played._replace(d_optimizer=optax.sgd(0.1)))):
        alone = gan.gan(game)
        apart = gan.gan(game._replace(axis=types.DEVICES))
        assert apart.apart and not alone.apart
        state = alone.init(jax.random.key(1), batch)
        rows = P(), P(sharding.AXIS), P()
        step = jax.jit(jax.shard_map(apart.step, mesh=over, in_specs=rows, out_specs=P(), check_vma=False))
        together, scalars = step(state, batch, key)
        each = [
            alone.step(
                state, jax.tree.map(lambda x, i=i: x[4 * i : 4 * i + 4], batch), jax.random.fold_in(key, i)
            )
            for i in range(4)
        ]
        mean = jax.tree.map(lambda *x: sum(x) / 4, *[getattr(s, player).params for s, _ in each])
        chex.assert_trees_all_close(getattr(together, player).params, mean, rtol=1e-5, atol=1e-6)
        expected = sum(s[f"loss/{player}"] for _, s in each) / 4
        np.testing.assert_allclose(scalars[f"loss/{player}"], expected, rtol=1e-5)
        other = jax.tree.map(lambda x: np.ptp(np.asarray(x)), [s.g.params for s, _ in each])
        assert jax.tree.leaves(other)  # something was learnt


def test_own_statistics_train(whole: tuple[Any, Any, list[Any]]) -> None:
    data, _, said = whole
    phase = build.phases(config(**{"devices.own_statistics": True}), test_systems.CLASSES)[0]
    functions = train_step.compiled(phase, 0, 1, sharding.mesh())
    state, again = steps(functions, data, 2)
    chex.assert_tree_all_finite((jax.device_get(state), again))
    assert int(state.step) == 2 and functions.dispatch._cache_size() == 1
    assert abs(float(again[1]["loss/d"]) - float(said[1]["loss/d"])) > 1e-6


def test_batches_that_devices_cannot_share_are_refused() -> None:
    phase = build.phases(config(**{"devices.own_statistics": True, "game.batch_size": 6}), 3)[0]
    with pytest.raises(ValueError, match="game.batch_size a multiple of"):
        train_step.compiled(phase, 0, 1, sharding.mesh())


@pytest.mark.parametrize("field", ["own_statistics", "remat"])
def test_what_needs_two_players_says_so(field: str) -> None:
    given = test_build.load(test_build.ROOT / "configs" / "vae.py").get_config("test")
    given.devices[field] = True
    with pytest.raises(schema.ConfigError, match=f"config.devices.{field} is True, and is for games of two"):
        build.check(given)


def test_devices_share_out_all_of_the_work() -> None:
    """Four devices do a quarter of the operations each: none makes the pictures of the others."""
    phase = build.phases(config(), test_systems.CLASSES)[0]
    one = Mesh(np.array(jax.devices()[:1]), (sharding.AXIS,))
    alone, shared = (cost.of_step(config(), phase, over).flops for over in (one, sharding.mesh()))
    assert shared < 0.35 * alone


def test_devices_send_each_other_sums_and_nothing_else() -> None:
    """And none in a loop: each finds a batch's pictures by itself; CPU devices were seen stuck at asking."""
    told = config(**{"game.judge": "jointly"})
    phase = build.phases(told, test_systems.CLASSES)[0]
    _, step = cost.lowered(phase, told.data.store_size, sharding.mesh())
    text = step.compile().as_text()
    computations = dict(re.findall(r"^(?:ENTRY )?%(\S+) .*?\{\n(.*?)^\}", text, re.M | re.S))
    loops = re.findall(r" while\(.*condition=%([\w.-]+), body=%([\w.-]+)", text)
    assert loops and set(scaling.collectives(text)) == {"all-reduce"}
    assert not [name for loop in loops for name in loop if scaling.collectives(computations[name])]


def test_the_host_of_tpus_factors_matrices_if_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    tpu: Any = stdlib_types.SimpleNamespace(
        devices=np.array([stdlib_types.SimpleNamespace(platform="tpu")] * 2)
    )
    assert sharding.for_factors(sharding.mesh()) == sharding.mesh()
    assert sharding.for_factors(tpu) == Mesh(np.array(jax.devices("cpu")[:1]), (sharding.AXIS,))

    def none(backend: str) -> None:
        raise RuntimeError(f"unknown backend: '{backend}'")

    monkeypatch.setattr(jax, "local_devices", none)
    assert sharding.for_factors(tpu) is tpu


def test_a_convolution_after_the_other_is_on_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of YNNPACK as of jaxlib 0.10 they are not, and are left where XLA_FLAGS says what it is to do."""
    x, kernel = jnp.ones((8, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
    old = jaxlib.__version__.startswith("0.10.")
    plain = jax.jit(conv.conv).lower(x, kernel).compile().as_text()
    ours = sharding.compiled(conv.conv, sharding.mesh()).lower(x, kernel).compile().as_text()
    assert not old or ("ynn" in plain and "ynn" not in ours)
    assert (sharding.in_order() is not None) == old
    monkeypatch.setenv("XLA_FLAGS", f"--{sharding.LIBRARY}=LIBRARY_FUSION_TYPE_DOT")
    assert sharding.in_order() is None
