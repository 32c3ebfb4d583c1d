"""Arm B of the attempt on the record: R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN!"), slim.

    python -m jaxdog.main --config configs/r3gan.py --workdir runs/r3gan

From the paper and its program's preset for faces at 64x64: relativistic pairs, R1 and R2 at every step, no
norm, Adam with b1 = 0; weights 2 to 0.2, rates 2e-4 to 5e-5, b2 0.9 to 0.99, all by half a cosine over the
run; probability of ADA's augmentations 0 to 0.3; an average whose half-life grows to 500 thousand pictures.
Ours: the networks, for the preset's (768 channels) would see a million pictures where they need 20. They
have 512 to 128 channels with dense 3x3 convolutions over half of them, and batches of 128 in place of 256;
p rises in a straight line; the half-life is at most a tenth of the pictures seen, besides two more averages.
Breeds are not looked at (generator.embed_dim and discriminator.embed_dim would). Whole photos, squashed as
they are scored, are learnt, every tenth is held out, and the way of drawing is chosen in the end, as in
`record_biggan.py`.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "r3gan"
    config.seed = 0
    config.dtype = "float32"  # of convolutions and matmuls: "float32" | "bfloat16"; all else is float32
    config.init_from = ""  # work folder of a run whose networks this one begins with

    config.data = ConfigDict(
        dict(
            source="tfds",  # "tfds" | "kaggle" | "folder" | "toy"
            path="",  # tfds: the prepared set's place, "" for its default; kaggle and folder: the folder
            archives="",  # tfds: a folder with the official archives, to prepare without a network
            toy_photos=512,  # toy only
            classes=120,  # 0: as many as the photos have
            size=64,
            store_size=64,  # of the crops as they are kept; more than game.size where augmentations cut
            crop=dict(name="squash", resampler="lanczos"),  # whole photos, as they are scored
            # Every tenth photo is kept from training; pictures are scored against these besides.
            curate=dict(hold_out=dict(every=10)),
            cache_dir="~/.cache/jaxdog",
            workers=0,  # 0: one per core
        )
    )
    config.augment = ConfigDict(dict(flip=dict(p=0.5)))

    config.generator = ConfigDict(
        dict(
            name="r3gan",
            widths=(512, 512, 384, 256, 128),  # at 4, 8, 16, 32 and 64 pixels
            blocks=2,  # of each height
            expansion=0.5,  # channels of the 3x3 convolutions, in units of the block's; the paper's is 2
            group=0,  # channels that a 3x3 convolution mixes; 0: all, the paper's is 16
            embed_dim=0,  # of the breed's vector beside z; 0: breeds are not looked at
        )
    )
    config.discriminator = ConfigDict(
        dict(name="r3gan", widths=(128, 256, 384, 512, 512), blocks=2, expansion=0.5, group=0, embed_dim=0)
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=128,
            latent_dim=64,
            loss=dict(name="relativistic", base="cross_entropy"),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated in two calls of the discriminator
            fakes="fresh",  # the generator's latents are its own; "reused": the discriminator's last ones
            fake_labels="uniform",  # "real": those of the real pictures beside them
            g_reals=False,  # relativistic losses: real pictures of its own for the generator's step
            breed_loss=dict(name="none"),  # what breeds teach beside that
            d_penalties=dict(  # their weights go from the first to the last over the run
                r1=dict(weight=(2.0, 0.2), every=1), r2=dict(weight=(2.0, 0.2), every=1)
            ),
            g_penalties=dict(),
            diffaugment=dict(  # what real and generated pictures go through alike
                blit=dict(shift=0.125),
                geometric=dict(scale=0.2, turn=1.0, shift=0.125),
                colour=dict(brightness=0.2, contrast=0.5, saturation=1.0),
            ),
            augment_p=dict(name="ramp", first=0.0, last=0.3, steps=62_500),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(name="adam", b1=0.0, b2=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    config.optimizer = ConfigDict(
        dict(
            g=dict(adam, schedule=dict(name="cosine", learning_rate=2e-4, final=0.25)),
            d=dict(adam, schedule=dict(name="cosine", learning_rate=2e-4, final=0.25)),
        )
    )
    half_life = {kimg: 0.5 ** (128 / (1000 * kimg)) for kimg in (50, 200, 500)}
    config.ema = ConfigDict(
        dict(
            decay=half_life[500],
            start=0,
            stats="copy",
            rampup=0.1,
            tracks=(half_life[50], half_life[200]),  # further averages
        )
    )
    config.sample = ConfigDict(
        dict(
            truncation=0.0,  # |z| at most; 0: as drawn
            method="resample",
            labels="uniform",
            without=(),  # numbers of the breeds that are not drawn
            norm="running",  # there are no batch statistics
            batch_size=0,  # pictures that share statistics, where norm is not "running"
            refresh=0,  # pictures to refresh over
            finish=dict(),  # what is done to each picture
            sweep=dict(  # what is tried in the end
                truncation=(0.0, 2.0),
                track=(0, 1, 2),
                finish=(
                    dict(),
                    dict(non_local_means=dict(luminance=2.65, colour=1.0, template=7, search=11)),
                ),
            ),
        )
    )

    config.train = ConfigDict(
        dict(
            steps=62_500,  # 8 million pictures
            max_hours=8.5,  # leaves half an hour of nine for the rest
            memory_gb=0.0,  # a run that takes more stops; 0: no limit
            steps_per_dispatch=10,
            log_every=100,
            grid_every=2_000,
            grid_images=60,
            collapse=2.0,  # times the best score at which a run goes back to it, at half the rates
        )
    )
    config.devices = ConfigDict(
        dict(
            deal_state=False,  # parameters, optimiser and averages dealt out over the devices
            own_statistics=False,  # each device normalises its own pictures
            remat=False,  # less memory, more time
            data_share=0.5,  # of a device's memory for the crops; more are read ahead from the host's
        )
    )
    config.checkpoint = ConfigDict(dict(every=1_000, keep_last=2, keep_best=2))
    config.eval = ConfigDict(
        dict(
            every_kimg=320.0,
            samples=5_000,
            batch_size=128,
            weights="published",  # "published" (downloaded once) | "random" (rFID) | a file or folder
            resampler="lanczos",  # of the real side
            eps=0.1,  # the public leaderboard's
            best="fid2048",
            final=("mifid", "is", "kid", "prdc", "forensics"),  # of the pictures of images.zip
        )
    )
    config.submit = ConfigDict(dict(images=10_000))
    if variant == "test":
        _shrink(config)
    elif variant != "full":
        raise ValueError(f"variant is {variant!r}; choices: 'full', 'test'")
    return config


def _shrink(config: ConfigDict) -> None:
    """The same experiment in seconds."""
    config.update_from_flattened_dict(
        {
            "data.source": "toy",
            "data.toy_photos": 48,
            "data.classes": 0,
            "data.size": 32,
            "data.store_size": 32,
            "game.size": 32,
            "data.cache_dir": "runs/cache",
            "generator.widths": (8, 8, 8, 4),
            "generator.blocks": 1,
            "discriminator.widths": (4, 8, 8, 8),
            "discriminator.blocks": 1,
            "game.batch_size": 8,
            "game.latent_dim": 16,
            "ema.tracks": (0.9, 0.0),
            "sample.sweep": {"track": (0, 1)},
            "train.steps": 8,
            "train.max_hours": 0.0,
            "train.steps_per_dispatch": 2,
            "train.log_every": 2,
            "train.grid_every": 4,
            "train.grid_images": 8,
            "checkpoint.every": 4,
            "eval.every_kimg": 0.032,
            "eval.samples": 16,
            "eval.batch_size": 8,
            "eval.weights": "random",
            "eval.best": "fid768",
            "submit.images": 16,
        }
    )
