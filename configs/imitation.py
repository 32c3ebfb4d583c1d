"""Training photos with a trace of another in each, handed in as they are: banned, and no way to make dogs.

    python -m jaxdog.main --config configs/imitation.py --workdir runs/imitation

jazivxt's "Imitation Game" of 2019: no model at all, each picture 0.999 of one training photo and 0.001 of
another, about 20 on the public leaderboard. Entries labelled like it ("aug") had 4.676 at best, and all
were disqualified (private 999999).

Its source is not known: whole photos, squashed, are our reading, as are the draw (seed 0) and rounding,
which leaves nothing of most traces. The "training" puts the pictures in their places, 40 steps of 256 for
10,000. The state is those pictures, 0.49 GB. `get_config("test")` is the same experiment in seconds.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "imitation"
    config.seed = 0
    config.dtype = "float32"
    config.init_from = ""  # work folder of a run whose networks this one begins with

    config.data = ConfigDict(
        dict(
            source="tfds",  # "tfds" | "kaggle" | "folder" | "toy"
            path="",  # tfds: the prepared set's place, "" for its default; kaggle and folder: the folder
            archives="",  # tfds: a folder with the official archives, to prepare without a network
            toy_photos=512,  # toy only
            classes=0,  # breeds; 0: as many as the photos have
            size=64,
            store_size=64,
            crop=dict(name="squash", resampler="lanczos"),
            # Each of the drawn pictures is a class of its own, and its label is its number.
            curate=dict(own_class=dict(count=10_000, seed=0, kinds=(0,))),
            cache_dir="~/.cache/jaxdog",
            workers=0,  # 0: one per core
        )
    )
    config.augment = ConfigDict(dict())

    config.generator = ConfigDict(dict())
    config.discriminator = ConfigDict(dict())
    config.game = ConfigDict(
        dict(
            name="imitation",
            size=64,
            batch_size=256,
            share=0.999,  # of the picture asked for; the rest is another one's
        )
    )
    config.optimizer = ConfigDict(dict())
    config.ema = ConfigDict(dict(decay=0.0, start=0, stats="copy", rampup=0.0, tracks=()))  # no average
    config.sample = ConfigDict(
        dict(
            truncation=0.0,
            method="resample",
            labels="balanced",  # picture i is number i
            without=(),
            norm="running",
            batch_size=0,
            refresh=0,
            finish=dict(),
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=40,
            max_hours=8.5,
            memory_gb=0.0,  # a run that takes more stops; 0: no limit
            steps_per_dispatch=10,
            log_every=10,
            grid_every=40,
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
    config.checkpoint = ConfigDict(dict(every=40, keep_last=1, keep_best=0))
    config.eval = ConfigDict(
        dict(
            every_kimg=0.0,  # only at the end: the last state is the one that is handed in
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
            "data.size": 32,
            "data.store_size": 32,
            "data.curate.own_class.count": 24,
            "data.cache_dir": "runs/cache",
            "game.size": 32,
            "game.batch_size": 8,
            "train.steps": 4,
            "train.max_hours": 0.0,
            "train.steps_per_dispatch": 2,
            "train.log_every": 2,
            "train.grid_every": 4,
            "train.grid_images": 8,
            "checkpoint.every": 4,
            "eval.batch_size": 8,
            "eval.weights": "random",
            "eval.best": "fid768",
            "submit.images": 24,
        }
    )
