"""DRAGAN (Kodali et al. 2017): a gradient penalty around real images.

    jaxdog train dragan

hirune924 tried it in 2019 and gave up: training collapsed. Networks, crops, initialization, reused latents
and sampling are those of his last entry, `lsgan_sn.py`. The loss is cross-entropy with targets 1 and 0 on the
logit, which equals that on its sigmoid; Adam 2e-4 (0.5, 0.999) without L2; one discriminator step per
generator step. The penalty is the paper's: weight 10, a real image plus up to half a standard deviation of
noise, gradient norm of the whole image towards 1.

His code, in which this part was commented out, took the norm over each pixel's three channels, a likely
reason for the collapse: `--config.system.d_regularizers.dragan.per_pixel=True`. The paper does not say what
batch norm should do in the penalty: here the perturbed images are normalized by their own batch statistics,
as in his networks.
"""

from jaxdog.config import Config, derive, load_sibling


def get_config(variant: str = "full") -> Config:
    adam = dict(weight_decay=0.0, schedule=dict(name="constant"), learning_rate=2e-4)
    penalty = dict(weight=10.0, interval=1, noise_scale=0.5, target=1.0, per_pixel=False)
    return derive(
        load_sibling(__file__, "lsgan_sn", variant),
        name="dragan",
        system=dict(loss=dict(name="non_saturating"), d_regularizers=dict(dragan=penalty)),
        optimizer=dict(g=adam, d=adam),
    )
