"""WGAN-GP with residual networks (Gulrajani et al. 2017) at 64x64.

    jaxdog train wgan_gp

hirune924 tried it in 2019: it trained, and scored slightly worse than his least squares. His settings are not
known, so these are the official code's for 64x64: blocks of 512, 256, 128 and 64 channels with batch
norm in the generator, of 128, 256, 512 and 512 with layer norm in the critic, which ends in a linear layer of
the last map; gradient penalty of weight 10 at one random point between each real image and a generated one;
five critic steps per generator step, Adam 1e-4 (0, 0.9), batch size 64, 200,000 generator steps.
Unconditional. Images are sampled with the statistics of their own batch, as in the official code, which
never uses running statistics.

Different: the critic's last biases, which cancel in loss and penalty, are left out. Crops are those of
`lsgan_sn.py`, as in hirune924's other trials. The run has no time limit; with five critic steps it is longer
than nine hours.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", learning_rate=1e-4, b1=0.0, b2=0.9)
    config = experiment(
        name="wgan_gp",
        data=dict(crop=dict(name="box_square", mode="pad", pad_mode="black"), stored_resolution=100),
        augment=dict(
            random_resized_crop=dict(scale_min=0.7, scale_max=1.0, ratio_min=1.0, ratio_max=1.0),
            flip=dict(p=0.5),
        ),
        generator=dict(
            name="resnet",
            widths=(512, 512, 256, 128, 64),  # at 4x4, then per block
            conditional=False,
            inner_bias=False,
            rgb_gain=2**0.5,  # the last convolution's initial weights are this times Glorot's
        ),
        discriminator=dict(
            name="resnet",
            widths=(64, 128, 256, 512, 512),  # of the first convolution, then per block
            stem="conv",
            norm="layer",
            spectral=False,
            inner_bias=False,
            head="flat",
            head_bias=False,
            projection=False,
        ),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=64,
            latent_dim=128,
            loss=dict(name="wasserstein"),
            d_regularizers=dict(gradient_penalty=dict(weight=10.0, interval=1, target=1.0)),
            num_d_steps=5,
        ),
        optimizer=dict(g=adam, d=adam),
        sample=dict(batch_stats="batch", batch_size=64),
        train=dict(steps=200_000),  # 64 million real images
        eval=dict(every_kimg=1_600.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        resolution=16,
        num_d_steps=2,
        generator=dict(widths=(8, 8, 4)),
        discriminator=dict(widths=(4, 8, 8)),
        eval=dict(every_kimg=0.064),
    )
