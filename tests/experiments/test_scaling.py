"""Collectives are counted in compiled programs; programs are compiled for devices that are not present."""

import importlib.util

import jax
import numpy as np
import pytest

from experiments import aot
from experiments.bench import scaling
from experiments.tpu import compiles
from jaxdog import sharding
from jaxdog.config import build, library

# Synchronous and asynchronous, of one array and of several.
LINES = {
    "%a = f32[8,4]{1,0} all-reduce(%x), replica_groups={}": ("all-reduce", 128),
    "%b = (bf16[3]{0}, f32[2]{0}) all-reduce(%x, %y), to_apply=%add": ("all-reduce", 14),
    "%c = ((bf16[16]{0}), bf16[16]{0}) all-reduce-start(%x), to_apply=%add": ("all-reduce", 32),
    "%d = (f32[4,2]{1,0}, f32[16,2]{1,0}) all-gather-start(%x), dimensions={0}": ("all-gather", 128),
    "%e = (f32[6]{0}, f32[6]{0}, u32[], u32[]) collective-permute-start(%x)": ("collective-permute", 24),
    "%f = f32[4]{0} all-to-all(%x), dimensions={0}": ("all-to-all", 16),
}
NONE = ("%g = f32[8]{0} all-reduce-done(%c)", "%h = f32[8]{0} add(%x, %all-reduce.3)", "all-reduce of f32[8]")


@pytest.mark.parametrize("line", LINES)
def test_a_collective_counts_once_with_its_result(line: str) -> None:
    kind, size = LINES[line]
    assert scaling.collectives("\n".join((*NONE, line))) == {kind: {"count": 1, "bytes": size}}


def test_a_sum_over_devices_is_found_where_xla_has_put_it() -> None:
    x = jax.ShapeDtypeStruct((8, 6), np.float32, sharding=sharding.batch_sharding(sharding.make_mesh()))
    program = jax.jit(lambda x: x.sum(0)).lower(x).compile().as_text()
    assert scaling.collectives(program) == {"all-reduce": {"count": 1, "bytes": 24}}


def test_what_rings_send() -> None:
    """Each of n devices sends 2 (n - 1) / n of the bytes of an all-reduce, half of that for a gather."""
    row = {
        "flops_of_each": 1e12,
        "collectives": {
            "all-reduce": {"count": 3, "bytes": 100.0},
            "all-gather": {"count": 1, "bytes": 10.0},
        },
    }
    assert scaling.sent(row, 1) == (0.0, 0.0)
    assert scaling.sent(row, 4) == (2 * 75.0 + 7.5, 2 * 9 + 3)
    fabric = ("tpu", 1e13, 0.1, 1e3, 0.0)  # 1 s of computing, 1 KB/s
    assert scaling.efficiency(row, 1, fabric) == 1.0
    assert scaling.efficiency(row, 4, fabric) == pytest.approx(1 / (1 + 0.1575))


@pytest.mark.parametrize(
    ("platform", "count", "message"),
    [("metal", 1, "choices: tpu, cuda"), ("tpu", 3, "3 chips are no slice .* choices: 1, 4, 8")],
)
def test_devices_that_do_not_exist_are_refused(platform: str, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aot.devices(platform, count)


def test_a_program_is_compiled_for_chips_that_are_not_present() -> None:
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install -e '.[tpu]'")
    with aot.target("tpu", 4):
        assert jax.default_backend() == "tpu" and jax.device_count() == 4
        x = jax.ShapeDtypeStruct((8, 128), np.float32, sharding=sharding.batch_sharding(sharding.make_mesh()))
        program = jax.jit(lambda x: x.sum()).lower(x).compile().as_text()
    assert "all-reduce" in scaling.collectives(program)
    assert jax.default_backend() == "cpu"


def test_failures_to_compile_are_listed_with_the_rest() -> None:
    def refused() -> None:
        raise NotImplementedError("no such operation")

    x = jax.ShapeDtypeStruct((4,), np.float32)
    rows = [compiles.row(("one", lambda: jax.jit(lambda x: x + 1).lower(x))), compiles.row(("two", refused))]
    assert rows[0]["collectives"] == {} and "error" not in rows[0]
    lines = compiles.table({"toy": rows}).splitlines()
    assert lines[2].startswith("| toy | one | yes |") and "no: NotImplementedError: no such" in lines[3]


@pytest.mark.parametrize("name", ["progan", "vqvae2"])
def test_every_phase_of_a_config_is_compiled(name: str) -> None:
    """From the initial state to the samples; each phase starts from the state of the one before."""
    config = build.check(library.load(name, "test"))
    found = list(compiles.of_config(name))
    assert [title for title, _ in found] == [phase.name for phase in build.phases(config, compiles.CLASSES)]
    title, parts = found[-1]
    assert [part for part, _ in parts] == ["first state", "step", "samples"]
    assert "func.func public @main" in parts[0][1]().as_text()
