"""VQ-VAE-2 on Stanford Dogs at 64x64: an autoencoder with discrete codes, then a prior over the codes.

    jaxdog train vqvae2

One of the trials of 2019 that were given up: its author found the second stage too slow for a notebook of
nine hours, and his settings are not published. These are the paper's (Razavi, van den Oord, Vinyals 2019)
adapted to 64x64: maps of 16x16 and 8x8, 128 channels, two residual layers, codebooks of 512 vectors of 64
with moving averages of 0.99, commitment 0.25, squared error, Adam 3e-4, batch size 128.

Different from the paper:
- One transformer is the prior of both maps (64 codes of the top, then 256 of the bottom, each conditioned on
  the class and on all codes before it), in place of a PixelSNAIL and a PixelCNN: it samples an image with one
  small step per code. The other prior is "pixelcnn", with attention=(0,) for attention in the top level.
- Codes that are hardly used are reinitialized to a vector of the batch.
- Samples of the first phase, before there is a prior, are independent codes.

The final scores include the reconstruction error of training images.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", learning_rate=3e-4, b1=0.9, b2=0.999)
    config = experiment(
        name="vqvae2",
        data=dict(crop=dict(name="box_square", mode="grow", pad_mode="reflect")),
        augment=dict(flip=dict(p=0.5)),
        generator=dict(name="vqvae", channels=128, residual_layers=2, residual_channels=64),
        system=dict(
            name="vqvae",
            resolution=64,
            batch_size=128,
            autoencoder_steps=30_000,  # 174 epochs of 22,125 crops
            codebook_size=512,
            code_dim=64,
            commitment=0.25,
            decay=0.99,
            dead_code_threshold=0.05,  # times the mean usage: 300 steps without use
            prior=dict(name="transformer", width=384, layers=8, heads=6, dropout=0.1),
        ),
        optimizer=dict(autoencoder=adam, prior=dict(adam, schedule=dict(name="cosine", final=0.0))),
        train=dict(steps=120_000, max_hours=8.5),  # 15 million images
        eval=dict(every_kimg=1_280.0),
    )
    return smoke_test(
        config,
        variant,
        resolution=16,
        channels=8,
        residual_layers=1,
        residual_channels=4,
        autoencoder_steps=4,
        codebook_size=16,
        code_dim=4,
        width=8,
        layers=1,
        heads=2,
    )
