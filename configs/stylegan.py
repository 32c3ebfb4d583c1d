"""StyleGAN (Karras et al. 2019) at 64x64, grown from 8x8.

    jaxdog train stylegan

In 2019 it was considered too slow for the competition's nine hours; no entry is known. `train.max_hours` is
that limit: a run that does not get to 64x64 in time submits images of a lower resolution, enlarged.

From the paper (sec. 2 and 3, app. B and C) and its official code: 512 channels up to 32x32, 256 at 64x64; a
mapping network of 8 layers with a hundredth of the learning rate; style mixing with probability 0.9;
non-saturating loss, R1 of weight 10; Adam 1e-3 (0, 0.99); an EMA with a half-life of 10,000 images; 600,000
images for each resolution and each fade-in, 25 million in all; truncation to 0.7 of the distance from the
mean style up to 32x32, as in its figures (its scores are without truncation: truncation_psi=1.0).
Unconditional, as in the paper; conditional with --config.generator.embed_dim=512
--config.discriminator.projection=True.

Different: 32 images a step at all resolutions (the official code uses 128, 64 and 32); Adam's moments
continue from resolution to resolution; the layer where the second style begins is drawn per image, not per
batch; the running mean of w is updated in the generator's steps only.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    batch_size = 32
    stage = 600_000 // batch_size  # steps of a resolution, or of a fade-in
    last = 25_000_000 // batch_size - 5 * stage  # steps at 64x64
    adam = dict(name="adam_per_leaf", learning_rate=1e-3, b1=0.0, b2=0.99)
    config = experiment(
        name="stylegan",
        data=dict(crop=dict(name="box_square", mode="grow", pad_mode="reflect")),
        augment=dict(flip=dict(p=0.5)),
        generator=dict(
            name="stylegan",
            channels=512,
            full_width_resolution=32,
            w_dim=512,
            mapping_layers=8,
            mapping_lr_multiplier=0.01,
            embed_dim=0,  # 0: unconditional
            modulation="adain",  # "demodulated" is StyleGAN2's, which cannot fade in
            style_mixing_prob=0.9,
            truncation_psi=0.7,
            truncation_cutoff=32,
            w_avg_beta=0.995,
        ),
        discriminator=dict(
            name="stylegan",
            channels=512,
            full_width_resolution=32,
            residual=False,
            projection=False,
            mbstd_group_size=4,
        ),
        system=dict(
            name="progressive",
            resolutions=(8, 16, 32, 64),
            steps=(stage, 2 * stage, 2 * stage, last),
            fade=(0.0, 0.5, 0.5, stage / last),
            batch_size=batch_size,
            latent_dim=512,
            loss=dict(name="non_saturating"),
            d_regularizers=dict(r1=dict(weight=10.0, interval=1)),
            split_d=True,
        ),
        optimizer=dict(g=adam, d=adam),
        ema=dict(decay=(0.5 ** (batch_size / 10_000),) * 4),  # the generator itself tracks the mean of w
        sample=dict(labels="uniform"),
        train=dict(steps=5 * stage + last, max_hours=8.5),
        eval=dict(every_kimg=320.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        channels=8,
        full_width_resolution=8,
        w_dim=8,
        mapping_layers=2,
        truncation_cutoff=8,
        latent_dim=8,
        system=dict(resolutions=(8, 16), steps=(4, 8), fade=(0.0, 0.5)),
        ema=dict(decay=(0.9, 0.9)),
        train=dict(steps=12),
    )
