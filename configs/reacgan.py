"""ReACGAN: BigGAN whose discriminator embeds images and classes on a hypersphere.

    jaxdog train reacgan

"Rebooting ACGAN" (Kang, Shim, Cho, Park 2021): the discriminator's logit is unconditional. In addition, each
image is embedded on a sphere, attracted to its class and repelled from images of other classes in the batch
(D2D-CE, eq. 7): real images in the discriminator's step, generated ones in the generator's. Margins 0.98 and
0.02, temperature 0.5. The weight of D2D-CE is our choice. Everything else is as in
`biggan.py`. With 32 images of 120 classes, nearly all pairs in a batch are of different classes.
"""

from jaxdog.config import Config, derive, load_sibling


def get_config(variant: str = "full") -> Config:
    return derive(
        load_sibling(__file__, "biggan", variant),
        name="reacgan",
        discriminator=dict(projection=False, class_head="cosine"),
        system=dict(
            class_loss=dict(name="d2d_ce", weight=0.5, temperature=0.5, positive=0.98, negative=0.02)
        ),
    )
