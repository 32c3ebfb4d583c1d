"""A slim R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN!"), a candidate of experiments/record.

    jaxdog train r3gan

From the paper and the official code's preset for faces at 64x64: relativistic pairing loss, R1 and R2 at
every step, no norm, Adam with b1 = 0; weights 2 to 0.2, learning rates 2e-4 to 5e-5, b2 0.9 to 0.99, all
along half a cosine over the run; R1 and R2 through the augmentations, which are like ADA's, with probability
0 to 0.3; an EMA whose half-life grows to 500 kimg.

Different: the networks, since the preset's (768 channels) would process a million images in nine hours, but
need 20 million. Here they have 512 to 128 channels with dense 3x3 convolutions over half of them, and batches
of 128, not 256. The colors are augmented as in DiffAugment, and without hue, luma flip and cutout; the
augmentation probability rises linearly over `augment_p.steps`; the half-life is at most a tenth of the images
seen, and there are two more EMAs. Unconditional (conditional with generator.embed_dim and
discriminator.embed_dim). As in `record_biggan.py`, training uses whole photos, squashed as they are scored;
every tenth is held out; and the sampling options are chosen after training.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    batch_size = 128
    steps = 8_000_000 // batch_size
    half_life = {kimg: 0.5 ** (batch_size / (1000 * kimg)) for kimg in (50, 200, 500)}
    network = dict(
        name="r3gan",
        blocks=2,  # per resolution
        expansion=0.5,  # width of the 3x3 convolutions, relative to the block's; the paper's is 2
        group_size=0,  # channels of a convolution group; 0: dense, the paper's is 16
        embed_dim=0,  # 0: unconditional
    )
    cosine = dict(name="cosine", final=0.25)
    adam = dict(name="adam", learning_rate=2e-4, b1=0.0, b2=(0.9, 0.99), schedule=cosine)
    penalty = dict(weight=(2.0, 0.2), interval=1)
    config = experiment(
        name="r3gan",
        data=dict(crop=dict(name="squash"), select=dict(hold_out=dict(every=10))),
        augment=dict(flip=dict(p=0.5)),
        generator=dict(network, widths=(512, 512, 384, 256, 128)),  # at 4x4, 8x8, ...
        discriminator=dict(network, widths=(128, 256, 384, 512, 512)),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=batch_size,
            latent_dim=64,
            loss=dict(name="relativistic", base="cross_entropy"),
            d_regularizers=dict(r1=penalty, r2=penalty),
            diffaugment=dict(
                blit=dict(shift=0.125),
                geometric=dict(scale=0.2, turn=1.0, shift=0.125),
                color=dict(brightness=0.2, contrast=0.5, saturation=1.0),
            ),
            augment_p=dict(name="ramp", first=0.0, last=0.3, steps=steps),
            split_d=True,
        ),
        optimizer=dict(g=adam, d=adam),
        ema=dict(decay=half_life[500], rampup=0.1, extra_ema_decays=(half_life[50], half_life[200])),
        sample=dict(
            labels="uniform",
            sweep=dict(
                truncation=(0.0, 2.0),
                ema_index=(0, 1, 2),
                postprocess=(
                    {},
                    dict(non_local_means=dict(luminance=2.65, color=1.0, template=7, search=11)),
                ),
            ),
        ),
        train=dict(steps=steps, max_hours=8.5, rollback_ratio=2.0),
        eval=dict(every_kimg=320.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        blocks=1,
        generator=dict(widths=(8, 8, 8, 4)),
        discriminator=dict(widths=(4, 8, 8, 8)),
        ema=dict(extra_ema_decays=(0.9, 0.0)),
        sample=dict(sweep=dict(ema_index=(0, 1))),
    )
