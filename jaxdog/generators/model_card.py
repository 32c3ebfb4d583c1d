"""The model card (README.md) of an exported generator, made from its config and scores."""

from collections.abc import Mapping
from typing import Any

import jinja2

from jaxdog.generators import pretrained

MAX_CLASSES = 200  # more class names are not listed
DATA_TERMS = {  # config.data.source -> the terms of the photos
    "tfds": "Stanford Dogs (Khosla et al. 2011), photos of ImageNet: for non-commercial research.",
    "kaggle": "the competition Generative Dog Images, whose photos are those of Stanford Dogs (Khosla et al. "
    "2011), from ImageNet: for non-commercial research.",
    "folder": "photos of the author. State here where they are from and what their terms are.",
    "toy": "dogs drawn by jaxdog itself, without any terms.",
}
SIDES = ("samples", "real", "network", "weights_kind", "weights_sha256", "resampler", "kimg", "step")


def render(model: pretrained.Pretrained, address: str, dtype: str) -> str:
    """The text of the card.

    Args:
      model: the generator.
      address: what `from_pretrained` is called with: a folder, or hf://user/name.
      dtype: of the stored arrays.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxdog.generators"),
        autoescape=True,
        finalize=lambda x: " ".join(x.split()) if type(x) is str else x,  # a name is one line
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    config, values = model.config, _values(model.scores)
    return environment.get_template("model_card.md.j2").render(
        name=config.name,
        address=address,
        dtype=dtype,
        system=config.system.name,
        network=config.generator.get("name", config.system.name),
        resolution=config.submit.resolution,
        parameters=sum(x.size for x in model.arrays.values()),
        step=model.step,
        sampling=_sampling(model),
        notes=model.notes,
        classes=model.class_names,
        max_classes=MAX_CLASSES,
        example_class=model.class_names[0],
        data_terms=DATA_TERMS[config.data.source],
        values=values,
        has_held_out=any(name.startswith("val_") for name in values),
        scores=model.scores,
        copies=model.scores.get("copies"),
    )


def summary(scores: Mapping[str, Any]) -> dict[str, Any]:
    """A line of scores.jsonl without the scores of each class and the names of photos."""
    kept = {name: x for name, x in scores.items() if name not in ("per_class", "sampling")}
    if isinstance(kept.get("copies"), Mapping):
        kept["copies"] = {name: x for name, x in kept["copies"].items() if name != "evidence"}
    return kept


def _values(scores: Mapping[str, Any]) -> dict[str, str]:
    """The scores among the fields of a record, as text."""
    hidden = (*SIDES, "evaluation_seconds", "final", "cheat")
    return {
        name: "undefined" if x is None else f"{x:.4g}" if abs(x) < 1000 else f"{x:,.0f}"
        for name, x in scores.items()
        if name not in hidden and (x is None or isinstance(x, int | float))
    }


def _sampling(model: pretrained.Pretrained) -> str:
    """How images are sampled, in words."""
    sample, parts = model.config.sample, []
    psi = model.config.generator.get("truncation_psi")
    if psi is not None:
        parts.append(f"truncation_psi {psi:g}")
    if sample.truncation:
        parts.append(f"truncation {sample.truncation:g} ({sample.method})")
    parts.append(f"{sample.labels} labels")
    if sample.exclude_classes:
        parts.append(f"without {len(sample.exclude_classes)} of {len(model.class_names)} classes")
    parts += [f"postprocessing {', '.join(sample.postprocess)}"] if sample.postprocess else []
    return ", ".join(parts)
