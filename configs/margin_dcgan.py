"""MeisterMorxrc's DCGAN of 2019: a margin in the discriminator's loss, four crops of each dog.

    jaxdog train margin_dcgan

It led the public leaderboard for a while and ended 16th on the private one; its scores are not known.

Reproduced: four crops of each box, of which one hardly depends on it; rotations of at most 5 degrees for 30 %
of images; alternating transposed and 3x3 convolutions, batch norm, ReLU; a discriminator of the same kind
whose first two convolutions have no norm, and whose batch norms see real and generated images separately, and
in the generator's step each half of the batch; cross-entropy with target 0.95, whose first term is constant
for probabilities of 0.8 or more, also in the generator's loss; one batch of generated images for both steps;
torch's initialization; Adam 5e-4 with b1 = 0.3; latents of 256, sampled without truncation from the EMA, in
training mode, 100 at a time.

Different:
- A photo was drawn, then one of its crops, so that photos with several dogs were not seen more often; here a
  crop is drawn.
- The EMA had decay 0.9 at first, 0.99 from epoch 200, 0.999 from 300, 0.9999 from 400. Here the EMA starts
  with the last one, since the earlier ones have no effect at the end.
- The halves of the generator's batch are its even and its odd images.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    epoch = 643  # steps
    adam = dict(name="adam", learning_rate=5e-4, b1=0.3, b2=0.999)
    config = experiment(
        name="margin_dcgan",
        data=dict(crop=dict(name="four_squares")),
        augment=dict(flip=dict(p=0.5), rotate=dict(degrees=5.0, p=0.3)),
        generator=dict(name="dcgan", widths=(1536, 768, 384, 192, 96), extra_convs=(2, 3), slope=0.0),
        discriminator=dict(
            name="dcgan", widths=(96, 192, 384, 768), batch_norms=(2, 3), extra_convs=(1, 2), head_bias=True
        ),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=32,
            latent_dim=256,
            loss=dict(name="cross_entropy", real_low=0.95, real_high=0.95, margin=0.8, g_margin=True),
            split_d=True,
            reuse_latents=True,
            g_step_groups=2,
        ),
        optimizer=dict(g=adam, d=adam),
        ema=dict(decay=0.9999, start=400 * epoch),
        sample=dict(batch_stats="batch", batch_size=100),
        train=dict(steps=620 * epoch, max_hours=8.89),
        eval=dict(every_kimg=640.0, final=("mifid", "isc", "kid", "prdc", "copies")),
        submit=dict(checkpoint="latest"),
    )
    return smoke_test(
        config,
        variant,
        extra_convs=(1,),
        generator=dict(widths=(8, 8, 4)),
        discriminator=dict(widths=(4, 8, 8), batch_norms=(2,)),
    )
