"""The 2nd place's BigGAN of 2019 with later techniques, a candidate of experiments/record.

    jaxdog train record_biggan

Networks, losses and learning rates of `rals_ac_biggan.py`, 1.5 times as wide: a discriminator twice as wide
as the generator, relativistic average least squares, projection and an auxiliary classifier, minibatch
standard deviation. Different, and why (experiments/record measures it):
- Training uses whole photos, squashed as the metric's real set is.
- Batches of 64, since the number of updates matters.
- Three EMAs with half-lives of 50, 200 and 500 kimg, at most a tenth of the images seen, with averaged batch
  statistics, so that an image does not depend on its batch.
- Learning rates fall to zero over the last 15 %.
- DiffAugment (Zhao et al. 2020) with color and translation, without cutout, which may leak. Its probability
  rises during training, since it prevents memorization but slows early training.
- If the score doubles, training continues from the best checkpoint with half the learning rates.
- The sampling options are chosen after training. Every tenth photo is held out.

The learning rates are the 2nd place's. The relative size of a step scales with learning rate * sqrt(width),
since kernels are initialized orthogonal and Adam moves each entry by about the learning rate: networks of a
sixth of these widths were trained at twice the rates.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    half_life = {kimg: 0.5 ** (64 / (1000 * kimg)) for kimg in (50, 200, 500)}
    adam = dict(name="adam", b1=0.0, b2=0.999, schedule=dict(name="constant_then_linear", fraction=0.15))
    config = experiment(
        name="record_biggan",
        data=dict(crop=dict(name="squash"), select=dict(hold_out=dict(every=10))),
        augment=dict(flip=dict(p=0.5)),
        generator=dict(
            name="biggan",
            channels=48,  # widths 768, 768, 384, 192, 96
            shared_dim=32,
            attention=(32,),
            condition_joint=True,
            conv_bias=False,
            linear_bias=False,
        ),
        discriminator=dict(
            name="biggan",
            channels=96,  # widths 96, 192, 384, 768, 768
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
            batch_size=64,
            latent_dim=120,
            loss=dict(name="relativistic_average", base="least_squares"),
            class_loss=dict(name="cross_entropy", weight=0.1, apply_to="real"),
            diffaugment=dict(
                color=dict(brightness=0.5, contrast=0.5, saturation=1.0), translation=dict(ratio=0.125)
            ),
            augment_p=dict(name="ramp", first=0.0, last=0.5, steps=110_000),
            split_d=True,
            g_fresh_reals=True,
        ),
        optimizer=dict(g=dict(adam, learning_rate=2e-4), d=dict(adam, learning_rate=4e-4)),
        ema=dict(
            decay=half_life[200],
            rampup=0.1,
            extra_ema_decays=(half_life[50], half_life[500]),
            batch_stats="average",
        ),
        sample=dict(
            sweep=dict(
                truncation=(0.0, 2.0, 1.0),
                ema_index=(0, 1, 2),
                postprocess=(
                    {},
                    dict(non_local_means=dict(luminance=2.65, color=1.0, template=7, search=11)),
                ),
            )
        ),
        # 7 million images, 283 PFLOP; nine hours of a P100 at its peak are 301.
        train=dict(steps=110_000, max_hours=8.5, rollback_ratio=2.0),
        eval=dict(every_kimg=320.0),
    )
    return smoke_test(
        config,
        variant,
        channels=4,
        attention=(16,),
        shared_dim=8,
        last_width=3,
        class_transition=(0.0, 0.5),
        system=dict(augment_p=dict(steps=8)),
        ema=dict(extra_ema_decays=(0.9, 0.0)),
        sample=dict(sweep=dict(truncation=(0.0, 1.0), ema_index=(0, 1))),
    )
