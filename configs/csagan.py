"""RaLS-C-SAGAN, a public notebook of 2019 by mpalermo.

    jaxdog train csagan

A conditional DCGAN with attention, relativistic least squares and warm restarts.

Reproduced with its quirks:
- Attention over the last 64x64 map in the generator, and over 32x32 in the discriminator.
- A class is a vector of length 1 beside z, gains and biases beside those of each batch norm, and in the
  discriminator a plane of signs that is not trained.
- Margins of 0.70 to 0.95 instead of 1, and of 0.05 to 0.15 for up to 3 of a batch's 32 pairs, whose targets
  are flipped.
- Dropout of channels in the generator, of features in the discriminator.
- Learning rates fall along half a cosine from 2.5e-4 and 1e-3 to a 25th, in steps of one epoch, and restart
  every 20.
- The generator's step reuses the latents of the discriminator's step, and uses the real images' labels.
- torch's initialization.
- Sampled in training mode, dropout included, 100 at a time. Classes are left out if 6 of
  their images, sampled in one batch, hardly differ.

Different:
- The generator's step evaluates real images with the updated discriminator, his with the previous one.
- The generator's step does not update the spectral norm of the discriminator.
- Learning rates change one step earlier. An epoch's last batch is filled up with images of the next.
- The bias of the attention keys, which has no effect, and the values behind the planes' signs are left out.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    epoch = 691  # steps
    restarts = dict(name="cosine_restarts", final=0.04, period=20 * epoch, interval=epoch)
    margins = dict(low=0.70, high=0.95, flipped_low=0.05, flipped_high=0.15, max_flipped=3)
    adam = dict(name="adam", b1=0.1, b2=0.99, schedule=restarts)
    config = experiment(
        name="csagan",
        data=dict(crop=dict(name="box_square", mode="center", resampler="bilinear")),
        augment=dict(flip=dict(p=0.5)),
        generator=dict(
            name="csagan",
            widths=(1024, 512, 256, 128, 64),
            dropout=(0.15, 0.10, 0.05, 0.05, 0.05),  # of channels
            attention=(64,),
            slope=0.05,
        ),
        discriminator=dict(
            name="csagan",
            widths=(64, 128, 256, 512),
            dropout=(0.0, 0.10, 0.15, 0.25),  # of features
            attention=(32,),
            slope=0.2,
        ),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=32,
            latent_dim=128,
            loss=dict(margins, name="relativistic_soft"),
            split_d=True,
            reuse_latents=True,
            fake_label_source="real",
        ),
        optimizer=dict(g=dict(adam, learning_rate=2.5e-4), d=dict(adam, learning_rate=1e-3)),
        sample=dict(labels="skip_collapsed", batch_stats="batch", batch_size=100),
        train=dict(steps=277_090, max_hours=8.6),  # 401 epochs, if time allows: 8.9 million images
        eval=dict(every_kimg=640.0),
        submit=dict(checkpoint="latest"),
    )
    return smoke_test(
        config,
        variant,
        resolution=16,
        generator=dict(widths=(8, 8, 8), dropout=(0.15, 0.10, 0.05), attention=(16,)),
        discriminator=dict(widths=(8, 8), dropout=(0.0, 0.25), attention=(8,)),
        period=4,
        interval=2,
    )
