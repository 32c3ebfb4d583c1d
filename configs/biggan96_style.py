"""BigGAN at 96x96 with a style and a blur, 4th of the 2019 competition: bestfitting.

    python -m jaxdog.main --config configs/biggan96_style.py --workdir runs/biggan96_style

Public score 12.46, the best of all that were honest, private 77.81. Half of what it saw were boxes, half
were squares out of whole photos; its pictures were made at 96x96 and shrunk.

Reproduced: a narrow BigGAN (24 channels) without attention and without a shared embedding; a style of six
dense layers adds a second gain and bias to every conditional norm; each block's first convolution is
blurred; the average of 0.9999 from step 2,000 on draws in training mode, 32 at a time, latents not
truncated; what is shrunk has 8 bits.

Different: he drew a photo, then with even chances one of its boxes or a square of it; here a photo is
among the crops as often as it has boxes, so the kinds are even, but the 7 % of photos with several dogs
come as often as they have dogs. All is kept at 128x128 and resized again from there. A square may lie at
the very end of its photo, which his never did. While the generator learns, the discriminator's spectral
norms stay as they are. He made 195 to 200 epochs of 643 batches.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "biggan96_style"
    config.seed = 0
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
            crop=dict(name="box_and_photo", resampler="lanczos"),
            curate=dict(),
            cache_dir="~/.cache/jaxdog",
            workers=0,
        )
    )
    config.augment = ConfigDict(
        dict(
            random_square=dict(size=96, central=0.0, zoom=1.0, kinds=(1,), filter="lanczos"),  # 1: photos
            flip=dict(p=0.5),
        )
    )

    config.generator = ConfigDict(
        dict(
            name="biggan",
            channels=24,  # widths 384, 384, 192, 96, 48
            embed_dim=0,  # each norm has embeddings of its own
            attention=(),
            attention_key_ratio=8,
            hierarchical=False,
            shared_embedding=False,
            gain_offset=1.0,
            condition_spectral=False,
            condition_joint=False,
            condition_bias=False,
            condition_init="orthogonal",
            style_layers=6,
            blur=True,
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
            channels=24,  # widths 24, 48, 96, 192, 384
            attention=(),
            attention_key_ratio=8,
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
            size=96,
            batch_size=32,
            latent_dim=128,
            loss=dict(name="hinge"),
            d_steps=1,
            accumulate=1,
            judge="jointly",
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
            g=dict(adam, schedule=dict(name="constant", learning_rate=1e-4)),
            d=dict(adam, schedule=dict(name="constant", learning_rate=6e-4)),
        )
    )
    config.ema = ConfigDict(dict(decay=0.9999, start=2_000, stats="average", rampup=0.0, tracks=()))
    config.sample = ConfigDict(
        dict(
            truncation=0.0,
            method="resample",
            labels="uniform",
            without=(),
            norm="batch",
            batch_size=32,
            refresh=0,
            finish=dict(shrink=dict(size=64, filter="lanczos")),
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=128_600,  # 200 epochs of 643 batches
            max_hours=8.5,
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
            "data.size": 24,
            "data.store_size": 40,
            "augment.random_square.size": 32,
            "game.size": 32,
            "sample.finish.shrink.size": 24,
            "data.cache_dir": "runs/cache",
            "generator.channels": 3,
            "generator.style_layers": 2,
            "discriminator.channels": 3,
            "game.batch_size": 8,
            "game.latent_dim": 8,
            "ema.start": 2,
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
