"""Theo Viel's conditional progressive GAN, 6th of the competition.

    python -m jaxdog.main --config configs/progan.py --workdir runs/progan

2019: public 30.33, private 82.78. One network for each size from 4x4 to 64x64, [5, 10, 20, 40, 100] epochs of
346 steps. A limit of 32,000 s stopped his run after 66 epochs at 64x64; `train.max_hours` is that limit.
On a faster machine his 66 epochs are --config.train.max_hours=0 --config.train.steps=48790
--config.game.steps="(1730,3460,6920,13840,22840)".

Reproduced, what is odd about it included:
- blocks are there at once: his fade-in of [50, 20, 20, 10, 5] % came out as 0 of an integer division. What he
  meant is `game.fade=(0.5, 0.2, 0.2, 0.1, 0.05)`, of which the first has nothing to fade.
- the score goes through a leaky ReLU before the projection is added.
- the breeds' vectors are kept within length 1. torch does it to the rows of a batch before it uses them, here
  it is done to all rows after each update: rows outside the batch, which only momentum moves, get there an
  update or two earlier.
- the generator learns from the discriminator's latents, and the fakes' breeds are those of the real pictures.
- Adam counts the steps of each parameter from when it first took part.
- the average goes on from size to size, new blocks join it as they were drawn; its decay at 64x64 becomes
  0.999 with epoch 50 and would have become 0.9999 with epoch 100 (`game.cuts`).

Different: a box is stored at 128x128 and cut in its true shape from there, where he resized its short side to
64 first; layers that only the smaller sizes need are dropped instead of idling; the pictures handed in are
those of the best checkpoint, not of the last.

Scores of each breed: `eval.final` has per_class. Breeds to leave out: `sample.without`, their numbers; he
tried it with the worst ones, and it did not help.
"""

from ml_collections import ConfigDict

EPOCH = 346  # steps
EPOCHS = (5, 10, 20, 40, 100)


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "progan"
    config.seed = 2019
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
            store_size=128,  # of the crops as they are kept, squashed
            crop=dict(
                name="box",
                which="all",
                margin=10,  # pixels on each side
                min_side=1,
                min_aspect=0.0,  # height / width
                max_aspect=100.0,
                resampler="bilinear",
            ),
            curate=dict(),  # what becomes of the set of crops
            cache_dir="~/.cache/jaxdog",
            workers=0,  # 0: one per core
        )
    )
    config.augment = ConfigDict(
        dict(
            random_square=dict(size=64, central=0.5, zoom=1.0, kinds=(), filter="bilinear"),
            flip=dict(p=0.5),
            colour_jitter=dict(
                brightness=0.2, contrast_min=0.9, contrast_max=1.2, saturation=0.3, hue=0.01, p=0.5
            ),
        )
    )

    config.generator = ConfigDict(dict(name="progan", channels=256))
    config.discriminator = ConfigDict(dict(name="progan", channels=256))
    config.game = ConfigDict(
        dict(
            name="progressive",
            sizes=(4, 8, 16, 32, 64),  # of the pictures that the networks make and see
            steps=tuple(EPOCH * epochs for epochs in EPOCHS),  # of each size
            fade=(0.0,) * 5,  # share of each size's steps over which its newest blocks fade in
            cuts=(49 * EPOCH, 99 * EPOCH),  # steps of the last size: 1 - ema.decay is a tenth after each
            size=64,  # of the pictures before they are averaged to the sizes above
            batch_size=64,
            latent_dim=136,  # with the one-hot breed 256
            loss=dict(name="hinge"),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated in two calls of the discriminator
            fakes="reused",  # the generator learns from the discriminator's latents
            fake_labels="real",  # of the real pictures beside them
            g_reals=False,  # relativistic losses: real pictures of its own for the generator's step
            breed_loss=dict(name="none"),  # what breeds teach beside that
            d_penalties=dict(),  # names -> weight, every, and what each needs
            g_penalties=dict(),
            diffaugment=dict(),  # what real and generated pictures go through alike
            augment_p=dict(name="fixed", p=1.0),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(
        name="adam_per_leaf",
        b1=0.5,
        b2=0.99,
        eps=1e-8,
        weight_decay=0.0,
        schedule=dict(name="constant", learning_rate=6e-3),
    )
    config.optimizer = ConfigDict(
        dict(
            g=dict(adam, longest_rows=dict()),
            d=dict(adam, longest_rows=dict(embed=1.0)),
        )
    )
    config.ema = ConfigDict(
        dict(decay=(0.9, 0.9, 0.99, 0.99, 0.99), start=0, stats="copy", rampup=0.0, tracks=())
    )
    config.sample = ConfigDict(
        dict(
            truncation=0.0,  # |z| at most; 0: as drawn
            method="resample",
            labels="uniform",
            without=(),  # numbers of the breeds that are not drawn
            norm="running",  # there are no batch statistics
            batch_size=0,
            refresh=0,
            finish=dict(),  # what is done to each picture
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=EPOCH * sum(EPOCHS),
            max_hours=8.89,  # 32,000 seconds
            memory_gb=0.0,  # a run that takes more stops; 0: no limit
            steps_per_dispatch=10,
            log_every=100,
            grid_every=1_730,
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
    """The same experiment in seconds: up to 16x16, and with a fade-in, which is the longer way through."""
    config.update_from_flattened_dict(
        {
            "data.source": "toy",
            "data.toy_photos": 48,
            "data.classes": 0,
            "data.size": 16,
            "data.store_size": 24,
            "data.cache_dir": "runs/cache",
            "augment.random_square.size": 16,
            "generator.channels": 12,
            "discriminator.channels": 12,
            "game.sizes": (4, 8, 16),
            "game.steps": (2, 4, 6),
            "game.fade": (0.0, 0.0, 0.5),
            "game.cuts": (2,),
            "game.size": 16,
            "game.batch_size": 8,
            "game.latent_dim": 5,
            "ema.decay": (0.9, 0.9, 0.99),
            "train.steps": 12,
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
