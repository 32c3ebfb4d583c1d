"""RaLS-AC-BigGAN with minibatch stddev, 2nd of the 2019 competition: yabae (yukia18).

    python -m jaxdog.main --config configs/rals_ac_biggan.py --workdir runs/rals_ac_biggan

Public score 15.82, private 58.36; the other submission of the two had 15.79 and 56.47. Relativistic
average least squares, an auxiliary classifier that the discriminator learns from real pictures only,
attention at 32x32, an average of 0.999.

Reproduced with its quirks: only the last box of each photo; a box grows inside the photo, but what it
lacks on the right or below is not made up for on the other side, and the rest is squashed; U[0, 1) / 128
is added to real pictures and never to generated ones; the minibatch stddev subtracts its groups' means in
place, so the last block sees deviations only; each player's step draws real pictures of its own, 256 in an
iteration; pictures are drawn by the average in training mode, 50 at a time.

Different: while the generator learns, the discriminator's spectral norms stay as they are (there they
iterated twice); boxes are clipped to their photo before they grow; the rate begins to fall one iteration
earlier.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "rals_ac_biggan"
    config.seed = 42
    config.dtype = "float32"
    config.init_from = ""  # work folder of a run whose networks this one begins with

    config.data = ConfigDict(
        dict(
            source="tfds",
            path="",
            archives="",
            toy_photos=512,
            classes=120,
            size=64,
            store_size=64,
            crop=dict(
                name="box_square",
                mode="grow_high",
                pad_mode="none",
                which="last",  # 20,579 crops
                margin=0,
                min_side=1,
                min_aspect=0.0,  # height / width
                max_aspect=100.0,
                resampler="area",  # "better than others"
            ),
            curate=dict(),
            cache_dir="~/.cache/jaxdog",
            workers=0,
        )
    )
    config.augment = ConfigDict(dict(flip=dict(p=0.5), uniform_noise=dict(scale=1 / 128)))

    config.generator = ConfigDict(
        dict(
            name="biggan",
            channels=32,  # widths 512, 512, 256, 128, 64
            embed_dim=32,
            attention=(32,),
            attention_key_ratio=8,
            hierarchical=True,
            shared_embedding=True,
            gain_offset=1.0,
            condition_spectral=True,
            condition_joint=True,
            condition_bias=False,
            condition_init="orthogonal",
            style_layers=0,
            blur=False,
            final_norm=True,
            activation="relu",
            slope=0.2,
            conv_bias=False,
            linear_bias=False,
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="biggan",
            channels=64,  # widths 64, 128, 256, 512, 512
            attention=(32,),
            attention_key_ratio=8,
            preactivate_first=False,
            last_downsample=False,
            last_width=8,
            stddev_group=4,
            stddev_centred=True,
            embed_spectral=True,
            head_bias=False,
            projection=True,
            breed_head="linear",
            activation="relu",
            slope=0.2,
            conv_bias=False,
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,
            batch_size=128,
            latent_dim=120,
            loss=dict(name="relativistic_average", base="least_squares"),
            d_steps=1,
            accumulate=1,
            judge="apart",
            fakes="fresh",
            fake_labels="uniform",
            g_reals=True,
            breed_loss=dict(name="cross_entropy", weight=0.1, of="real"),  # "quite sensitive"
            d_penalties=dict(),  # names -> weight, every, and what each needs
            g_penalties=dict(),
            diffaugment=dict(),  # what real and generated pictures go through alike
            augment_p=dict(name="fixed", p=1.0),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(name="adam", b1=0.0, b2=0.999, eps=1e-8, weight_decay=0.0)
    linear_end = dict(name="linear_end", fraction=1 / 26)  # the last 1,000 iterations
    config.optimizer = ConfigDict(
        dict(
            g=dict(adam, schedule=dict(linear_end, learning_rate=2e-4)),
            d=dict(adam, schedule=dict(linear_end, learning_rate=4e-4)),
        )
    )
    config.ema = ConfigDict(dict(decay=0.999, start=0, stats="average", rampup=0.0, tracks=()))
    config.sample = ConfigDict(
        dict(
            truncation=2.0,
            method="truncnorm",
            labels="uniform",
            without=(),
            norm="batch",
            batch_size=50,
            refresh=0,
            finish=dict(),
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=26_000,  # 6.7 million pictures, 323 epochs of 20,579
            max_hours=8.5,
            memory_gb=0.0,
            steps_per_dispatch=10,
            log_every=100,
            grid_every=1_000,
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
    config.checkpoint = ConfigDict(dict(every=500, keep_last=2, keep_best=2))
    config.eval = ConfigDict(
        dict(
            every_kimg=640.0,
            samples=5_000,
            batch_size=128,
            weights="published",
            resampler="lanczos",
            eps=0.1,
            best="fid2048",
            final=("mifid", "is", "kid", "prdc", "per_class", "forensics"),
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
            "sample.batch_size": 8,
            "train.steps": 8,
            "train.max_hours": 0.0,
            "train.steps_per_dispatch": 2,
            "train.log_every": 2,
            "train.grid_every": 4,
            "train.grid_images": 8,
            "checkpoint.every": 4,
            "eval.every_kimg": 0.064,
            "eval.samples": 16,
            "eval.batch_size": 8,
            "eval.weights": "random",
            "eval.best": "fid768",
            "submit.images": 16,
        }
    )
