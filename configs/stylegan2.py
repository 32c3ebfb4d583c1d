"""StyleGAN2 (Karras et al. 2020, config F) at 64x64.

    python -m jaxdog.main --config configs/stylegan2.py --workdir runs/stylegan2

No entry of 2019: the paper came half a year later. From the paper (sec. 2 to 4, app. B) and its program:
modulated and demodulated convolutions, pictures of all heights added up, a residual discriminator, no
growing; 512 channels at all heights, which is what config F has at this size; a mapping network of 8 layers
that learns at a hundredth of the rate; styles of two latents in nine pictures of ten; non-saturating loss; R1
of weight 10 each 16 steps, path lengths of weight 2 each 4 steps over half of the batch; Adam at 2e-3 with b1
= 0, b2 = 0.99; an average whose half-life is 10,000 pictures; 32 pictures a step, 25 million in all.
Unconditional, as in the paper. With --config.generator.embed_dim=512 --config.discriminator.projection=True
breeds are looked at by both.

Different: pictures are truncated to 0.7 of the distance from the mean style, where the paper scores them as
they come (--config.generator.psi=1.0); resampled features differ along the border, see `models/stylegan.py`;
penalties are part of the step in which they are due, where the program made a step of their own of them, and
corrected Adam for it; each picture has a place of its own where the second style begins, not each batch; the
running mean of w moves in the generator's steps only.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "stylegan2"
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
            store_size=64,  # of the crops as they are kept
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
            name="stylegan",
            channels=512,
            style_dim=512,  # numbers of w
            mapping_layers=8,
            mapping_rate=0.01,  # share of the optimiser's learning rate
            embed_dim=0,  # of the breed's vector beside z; 0: breeds are not looked at
            modulation="demodulated",  # "adain": StyleGAN's
            wide_to=64,  # height of the last maps with all channels; above, half as many at each height
            mixing=0.9,  # probability that a picture has the styles of two latents
            psi=0.7,  # when sampling: w's share of the distance from its mean; 1: as mapped
            psi_to=64,  # height of the last maps of which this is so
            mean_decay=0.995,  # of the running mean of w
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="stylegan",
            channels=512,
            residual=True,
            projection=False,
            stddev_group=4,  # pictures that are compared with each other
            wide_to=64,
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=32,
            latent_dim=512,
            loss=dict(name="non_saturating"),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated in two calls of the discriminator
            fakes="fresh",  # the generator's latents are its own; "reused": the discriminator's last ones
            fake_labels="uniform",  # breeds are not looked at
            g_reals=False,  # relativistic losses: real pictures of its own for the generator's step
            breed_loss=dict(name="none"),  # what breeds teach beside that
            d_penalties=dict(r1=dict(weight=10.0, every=16)),  # names -> weight, every, and what each needs
            g_penalties=dict(path_length=dict(weight=2.0, every=4, decay=0.99, share=0.5)),
            diffaugment=dict(),  # what real and generated pictures go through alike
            augment_p=dict(name="fixed", p=1.0),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(name="adam", b1=0.0, b2=0.99, eps=1e-8, weight_decay=0.0)
    config.optimizer = ConfigDict(
        dict(
            g=dict(adam, schedule=dict(name="constant", learning_rate=2e-3)),
            d=dict(adam, schedule=dict(name="constant", learning_rate=2e-3)),
        )
    )
    # Half of what the average holds is of the last 10,000 pictures; the mean of w is the generator's own.
    config.ema = ConfigDict(dict(decay=0.5 ** (32 / 10_000), start=0, stats="copy", rampup=0.0, tracks=()))
    config.sample = ConfigDict(
        dict(
            truncation=0.0,  # |z| at most; 0: as drawn; generator.psi truncates w
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
            steps=781_250,  # 25 million pictures
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
            "data.classes": 0,
            "data.size": 16,
            "data.store_size": 16,
            "data.cache_dir": "runs/cache",
            "generator.channels": 8,
            "generator.style_dim": 8,
            "generator.mapping_layers": 2,
            "generator.wide_to": 8,
            "generator.psi_to": 8,
            "discriminator.channels": 8,
            "discriminator.wide_to": 8,
            "game.size": 16,
            "game.batch_size": 8,
            "game.latent_dim": 8,
            "ema.decay": 0.9,
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
