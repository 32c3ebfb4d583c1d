"""SAGAN with residual connections, a public kernel of 2019.

    python -m jaxdog.main --config configs/sagan_residual.py --workdir runs/sagan_residual

Narrow networks (32 channels) with attention over 32x32 as the first version of the paper had it: nothing
pooled, values as wide as the map, no convolution after. Reproduced with its quirks: latents of length 1;
squares about the boxes' middles, 5 % moved and enlarged, that end where the photo ends; boxes and photos of
fewer than 64 pixels left out; fakes have the real pictures' breeds; Adam with (0, 0.999); real and generated
pictures judged apart; sampled with running statistics, breeds uniform.

Different: a photo was drawn and then one of its boxes, here all boxes are equally likely; the hundredth of
the photos whose files are largest was left out, here it is not; where a photo cuts a square off, its middle
is taken for the box's; squares are kept at 96x96 and cut from there; an epoch's last short batch is filled
up from the next; the bias of the keys, which changes nothing, is not there; while the generator learns, the
discriminator's spectral norms stay as they are. `get_config("test")` is the same experiment in seconds, on
drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "sagan_residual"
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
            store_size=96,  # of the crops as they are kept; the networks see cuts,
            crop=dict(
                name="around",
                context=1.15,  # sides of the kept squares in units of the boxes' long sides
                min_photo=64,
                min_side=64,
                resampler="lanczos",
            ),
            curate=dict(),  # what becomes of the set of crops
            cache_dir="~/.cache/jaxdog",
            workers=0,  # 0: one per core
        )
    )
    config.augment = ConfigDict(
        dict(
            jittered_square=dict(size=64, context=1.15, shift=0.05, grow=0.05, filter="bilinear"),
            flip=dict(p=0.5),
        )
    )

    config.generator = ConfigDict(
        dict(
            name="sagan",
            widths=(256, 256, 128, 64, 32),  # channels at 4x4, 8x8, ...
            attention=(32,),  # heights
            attention_form="whole",
            attention_bias=True,
            unit_latent=True,
            norm_own=False,  # a gain and a bias for all breeds beside each breed's
            last_norm=True,  # a norm and a ReLU before the last convolution
            momentum=0.9,  # weight of the past in running statistics
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="sagan",
            widths=(32, 64, 128, 256, 256),  # channels of the blocks' outputs
            halvings=4,  # so many blocks, from the first, halve the height
            attention=(32,),
            attention_form="whole",
            attention_bias=True,
            single=False,  # one convolution in each block but the first, and an activated shortcut
            head_bias=True,
            projection=True,
            breed_head="none",
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=64,
            latent_dim=128,
            loss=dict(name="hinge"),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated pictures in one call of the discriminator, or in two
            fakes="fresh",  # the generator's latents are its own, or the discriminator's last ones
            fake_labels="real",
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
            g=dict(adam, schedule=dict(name="constant", learning_rate=1e-4)),
            d=dict(adam, schedule=dict(name="constant", learning_rate=4e-4)),
        )
    )
    config.ema = ConfigDict(dict(decay=0.0, start=0, stats="copy", rampup=0.0, tracks=()))  # none
    config.sample = ConfigDict(
        dict(
            truncation=0.0,  # |z| at most; 0: as drawn
            method="resample",
            labels="uniform",
            without=(),  # numbers of the breeds that are not drawn
            norm="running",
            batch_size=0,  # pictures that share statistics, where norm is not "running"
            refresh=0,  # pictures to refresh over
            finish=dict(),  # what is done to each picture
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=86_000,  # 5.5 million pictures, 270 epochs of the photos,
            max_hours=8.95,  # 0: no limit,
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
            every_kimg=640.0,
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
            "data.store_size": 40,
            "data.crop.min_side": 24,  # drawn dogs are small
            "data.cache_dir": "runs/cache",
            "augment.jittered_square.size": 32,
            "generator.widths": (8, 8, 8, 8),
            "generator.attention": (16,),
            "discriminator.widths": (8, 8, 8),
            "discriminator.halvings": 2,
            "discriminator.attention": (16,),
            "game.size": 32,
            "game.batch_size": 8,
            "game.latent_dim": 16,
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
