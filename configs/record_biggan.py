"""Arm A of the attempt on the record: the 2nd place of 2019 with what has been learnt since.

    python -m jaxdog.main --config configs/record_biggan.py --workdir runs/record_biggan

Networks, losses and rates of `rals_ac_biggan.py`, half as wide again: a discriminator twice as wide as the
generator, relativistic average least squares, breeds told by projection and asked for by a head, the spread
within the batch. What differs, and why (experiments/record measures it): training sees whole photos, squashed
as the metric's real side is; batches of 64, for updates count; averages whose half-lives are 50, 200 and 500
thousand pictures, at most a tenth of those seen, with their own batch statistics, so that a picture does not
depend on its neighbours; rates that fall to zero over the last 15 %; pictures of both kinds are moved and
coloured before the discriminator sees them (DiffAugment, Zhao et al. 2020; no cutout, which may leak), more
and more often, for it is against learning by heart and a burden at first; a run whose score doubles goes back
to its best; and the way of drawing is chosen in the end. Every tenth photo is held out.

The rates are the 2nd place's. A step's relative size goes with rate x sqrt(width), for kernels begin
orthogonal and Adam moves each entry by about the rate: networks of a sixth of these widths were trained at
twice the rates.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "record_biggan"
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
            name="biggan",
            channels=48,  # widths 768, 768, 384, 192, 96
            embed_dim=32,
            attention=(32,),  # heights
            attention_key_ratio=8,
            hierarchical=True,
            shared_embedding=True,
            gain_offset=1.0,
            condition_spectral=True,
            condition_joint=True,
            condition_bias=False,
            condition_init="orthogonal",
            style_layers=0,  # 0: no style
            blur=False,
            final_norm=True,
            activation="relu",
            slope=0.2,  # of a leaky activation
            conv_bias=False,
            linear_bias=False,
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="biggan",
            channels=96,  # widths 96, 192, 384, 768, 768
            attention=(32,),
            attention_key_ratio=8,
            preactivate_first=False,
            last_downsample=False,
            last_width=8,
            stddev_group=4,  # spread within so many pictures
            stddev_centred=True,
            embed_spectral=True,
            head_bias=False,
            projection=True,
            breed_head="linear",  # "none" | "linear_and_fake" | "cosine"
            activation="relu",
            slope=0.2,
            conv_bias=False,
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=64,
            latent_dim=120,
            loss=dict(name="relativistic_average", base="least_squares"),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated in two calls of the discriminator; "jointly": in one
            fakes="fresh",  # the generator's latents are its own; "reused": the discriminator's last ones
            fake_labels="uniform",  # "real": those of the real pictures beside them
            g_reals=True,  # real pictures of its own for the generator's step
            breed_loss=dict(name="cross_entropy", weight=0.1, of="real"),  # what breeds teach beside that
            d_penalties=dict(),
            g_penalties=dict(),
            diffaugment=dict(  # what real and generated pictures go through alike
                colour=dict(brightness=0.5, contrast=0.5, saturation=1.0), translation=dict(ratio=0.125)
            ),
            augment_p=dict(name="ramp", first=0.0, last=0.5, steps=110_000),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(name="adam", b1=0.0, b2=0.999, eps=1e-8, weight_decay=0.0)
    config.optimizer = ConfigDict(
        dict(
            g=dict(adam, schedule=dict(name="linear_end", learning_rate=2e-4, fraction=0.15)),
            d=dict(adam, schedule=dict(name="linear_end", learning_rate=4e-4, fraction=0.15)),
        )
    )
    half_life = {kimg: 0.5 ** (64 / (1000 * kimg)) for kimg in (50, 200, 500)}
    config.ema = ConfigDict(
        dict(
            decay=half_life[200],
            start=0,
            stats="average",
            rampup=0.1,
            tracks=(half_life[50], half_life[500]),  # further averages
        )
    )
    config.sample = ConfigDict(
        dict(
            truncation=0.0,  # |z| at most; 0: as drawn
            method="resample",
            labels="balanced",
            without=(),  # numbers of the breeds that are not drawn
            norm="running",  # "batch": each batch's own statistics; "refreshed": recomputed before sampling
            batch_size=0,  # pictures that share statistics, where norm is not "running"
            refresh=0,  # pictures to refresh over
            finish=dict(),  # what is done to each picture
            sweep=dict(  # what is tried in the end
                truncation=(0.0, 2.0, 1.0),
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
            steps=110_000,  # 7 million pictures, 283 PFLOP; nine hours of a P100 at its peak are 301
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
            final=("mifid", "is", "kid", "prdc", "per_class", "forensics"),  # of the pictures of images.zip
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
            "generator.channels": 4,
            "generator.embed_dim": 8,
            "generator.attention": (16,),
            "discriminator.channels": 4,
            "discriminator.last_width": 3,
            "discriminator.attention": (16,),
            "game.batch_size": 8,
            "game.latent_dim": 16,
            "ema.tracks": (0.9, 0.0),
            "game.label_ramp": (0.0, 0.5),
            "game.augment_p.steps": 8,
            "sample.sweep": {"truncation": (0.0, 1.0), "track": (0, 1)},
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
