"""RaLS-AC-BigGAN with minibatch standard deviation, 2nd of the 2019 competition: yabae (yukia18).

    jaxdog train rals_ac_biggan

Public score 15.82, private 58.36; the other of the two submissions had 15.79 and 56.47. Relativistic average
least squares, an auxiliary classifier that the discriminator learns from real images only, attention at
32x32, EMA of 0.999.

Reproduced with its quirks:
- Only the last box of each photo. A box grows inside the photo, but what is missing on the right or below is
  not added on the other side, and the result is squashed.
- U[0, 1) / 128 is added to real images and never to generated ones.
- The minibatch standard deviation subtracts the means of its groups in place, so the last block sees
  deviations.
- Each player's step draws its own real images, 256 per iteration.
- Images are sampled from the EMA in training mode, 50 at a time.

Different:
- The generator's step does not update the spectral norm of the discriminator; in the original this step did
  two power iterations.
- Boxes are clipped to their photo before they grow.
- 26,000 iterations, not 25,999.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    last_1_000 = dict(name="constant_then_linear", fraction=1 / 26)
    adam = dict(name="adam", b1=0.0, b2=0.999, schedule=last_1_000)
    config = experiment(
        name="rals_ac_biggan",
        seed=42,
        data=dict(  # 20,579 crops; the author found "area" better than other resamplers
            crop=dict(name="box_square", mode="grow_high", which="last", resampler="area")
        ),
        augment=dict(flip=dict(p=0.5), uniform_noise=dict(scale=1 / 128)),
        generator=dict(
            name="biggan",
            channels=32,  # widths 512, 512, 256, 128, 64
            shared_dim=32,
            attention=(32,),
            condition_joint=True,
            conv_bias=False,
            linear_bias=False,
        ),
        discriminator=dict(
            name="biggan",
            channels=64,  # widths 64, 128, 256, 512, 512
            last_width=8,
            attention=(32,),
            mbstd_group_size=4,
            mbstd_centered=True,
            class_head="linear",
            conv_bias=False,
            head_bias=False,
        ),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=128,
            latent_dim=120,
            loss=dict(name="relativistic_average", base="least_squares"),
            class_loss=dict(name="cross_entropy", weight=0.1, apply_to="real"),  # "quite sensitive"
            split_d=True,
            g_fresh_reals=True,
        ),
        optimizer=dict(g=dict(adam, learning_rate=2e-4), d=dict(adam, learning_rate=4e-4)),
        ema=dict(decay=0.999, batch_stats="average"),
        sample=dict(truncation=2.0, method="truncnorm", labels="uniform", batch_stats="batch", batch_size=50),
        train=dict(steps=26_000, max_hours=8.5, grid_every=1_000),  # 6.7 million images, 323 epochs
        checkpoint=dict(every=500),
        eval=dict(every_kimg=640.0),
        submit=dict(checkpoint="latest"),
    )
    return smoke_test(
        config, variant, channels=4, attention=(16,), shared_dim=8, last_width=3, eval=dict(every_kimg=0.064)
    )
