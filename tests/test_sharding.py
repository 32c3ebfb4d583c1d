"""Sharding of a training step over devices changes the placement of arrays, not the results."""

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
from jaxdog.config import build, library, schema
from jaxdog.ops import conv
from jaxdog.systems import gan, gan_forward
from jaxdog.training import checkpoint, train_step
from jaxdog.utils import errors
from tests.systems import test_gan, test_systems


def config(**changes: Any) -> schema.Experiment:
    given = library.load("lsgan_sn:test")  # compiles fast
    given.update_from_flattened_dict({"data.select": {}, **changes})
    return build.check(given)


def steps(
    functions: train_step.CompiledPhase, data: Any, count: int, state: Any = None
) -> tuple[Any, list[Any]]:
    """The state after `count` steps, and their scalars."""
    state, history = functions.init(data) if state is None else state, []
    for _ in range(count):
        state, scalars = functions.train_steps(state, data, 0.0)
        history.append(jax.tree.map(lambda x: np.asarray(x)[0], scalars))
    return state, history


@pytest.fixture(scope="module")
def replicated() -> tuple[Any, Any, list[Any]]:
    """Training set, state after two steps, their scalars; the state is replicated."""
    checked, mesh = config(), sharding.make_mesh()
    phase = build.phases(checked, test_systems.CLASSES)[0]
    data = test_systems.toy_data(checked, mesh)
    return data, *steps(train_step.CompiledPhase(phase, 0, 1, mesh), data, 2)


def bytes_on_first_device(state: Any) -> int:
    """Bytes of a state on the first device."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))


def test_fsdp_shards_large_arrays_along_their_longest_divisible_axis() -> None:
    mesh = sharding.make_mesh()
    shapes = {
        "kernel": jax.ShapeDtypeStruct((3, 3, 64, 32), jnp.float32),
        "odd": jax.ShapeDtypeStruct((101, 103), jnp.float32),
        "small": jax.ShapeDtypeStruct((64,), jnp.float32),
        "square": jax.ShapeDtypeStruct((64, 64), jnp.float32),
    }
    found = {name: x.spec for name, x in sharding.state_shardings(shapes, mesh, fsdp=True).items()}
    assert found == {"kernel": P(None, None, "data"), "odd": P(), "small": P(), "square": P(None, "data")}
    assert {x.spec for x in sharding.state_shardings(shapes, mesh, fsdp=False).values()} == {P()}


@pytest.mark.long
def test_fsdp_learns_the_same_with_less_memory(
    replicated: tuple[Any, Any, list[Any]], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, state, history = replicated
    monkeypatch.setattr(sharding, "MIN_SHARDED_SIZE", 2**6)  # these networks are small
    mesh, phase = sharding.make_mesh(), build.phases(config(), test_systems.CLASSES)[0]
    functions = train_step.CompiledPhase(phase, 0, 1, mesh, fsdp=True)
    sharded, again = steps(functions, data, 2)
    assert functions.train_steps._cache_size() == 1
    assert bytes_on_first_device(sharded) < 0.5 * bytes_on_first_device(state)
    for one, two in zip(history, again, strict=True):
        chex.assert_trees_all_close(one, two, rtol=1e-4, atol=1e-5)
    kept = checkpoint.Checkpoints(tmp_path, 1, 1, "fid768")
    kept.save(2, sharded, 1.0)
    kept.wait()
    alone = Mesh(np.array(jax.devices()[:1]), ("data",))
    shape = data.image.shape[1:]
    on_one, _ = train_step.restore(kept, [phase], 2, shape, alone)
    back, _ = train_step.restore(kept, [phase], 2, shape, mesh, fsdp=True)
    kept.close()
    chex.assert_trees_all_equal(jax.device_get(on_one), jax.device_get(sharded))
    assert jax.tree.map(lambda x: x.sharding, back) == jax.tree.map(lambda x: x.sharding, sharded)
    # Continues with the same shardings, without another compilation.
    steps(functions, data, 1, back)
    assert functions.train_steps._cache_size() == 1


@pytest.mark.long
def test_remat_does_not_change_gradients(replicated: tuple[Any, Any, list[Any]]) -> None:
    data, _, history = replicated
    phase = build.phases(config(**{"parallel.remat": True}), test_systems.CLASSES)[0]
    _, again = steps(train_step.CompiledPhase(phase, 0, 1, sharding.make_mesh()), data, 2)
    for one, two in zip(history, again, strict=True):
        chex.assert_trees_all_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_remat_keeps_fewer_residuals_in_every_gan() -> None:
    """Bytes of residuals of each network's forward pass, as traced."""
    seen = set()
    for name in library.names():
        checked = build.check(library.load(name, "test"))
        networks = checked.generator.get("name"), checked.discriminator.get("name")
        if not isinstance(checked.system, schema.GAN | schema.Progressive) or networks in seen:
            continue
        seen.add(networks)
        kept = {remat: _residuals(checked, remat) for remat in (False, True)}
        for player in kept[False]:
            assert kept[True][player] < 0.8 * kept[False][player], (name, player, kept)


