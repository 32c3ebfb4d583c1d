"""Dmitry Vorobiev's BigGAN with augmentation, averaging and denoising: 5th place of the competition.

    python -m jaxdog.main --config configs/dog_biggan.py --workdir runs/dog_biggan

Public 14.95516, private 86.28; his other submission 14.83 and 82.30. This is his kernel ("K"), as he ran
it.

Reproduced: the networks of configs/biggan.py (generator 32, discriminator 64, attention at 32x32 with keys
of C/4) with a latent of 120, 24 to a slice; hinge, batch 32, one step each, Adam 0.85e-4 and 3.4e-4 with
betas 0 and 0.999; the average of all of the generator's state from step 50,000 on; 31,500 s. Up to eleven
crops of a dog, and what happens to each kind in training (`data/multicrop.py`). Pictures drawn with the
statistics of their own batch, in which each of the 120 breeds stands once, then denoised by non-local
means.

Quirks kept: the left end of a wide box twice (`both_sides`); a cast of 256 * white to a byte, which is
black (`wrap`); the cut of 64 out of 72 pixels that was to take turns with the warp and never had one, since
albumentations' OneOrOther with p=1 always takes the first (`zoom_p`; 0.5 was meant).

What differs: before he drew, K sent 20,000 samples through the averaged generator to renew its batch
statistics. It then stayed in training mode, which does not use them, so the step is left out; all that it
did was to bring the vectors of spectral norm to rest. Large crops are shrunk by means of 2x2, where K had
OpenCV's LANCZOS4, which does not average (R, below, has these means). Spectral norm rests in the
generator's step.

Memory: a dog of 128 pixels or more has about 4.1 crops, so 22,125 boxes give up to 91,000 pictures of
128x128x3: 4.5 GB, on the device too, and twice that on the host while they are cut. 18,547 photos that were
cut to their dogs, at most 152x152 pixels large, gave 33,360 small and 2 x 13,839 large crops, 3.0 GB.

His cleaned repository ("R"), which does not denoise (`config.sample.finish` is empty), differs by
    --config.data.crop.both_sides=True --config.game.latent_dim=100 --config.ema.start=30000
    --config.optimizer.g.schedule.learning_rate=1e-4 --config.optimizer.d.schedule.learning_rate=4e-4
    --config.sample.norm=refreshed --config.sample.refresh=10000
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "dog_biggan"
    config.seed = 1234
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
            store_size=128,  # small crops are stored with each pixel doubled
            crop=dict(
                name="multicrop",
                both_sides=False,  # True: a wide box's small crops are its left and its right end
                resampler="lanczos",
            ),
            curate=dict(),  # what becomes of the set of crops
            cache_dir="~/.cache/jaxdog",
            workers=0,  # 0: one per core
        )
    )
    config.augment = ConfigDict(
        dict(
            shift_scale_rotate=dict(  # for each kind of crop: plain, turned, moved
                size=64,
                shift=(0.0, 0.0, 0.06),
                scale_min=(1.0, 0.9, 0.94),
                scale_max=(1.0, 1.1, 1.18),
                degrees=(0.0, 8.0, 6.0),
                zoom=1.125,  # 72 / 64
                zoom_p=(0.0, 0.0, 0.0),  # (0.0, 0.5, 0.0): as it was meant
                border="reflect_101",
                filter="box",
            ),
            flip=dict(p=0.5),
        )
    )

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
            size=64,  # of the pictures that the networks see
            batch_size=32,
            latent_dim=120,
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
            g=dict(adam, schedule=dict(name="constant", learning_rate=0.85e-4)),
            d=dict(adam, schedule=dict(name="constant", learning_rate=3.4e-4)),
        )
    )
    config.ema = ConfigDict(dict(decay=0.9999, start=50_000, stats="average", rampup=0.0, tracks=()))
    config.sample = ConfigDict(
        dict(
            truncation=0.0,  # |z| at most; 0: as drawn
            method="resample",
            labels="balanced",
            without=(),  # numbers of the breeds that are not drawn
            norm="batch",  # "running"; "refreshed": recomputed before sampling
            batch_size=120,  # pictures that share statistics: one of each breed
            refresh=0,  # pictures to refresh over
            finish=dict(  # what is done to each picture
                quantise=dict(levels_256=True, wrap=True),  # wrap=False: white stays white
                non_local_means=dict(luminance=2.65, colour=1.0, template=7, search=11),
            ),
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=280_000,  # 100 epochs of 90,000 crops
            max_hours=8.75,
            memory_gb=0.0,  # a run that takes more stops; 0: no limit
            steps_per_dispatch=10,
            log_every=100,
            grid_every=5_000,
            grid_images=120,  # their own batch: one of each breed, as in the pictures that are handed in
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
            "data.store_size": 64,
            "augment.shift_scale_rotate.size": 32,
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
