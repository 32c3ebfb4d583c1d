"""StyleGAN2 (Karras et al. 2020, config F) at 64x64.

    jaxdog train stylegan2

No entry of 2019: the paper appeared half a year later. From the paper (sec. 2 to 4, app. B) and its official
code: modulated and demodulated convolutions, images of all resolutions added up, a residual discriminator, no
progressive growing; 512 channels at all resolutions, which is config F at this size; a mapping network of 8
layers with a hundredth of the learning rate; style mixing with probability 0.9; non-saturating loss; R1 of
weight 10 every 16 steps, path length regularization of weight 2 every 4 steps over half of the batch; Adam
2e-3 (0, 0.99); an EMA with a half-life of 10,000 images; 32 images a step, 25 million in all. Unconditional,
as in the paper; conditional with --config.generator.embed_dim=512 --config.discriminator.projection=True.

Different: truncation to 0.7 of the distance from the mean style (the paper's scores are without truncation:
--config.generator.truncation_psi=1.0); resampled features differ along the border, see `models/stylegan.py`;
lazy regularizers are part of the step (the official code runs them as separate steps and adjusts Adam's
hyperparameters); the layer where the second style begins is drawn per image, not per batch; the running mean
of w is updated in the generator's steps only.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    batch_size = 32
    adam = dict(name="adam", learning_rate=2e-3, b1=0.0, b2=0.99)
    config = experiment(
        name="stylegan2",
        data=dict(crop=dict(name="box_square", mode="grow", pad_mode="reflect")),
        augment=dict(flip=dict(p=0.5)),
        generator=dict(
            name="stylegan",
            channels=512,
            full_width_resolution=64,
            w_dim=512,
            mapping_layers=8,
            mapping_lr_multiplier=0.01,
            embed_dim=0,  # 0: unconditional
            modulation="demodulated",
            style_mixing_prob=0.9,
            truncation_psi=0.7,
            truncation_cutoff=64,
            w_avg_beta=0.995,
        ),
        discriminator=dict(
            name="stylegan",
            channels=512,
            full_width_resolution=64,
            residual=True,
            projection=False,
            mbstd_group_size=4,
        ),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=batch_size,
            latent_dim=512,
            loss=dict(name="non_saturating"),
            d_regularizers=dict(r1=dict(weight=10.0, interval=16)),
            g_regularizers=dict(path_length=dict(weight=2.0, interval=4, decay=0.99, batch_fraction=0.5)),
            split_d=True,
        ),
        optimizer=dict(g=adam, d=adam),
        ema=dict(decay=0.5 ** (batch_size / 10_000)),
        sample=dict(labels="uniform"),
        train=dict(steps=25_000_000 // batch_size, max_hours=8.5),
        eval=dict(every_kimg=320.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        resolution=16,
        channels=8,
        full_width_resolution=8,
        w_dim=8,
        mapping_layers=2,
        truncation_cutoff=8,
        latent_dim=8,
        ema=dict(decay=0.9),
    )
