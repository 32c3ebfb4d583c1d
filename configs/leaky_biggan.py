"""BigGAN with leaky ReLUs and cross-entropy, 1st of the 2019 competition: tikutiku.

    python -m jaxdog.main --config configs/leaky_biggan.py --workdir runs/leaky_biggan

Private score 55.42, public 31.10 (the other submission: 60.15 and 31.06). Plain box crops, targets of 0.9
for real pictures, a low truncation, no average.

Reproduced with its quirks: every norm of the generator has a dense layer of its own, without spectral
norm, from [24 numbers of z, the breed one-hot], whose gains have no 1 added and whose start is a wrongly
cut orthogonal matrix; the last map is not normed; slopes are 0.01 in the generator and 0.2 in the
discriminator, whose first leaky ReLU sees the picture itself; its embedding of breeds has no spectral
norm; fakes are drawn in training mode, 50 at a time, |z| < 0.8.

Different: his list of some 60 crops that show no dog is not to be had, so these are trained on; boxes are
kept at 128x128 and shrunk to a short side of 64 from there; what a box has outside its photo is left out
(it was black); while the generator learns, the discriminator's spectral norms stay as they are; an epoch's
last short batch is filled up from the next one. His run was to have 500 epochs and the clock stopped it
after 31,800 s, at 130: here it ends after as many steps, or at that time.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "leaky_biggan"
    config.seed = 2019
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
            store_size=128,
            crop=dict(
                name="box",
                which="all",
                margin=0,
                min_side=1,
                min_aspect=0.2,  # height / width
                max_aspect=4.0,
                resampler="bilinear",
            ),
            curate=dict(),
            cache_dir="~/.cache/jaxdog",
            workers=0,
        )
    )
    config.augment = ConfigDict(
        dict(
            random_square=dict(size=64, central=0.0, zoom=1.0, kinds=(), filter="bilinear"),
            flip=dict(p=0.5),
        )
    )

    config.generator = ConfigDict(
        dict(
            name="biggan",
            channels=36,  # widths 576, 576, 288, 144, 72
            embed_dim=0,  # breeds are one-hot
            attention=(32,),
            attention_key_ratio=8,
            hierarchical=True,
            shared_embedding=False,
            gain_offset=0.0,
            condition_spectral=False,
            condition_joint=True,
            condition_bias=True,
            condition_init="sliced",
            style_layers=0,
            blur=False,
            final_norm=False,
            activation="leaky_relu",
            slope=0.01,
            conv_bias=False,
            linear_bias=True,
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="biggan",
            channels=42,  # widths 42, 84, 168, 336, 672
            attention=(32,),
            attention_key_ratio=8,  # of 42 channels: 5
            preactivate_first=True,
            last_downsample=False,
            last_width=0,
            stddev_group=0,
            stddev_centred=False,
            embed_spectral=False,
            head_bias=True,
            projection=True,
            breed_head="none",  # "linear" | "linear_and_fake" | "cosine"
            activation="leaky_relu",
            slope=0.2,
            conv_bias=False,
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,
            batch_size=32,
            latent_dim=120,
            loss=dict(
                name="cross_entropy",
                real_low=0.9,
                real_high=0.9,
                fake_low=0.0,
                fake_high=0.0,
                swap=0.0,
                margin=1.0,  # no bound of the real term
            ),
            d_steps=1,
            accumulate=1,
            judge="apart",
            fakes="fresh",
            fake_labels="uniform",
            g_reals=False,
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
            g=dict(adam, schedule=dict(name="constant", learning_rate=3e-4)),
            d=dict(adam, schedule=dict(name="constant", learning_rate=3e-4)),
        )
    )
    config.ema = ConfigDict(dict(decay=0.0, start=0, stats="copy", rampup=0.0, tracks=()))  # none
    config.sample = ConfigDict(
        dict(
            truncation=0.8,
            method="resample",
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
            steps=89_700,  # 130 epochs of 690 batches
            max_hours=8.83,
            memory_gb=0.0,
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
            "data.store_size": 48,
            "augment.random_square.size": 32,
            "game.size": 32,
            "data.cache_dir": "runs/cache",
            "generator.channels": 3,
            "generator.attention": (16,),
            "discriminator.channels": 3,
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
            "eval.every_kimg": 0.032,
            "eval.samples": 16,
            "eval.batch_size": 8,
            "eval.weights": "random",
            "eval.best": "fid768",
            "submit.images": 16,
        }
    )
