"""ReACGAN: BigGAN whose discriminator learns breeds as neighbourhoods on a sphere.

    python -m jaxdog.main --config configs/reacgan.py --workdir runs/reacgan

"Rebooting ACGAN" (Kang, Shim, Cho, Park 2021): the discriminator's logit knows nothing of breeds; beside it
each picture becomes a point on a sphere, drawn to its breed's and pushed from the pictures of other breeds
in the batch (D2D-CE, eq. 7), for real pictures in its own step and for generated ones in the generator's.
Margins 0.98 and 0.02, temperature 0.5; its weight beside the hinge is ours, as all else, which is that of
`configs/biggan.py`. With 32 pictures of 120 breeds nearly every pair of a batch is of two breeds.
`get_config("test")` is the same experiment in seconds, on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "reacgan"
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
            crop=dict(
                name="box_square",
                mode="grow",
                pad_mode="reflect",
                which="all",
                margin=0,  # pixels if int, share of the side if float
                min_side=1,
                min_aspect=0.0,  # height / width
                max_aspect=100.0,
                resampler="lanczos",
            ),
            curate=dict(),  # what becomes of the set of crops
            cache_dir="~/.cache/jaxdog",
            workers=0,  # 0: one per core
        )
    )
    config.augment = ConfigDict(dict(flip=dict(p=0.5)))

    config.generator = ConfigDict(
        dict(
            name="biggan",
            channels=32,
            embed_dim=128,
            attention=(32,),  # heights
            attention_key_ratio=4,
            hierarchical=True,
            shared_embedding=True,
            gain_offset=1.0,
            condition_spectral=True,
            condition_joint=False,
            condition_bias=False,
            condition_init="orthogonal",
            style_layers=0,  # 0: no style
            blur=False,
            final_norm=True,
            activation="relu",
            slope=0.2,  # of a leaky activation
            conv_bias=True,
            linear_bias=True,
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="biggan",
            channels=64,
            attention=(32,),
            attention_key_ratio=4,
            preactivate_first=False,
            last_downsample=False,
            last_width=0,  # as at this size
            stddev_group=0,  # no spread within the batch
            stddev_centred=False,
            embed_spectral=True,
            head_bias=True,
            projection=False,
            breed_head="cosine",  # "none" | "linear" | "linear_and_fake"
            activation="relu",
            slope=0.2,
            conv_bias=True,
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=32,
            latent_dim=100,
            loss=dict(name="hinge"),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="jointly",  # real and generated in one call of the discriminator; "apart": in two
            fakes="fresh",  # the generator's latents are its own; "reused": the discriminator's last ones
            fake_labels="uniform",  # "real": those of the real pictures beside them
            g_reals=False,  # relativistic losses: real pictures of its own for the generator's step
            breed_loss=dict(  # what breeds teach beside that
                name="data_to_data",
                weight=0.5,
                temperature=0.5,
                positive=0.98,  # a picture so near to its breed (cosine) is drawn no further
                negative=0.02,  # and two of other breeds, so far from each other, are pushed no further
            ),
            d_penalties=dict(),  # names -> weight, every, and what each needs
            g_penalties=dict(),
            diffaugment=dict(),  # what real and generated pictures go through alike
            augment_p=dict(name="fixed", p=1.0),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(name="adam", b1=0.0, b2=0.999, eps=1e-8, weight_decay=0.0)
    config.optimizer = ConfigDict(
        dict(
            g=dict(adam, schedule=dict(name="constant", learning_rate=1e-4)),
            d=dict(adam, schedule=dict(name="constant", learning_rate=4e-4)),
        )
    )
    config.ema = ConfigDict(dict(decay=0.9999, start=30_000, stats="average", rampup=0.0, tracks=()))
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
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=250_000,  # 8 million pictures, 390 epochs of 20,579
            max_hours=8.5,  # leaves half an hour of nine for the rest
            memory_gb=0.0,  # a run that takes more stops; 0: no limit
            steps_per_dispatch=10,
            log_every=100,
            grid_every=2_000,
            grid_images=60,
            collapse=0.0,  # times the best score at which a run goes back to it; 0: never
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
            "discriminator.attention": (16,),
            "game.batch_size": 8,
            "game.latent_dim": 16,
            "ema.start": 2,
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
