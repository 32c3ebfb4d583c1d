"""ACGAN: a DCGAN whose discriminator also classifies (Odena, Olah, Shlens 2017).

    jaxdog train acgan

hirune924 tried it in 2019 and saw no gain from classes. His settings are not known, so these are the paper's:
batch norm and ReLU in the generator; leaky ReLU of slope 0.2, batch norm and dropout of 0.5 in the
discriminator, which has two heads; kernels from N(0, 0.02); the class loss has weight 1 and is applied to
real and generated images; Adam 2e-4 (0.5, 0.999); 50,000 batches of 100.

Different from the paper:
- The class enters as a learned embedding of 10 values, not as one-hot: there are 120 classes, not 10.
- Kernels are 4x4, as in torch's DCGANs, not 5x5. At 64x64 the generator starts at 4x4 with the paper's 768,
  384, 256 and 192 channels. The discriminator has DCGAN's four convolutions of stride 2, not six of 3x3.
- The generator's adversarial loss is the non-saturating one.
- Activations get no noise, which the paper's search allowed.
- Crops are those of `lsgan_sn.py`, as in hirune924's other trials.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", learning_rate=2e-4, b1=0.5, b2=0.999)
    config = experiment(
        name="acgan",
        data=dict(crop=dict(name="box_square", mode="pad", pad_mode="black"), stored_resolution=100),
        augment=dict(
            random_resized_crop=dict(scale_min=0.7, scale_max=1.0, ratio_min=1.0, ratio_max=1.0),
            flip=dict(p=0.5),
        ),
        generator=dict(
            name="dcgan",
            widths=(768, 384, 256, 192),  # at 4x4, 8x8, 16x16, 32x32
            rgb_upsample=True,  # to 64x64
            slope=0.0,
            embed_dim=10,
            initializer="normal",
        ),
        discriminator=dict(
            name="dcgan",
            widths=(64, 128, 256, 512),
            batch_norms=(1, 2, 3),
            dropout=0.5,
            class_head="linear",
            initializer="normal",
        ),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=100,
            latent_dim=100,  # without the 10 of the class embedding
            loss=dict(name="non_saturating"),
            class_loss=dict(name="cross_entropy", weight=1.0, apply_to="both"),
            split_d=True,
        ),
        optimizer=dict(g=adam, d=adam),
        train=dict(steps=50_000, max_hours=8.5),
        eval=dict(every_kimg=250.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        generator=dict(widths=(32, 32), embed_dim=4),
        discriminator=dict(widths=(4, 8), batch_norms=(1,)),
    )