def _residuals(checked: schema.Experiment, remat: bool) -> dict[str, int]:
    systems = importlib.import_module("jaxdog.config.systems")
    spec = systems._gan_spec(checked._replace(parallel=checked.parallel._replace(remat=remat)), 3, 0.5)
    b, of = 8, jax.ShapeDtypeStruct
    label, z = of((b,), jnp.int32), of((b, spec.latent_dim), jnp.float32)
    image = of((b, checked.system.resolution, checked.system.resolution, 3), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), b))
    found = {}
    for name, network, inputs, named in (
        ("g", spec.generator, (z, label), {"key": keys}),
        ("d", spec.discriminator, (image, label), {}),
    ):
        init = partial(network.init, train=False)
        variables = jax.eval_shape(
            lambda *x, init=init, named=named: init(jax.random.key(0), *x, **named), *inputs
        )

        def back(variables: Any, inputs: Any, named: Any, network: Any = network) -> Any:
            stats = {k: v for k, v in variables.items() if k != "params"}
            extra = {**named, "rngs": {"dropout": jax.random.key(0)}}

            def forward(params: Any, *inputs: Any) -> Any:
                out, _ = gan_forward.apply_network(
                    spec, network, params, stats, *inputs, update_state=False, **extra
                )
                return jax.tree.leaves(out)[0].sum()

            return jax.vjp(forward, variables["params"], *inputs[:1], *inputs[1:])[1]

        residuals = jax.eval_shape(back, variables, inputs, named)
        given = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(variables))
        total = sum(
            x.size * x.dtype.itemsize for x in jax.tree.leaves(residuals) if hasattr(x.dtype, "itemsize")
        )
        found[name] = max(total - given, 0)
    return found


@pytest.mark.long
def test_per_device_steps_average_the_gradients() -> None:
    """SGD is linear in the gradient: four devices' parameters are the mean of four runs on their rows."""
    mesh, b = sharding.make_mesh(), 16
    played = test_gan.spec(d_optimizer=optax.sgd(0.0))  # so that the generator's lesson is the same, too
    batch, key = test_gan.batch(b), jax.random.key(5)
    for player, spec in (("g", played), ("d", played._replace(d_optimizer=optax.sgd(0.1)))):
        alone = gan.gan(spec)
        apart = gan.gan(spec._replace(axis=types.DATA_AXIS))
        assert apart.per_device and not alone.per_device
        state = alone.init(jax.random.key(1), batch)
        rows = P(), P(sharding.AXIS), P()
        step = jax.jit(jax.shard_map(apart.step, mesh=mesh, in_specs=rows, out_specs=P(), check_vma=False))
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


