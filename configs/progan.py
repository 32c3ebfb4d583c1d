"""Theo Viel's conditional progressive GAN, 6th of the 2019 competition.

    jaxdog train progan

Public score 30.33, private 82.78. Resolutions from 4x4 to 64x64, (5, 10, 20, 40, 100) epochs of 346 steps. A
limit of 32,000 s stopped his run after 66 epochs at 64x64; `train.max_hours` is that limit. On a faster
machine his 66 epochs are --config.train.max_hours=0 --config.train.steps=48790
--config.system.steps="(1730,3460,6920,13840,22840)".

Reproduced, quirks included:
- No fade-in: his fractions of [50, 20, 20, 10, 5] % became 0 in an integer division. He intended
  `system.fade=(0.5, 0.2, 0.2, 0.1, 0.05)`, of which the first has no effect.
- The unconditional logit goes through a leaky ReLU before the projection is added.
- The norms of class embeddings are at most 1. torch normalizes the rows of a batch before it uses them; here
  all rows are normalized after each update: rows outside the batch, which only momentum changes, are
  normalized an update or two earlier.
- The generator's step reuses the latents of the discriminator's step; generated images have the real batch's
  labels.
- Adam counts the steps of each parameter from its first use.
- The EMA continues from resolution to resolution; new blocks start with their initial values. At 64x64 its
  decay becomes 0.999 at epoch 50 and would have become 0.9999 at epoch 100.

Different: a box is stored at 128x128 and cropped in its original shape from there (he resized its short side
to 64 first); layers that only lower resolutions need are removed.

He tried to leave out the worst classes (`sample.exclude_classes`), which did not help.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    epoch, epochs = 346, (5, 10, 20, 40, 100)  # an epoch in steps
    adam = dict(name="adam_per_leaf", learning_rate=6e-3, b1=0.5, b2=0.99)
    config = experiment(
        name="progan",
        seed=2019,
        data=dict(crop=dict(name="box", margin=10, resampler="bilinear"), stored_resolution=128),
        augment=dict(
            random_square=dict(central=0.5, filter="bilinear"),
            flip=dict(p=0.5),
            color_jitter=dict(
                brightness=0.2, contrast_min=0.9, contrast_max=1.2, saturation=0.3, hue=0.01, p=0.5
            ),
        ),
        generator=dict(name="progan", channels=256),
        discriminator=dict(name="progan", channels=256),
        system=dict(
            name="progressive",
            resolutions=(4, 8, 16, 32, 64),
            steps=tuple(epoch * count for count in epochs),
            fade=(0.0,) * 5,
            ema_milestones=(49 * epoch, 99 * epoch),
            batch_size=64,
            latent_dim=136,  # 256 with the one-hot class
            loss=dict(name="hinge"),
            split_d=True,
            reuse_latents=True,
            fake_label_source="real",
        ),
        optimizer=dict(g=adam, d=dict(adam, max_row_norms=dict(embed=1.0))),
        ema=dict(decay=(0.9, 0.9, 0.99, 0.99, 0.99)),
        sample=dict(labels="uniform"),
        train=dict(steps=epoch * sum(epochs), max_hours=8.89, grid_every=5 * epoch),
        eval=dict(every_kimg=320.0),
        submit=dict(checkpoint="latest"),
    )
    return smoke_test(  # up to 16x16, and with a fade-in, which is the longer code path
        config,
        variant,
        channels=12,
        latent_dim=5,
        system=dict(resolutions=(4, 8, 16), steps=(2, 4, 6), fade=(0.0, 0.0, 0.5), ema_milestones=(2,)),
        data=dict(stored_resolution=24),
        ema=dict(decay=(0.9, 0.9, 0.99)),
        train=dict(steps=12),
    )
