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

from jaxdog.config import Config, derive, load_sibling, smoke_test


def get_config(variant: str = "full") -> Config:
    half_life = {kimg: 0.5 ** (64 / (1000 * kimg)) for kimg in (50, 200, 500)}
    denoise = dict(non_local_means=dict(luminance=2.65, color=1.0, template=7, search=11))
    sweep = dict(truncation=(0.0, 2.0, 1.0), ema_index=(0, 1, 2), postprocess=({}, denoise))
    color = dict(brightness=0.5, contrast=0.5, saturation=1.0)
    own = dict(truncation=0.0, method="resample", labels="balanced", batch_stats="running", batch_size=0)
    adam = dict(schedule=dict(fraction=0.15))
    config = derive(
        load_sibling(__file__, "rals_ac_biggan"),
        name="record_biggan",
        seed=0,
        data=dict(crop=dict(name="squash", resampler="lanczos"), select=dict(hold_out=dict(every=10))),
        augment=dict(uniform_noise=None),
        generator=dict(channels=48),  # widths 768, 768, 384, 192, 96
        discriminator=dict(channels=96),  # widths 96, 192, 384, 768, 768
        system=dict(
            batch_size=64,
            diffaugment=dict(color=color, translation=dict(ratio=0.125)),
            augment_p=dict(name="ramp", first=0.0, last=0.5, steps=110_000),
        ),
        optimizer=dict(g=adam, d=adam),
        ema=dict(decay=half_life[200], rampup=0.1, extra_ema_decays=(half_life[50], half_life[500])),
        sample=dict(own, sweep=sweep),
        # 7 million generated images, and twice as many real ones, are 283 PFLOP; nine hours of a P100 at its
        # peak are 301.
        train=dict(steps=110_000, grid_every=2_000, rollback_ratio=2.0),
        checkpoint=dict(every=1_000),
        eval=dict(every_kimg=320.0),
        submit=dict(checkpoint="best"),
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
