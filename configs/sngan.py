"""SNGAN with projection: spectral norm in a residual discriminator, conditional batch norm in the generator.

    jaxdog train sngan

Miyato et al. 2018 and Miyato & Koyama 2018, as in the official code for cats and dogs at 64x64. hirune924
tried to run this Chainer code in 2019, but could not on Kaggle. Generator: blocks of 512, 256, 128 and 64
channels, gains and biases per class, no spectral norm. Discriminator: an optimized first block, then 128,
256, 512 and 1024, all of them downsampling, whose hidden layers are as wide as their input, spectral norm on
all layers and on the class embedding. Hinge loss, five discriminator steps per generator step, batch size 64,
Adam 2e-4 (0, 0.9), 250,000 generator steps, learning rates linear to 0 over the last 50,000. Squares of 0.9
of the short side from anywhere, flipped, with U[0, 1) / 128 added to real images.

Different:
- The squares are from the dogs' boxes; in the original from whole photos.
- The original updates the generator first, then the discriminator five times. Here the generator is last,
  which has no effect after the first step.
- Power iterations of the spectral norm run in each discriminator step, on real and generated images; in the
  original also in the generator's step.
- The generator's running statistics are updated in its own steps; in the original also when it generates
  images for the discriminator's steps.
- The run has no time limit.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    last_50_000 = dict(name="constant_then_linear", fraction=0.2)
    adam = dict(name="adam", learning_rate=2e-4, b1=0.0, b2=0.9, schedule=last_50_000)
    config = experiment(
        name="sngan",
        data=dict(crop=dict(name="box"), stored_resolution=128),
        augment=dict(
            random_square=dict(zoom=10 / 9),  # sides of 0.9 of the short side
            flip=dict(p=0.5),
            uniform_noise=dict(scale=1 / 128),
        ),
        generator=dict(
            name="resnet", widths=(1024, 512, 256, 128, 64), epsilon=2e-5
        ),  # at 4x4, then per block
        discriminator=dict(name="resnet", widths=(64, 128, 256, 512, 1024)),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=64,
            latent_dim=128,
            loss=dict(name="hinge"),
            num_d_steps=5,
            split_d=True,
        ),
        optimizer=dict(g=adam, d=adam),
        train=dict(steps=250_000),  # 80 million real images
        eval=dict(every_kimg=1_600.0),
    )
    return smoke_test(
        config,
        variant,
        resolution=16,
        num_d_steps=2,
        generator=dict(widths=(8, 8, 4)),
        discriminator=dict(widths=(4, 8)),
        eval=dict(every_kimg=0.064),
    )
