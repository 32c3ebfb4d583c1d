"""Training photos, each blended with 0.001 of another one; disqualified: it copies training images.

    jaxdog train imitation

jazivxt's "Imitation Game" of 2019: no model, each image is 0.999 of one training photo and 0.001 of another,
about 20 on the public leaderboard. Entries labeled like it ("aug") had 4.676 at best, and all were
disqualified (private 999999).

Its source is not known: we assume whole, squashed photos, drawn with seed 0, and 8-bit rounding, which
mostly removes the second photo. "Training" copies the images into the state, 40 steps of 256 for 10,000. The
state is these images, 0.49 GB.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    config = experiment(
        name="imitation",
        data=dict(
            crop=dict(name="squash"),
            classes=0,
            select=dict(own_class=dict(count=10_000, seed=0, crop_types=(0,))),
        ),
        system=dict(name="imitation", resolution=64, batch_size=256, blend_weight=0.999),
        train=dict(steps=40, max_hours=8.5, log_every=10, grid_every=40),
        checkpoint=dict(every=40, keep_last=1, keep_best=0),
        eval=dict(every_kimg=0.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        data=dict(select=dict(own_class=dict(count=24))),
        train=dict(steps=4),
        submit=dict(images=24),
    )
