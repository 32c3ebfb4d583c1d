"""A small BigGAN on drawn dogs: the whole job in minutes on a CPU, without any file or network.

    python -m jaxdog.main --config configs/toy.py --workdir runs/toy

It shows what a run does and writes; its scores come from a network of random weights (rFID) and say only
whether this run gets better. `get_config("test")` is the same experiment in seconds.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "toy"
    config.seed = 0
    config.dtype = "float32"
    config.init_from = ""  # work folder of a run whose networks this one begins with

    config.data = ConfigDict(
        dict(
            source="toy",
            path="",
            archives="",
            toy_photos=256,
            classes=10,
            size=32,
            store_size=32,  # of the crops as they are kept; more than game.size where augmentations cut
            crop=dict(
                name="box_square",
                mode="grow",
                pad_mode="none",
                which="all",
                margin=2,
                min_side=1,
                min_aspect=0.0,
                max_aspect=100.0,
                resampler="lanczos",
            ),
            curate=dict(),  # what becomes of the set of crops
            cache_dir="~/.cache/jaxdog",
            workers=0,
        )
    )
    config.augment = ConfigDict(dict(flip=dict(p=0.5)))

    config.generator = ConfigDict(
        dict(
            name="biggan",
            channels=16,
            embed_dim=16,
            attention=(16,),
            attention_key_ratio=4,
            hierarchical=True,
            shared_embedding=True,
            gain_offset=1.0,
            condition_spectral=True,
            condition_joint=False,
            condition_bias=False,
            condition_init="orthogonal",
            style_layers=0,
            blur=False,
            final_norm=True,
            activation="relu",
            slope=0.2,
            conv_bias=True,
            linear_bias=True,
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="biggan",
            channels=16,
            attention=(16,),
            attention_key_ratio=4,
            preactivate_first=False,
            last_downsample=False,
            last_width=0,
            stddev_group=0,
            stddev_centred=False,
            embed_spectral=True,
            head_bias=True,
            projection=True,
            breed_head="none",  # "linear" | "linear_and_fake" | "cosine"
            activation="relu",
            slope=0.2,
            conv_bias=True,
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=32,  # of the pictures that the networks see
            batch_size=16,
            latent_dim=32,
            loss=dict(name="hinge"),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="jointly",  # real and generated in one call of the discriminator; "apart": in two
            fakes="fresh",  # the generator's latents are its own; "reused": the discriminator's last ones
            fake_labels="uniform",  # "real": those of the real pictures beside them
            g_reals=False,  # relativistic losses: real pictures of its own for the generator's step
            breed_loss=dict(name="none"),  # what breeds teach beside that
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
            g=dict(adam, schedule=dict(name="constant", learning_rate=4e-4)),
            d=dict(adam, schedule=dict(name="constant", learning_rate=8e-4)),
        )
    )
    config.ema = ConfigDict(dict(decay=0.98, start=100, stats="average", rampup=0.0, tracks=()))
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
            steps=800,
            max_hours=0.0,
            memory_gb=0.0,
            steps_per_dispatch=10,
            log_every=20,
            grid_every=100,
            grid_images=40,
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
    config.checkpoint = ConfigDict(dict(every=200, keep_last=2, keep_best=1))
    config.eval = ConfigDict(
        dict(
            every_kimg=3.2,
            samples=64,
            batch_size=16,
            weights="random",
            resampler="lanczos",
            eps=0.1,
            best="fid768",
            final=("mifid", "is", "kid", "prdc", "per_class", "forensics"),  # of the pictures of images.zip
        )
    )
    config.submit = ConfigDict(dict(images=200))
    if variant == "test":
        _shrink(config)
    elif variant != "full":
        raise ValueError(f"variant is {variant!r}; choices: 'full', 'test'")
    return config


def _shrink(config: ConfigDict) -> None:
    """The same experiment in seconds."""
    config.update_from_flattened_dict(
        {
            "data.toy_photos": 48,
            "data.cache_dir": "runs/cache",
            "data.curate": {"hold_out": {"every": 10}},
            "generator.channels": 4,
            "generator.embed_dim": 8,
            "discriminator.channels": 4,
            "game.batch_size": 8,
            "game.latent_dim": 16,
            "ema.start": 2,
            "ema.tracks": (0.0,),
            "sample.sweep": {"track": (0, 1)},
            "train.steps": 8,
            "train.steps_per_dispatch": 2,
            "train.log_every": 2,
            "train.grid_every": 4,
            "train.grid_images": 8,
            "checkpoint.every": 4,
            "eval.every_kimg": 0.032,
            "eval.samples": 16,
            "eval.batch_size": 8,
            "submit.images": 16,
        }
    )