@pytest.mark.long
def test_batch_norm_per_device_trains(replicated: tuple[Any, Any, list[Any]]) -> None:
    data, _, history = replicated
    phase = build.phases(config(**{"parallel.sync_batch_norm": False}), test_systems.CLASSES)[0]
    functions = train_step.CompiledPhase(phase, 0, 1, sharding.make_mesh())
    state, again = steps(functions, data, 2)
    chex.assert_tree_all_finite((jax.device_get(state), again))
    assert int(state.step) == 2 and functions.train_steps._cache_size() == 1
    assert abs(float(again[1]["loss/d"]) - float(history[1]["loss/d"])) > 1e-6


def test_batches_that_devices_do_not_divide_are_refused() -> None:
    phase = build.phases(config(**{"parallel.sync_batch_norm": False, "system.batch_size": 6}), 3)[0]
    with pytest.raises(ValueError, match="system.batch_size a multiple of"):
        train_step.CompiledPhase(phase, 0, 1, sharding.make_mesh())


@pytest.mark.parametrize(("field", "value"), [("sync_batch_norm", False), ("remat", True)])
def test_gan_only_fields_are_refused_elsewhere(field: str, value: bool) -> None:
    given = library.load("vae:test")
    given.parallel[field] = value
    with pytest.raises(
        errors.ConfigError, match=f"config.parallel.{field} is {value}, and is for two-player"
    ):
        build.check(given)


@pytest.mark.long
def test_the_work_of_a_step_is_split_over_the_devices() -> None:
    """Each of four devices does a quarter of the operations."""
    phase = build.phases(config(), test_systems.CLASSES)[0]
    one = Mesh(np.array(jax.devices()[:1]), (sharding.AXIS,))
    alone, shared = (cost.step_cost(config(), phase, mesh).flops for mesh in (one, sharding.make_mesh()))
    assert shared < 0.35 * alone


def test_all_reduce_is_the_only_collective() -> None:
    """No collective is in a loop: each device computes the batch's indices, as CPU devices can deadlock."""
    experiment = config(**{"system.split_d": False})
    phase = build.phases(experiment, test_systems.CLASSES)[0]
    _, step = cost.lower_step(phase, experiment.data.stored_resolution, sharding.make_mesh())
    text = step.compile().as_text()
    computations = dict(re.findall(r"^(?:ENTRY )?%(\S+) .*?\{\n(.*?)^\}", text, re.M | re.S))
    loops = re.findall(r" while\(.*condition=%([\w.-]+), body=%([\w.-]+)", text)
    assert loops and set(scaling.collectives(text)) == {"all-reduce"}
    assert not [name for loop in loops for name in loop if scaling.collectives(computations[name])]


def test_factorizations_for_tpus_run_on_the_host_if_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    tpu: Any = stdlib_types.SimpleNamespace(
        devices=np.array([stdlib_types.SimpleNamespace(platform="tpu")] * 2)
    )
    assert sharding.factorization_mesh(sharding.make_mesh()) == sharding.make_mesh()
    assert sharding.factorization_mesh(tpu) == Mesh(np.array(jax.devices("cpu")[:1]), (sharding.AXIS,))

    def none(backend: str) -> None:
        raise RuntimeError(f"unknown backend: '{backend}'")

    monkeypatch.setattr(jax, "local_devices", none)
    assert sharding.factorization_mesh(tpu) is tpu and sharding.host_cpu() is None


@pytest.mark.long
def test_inference_convolutions_use_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """On jaxlib 0.10, where YNNPACK runs convolutions on one core; XLA_FLAGS takes precedence."""
    x, kernel = jnp.ones((8, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
    old = jaxlib.__version__.startswith("0.10.")
    # The text holds the names of the functions on the stack: none of them may contain "ynn".
    plain = jax.jit(conv.conv2d).lower(x, kernel).compile().as_text()
    ours = sharding.jit_replicated(conv.conv2d, sharding.make_mesh()).lower(x, kernel).compile().as_text()
    assert not old or ("ynn" in plain and "ynn" not in ours)
    assert (sharding.compiler_options() is not None) == old
    monkeypatch.setenv("XLA_FLAGS", f"--{sharding.YNNPACK_FLAG}=LIBRARY_FUSION_TYPE_DOT")
    assert sharding.compiler_options() is None
