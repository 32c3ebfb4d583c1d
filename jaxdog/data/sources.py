"""Sources of photos: Stanford Dogs from tfds, the competition's files, or any folder.

Each function returns a `photos.Source`, whose photos are read lazily, in several threads. Drawn dogs, which
need no files, are in `toy.py`.
"""

import contextlib
import functools
import hashlib
import importlib.util
import os
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

from jaxdog.data import cropping, listing, photos
from jaxdog.utils import errors, files, optional, untrusted

ARCHIVES = ("images.tar", "annotation.tar", "lists.tar")
MAX_ANNOTATION = 1 << 20  # bytes
MAX_BOXES = 1000  # of a photo
NO_BOX = "its annotation has no box, so the whole photo counts as the object"
_TFDS_NAME = "stanford_dogs"
_TFDS = ("tensorflow_datasets", "Stanford Dogs from TensorFlow Datasets (data.source 'tfds')")


class Lazy(Sequence[photos.Photo]):
    """A sequence of n photos; photo i is `make(i)`."""

    def __init__(self, n: int, make: Callable[[int], photos.Photo]):
        self._n, self._make = n, make

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> photos.Photo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[photos.Photo]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._n))]
        if not -self._n <= index < self._n:
            raise IndexError(f"photo {index} of {self._n}")
        return self._make(index % self._n)


# ------------------------------------------------------------------------------------- tfds


def tfds(
    data_dir: str | os.PathLike | None = None,
    archives: str | os.PathLike | None = None,
    splits: Sequence[str] = ("train", "test"),
    prepare: bool = True,
) -> photos.Source:
    """Stanford Dogs (Khosla et al., 2011) as tfds `stanford_dogs`: 20,580 photos, 120 breeds, all boxes.

    Reading does not need TensorFlow. Preparing the dataset needs it once: tfds writes ArrayRecord files from
    the official archives, which are downloaded or in a local folder.

    Args:
      data_dir: data folder of tfds; None: its default (~/tensorflow_datasets).
      archives: folder with images.tar, annotation.tar and lists.tar; if the dataset must be prepared, these
        are used instead of a download, whatever their checksums.
      splits: any of "train" and "test", in this order.
      prepare: whether to download and prepare the dataset if it is missing.

    Raises:
      FileNotFoundError: `archives` lacks an archive, or the dataset is missing and `prepare` is False.
      optional.MissingExtraError: TensorFlow Datasets is not installed, or TensorFlow, and the dataset must be
        prepared.
      errors.UserError: preparing failed, without network or with damaged archives; or the dataset was
        prepared in a format that only TensorFlow can read.
    """
    for split in splits:
        if split not in ("train", "test"):
            raise errors.UserError(f"split is {split!r}; stanford_dogs has 'train' and 'test'")
    tensorflow_datasets = optional.load(*_TFDS)
    builder = _tfds_builder(data_dir)
    if not pathlib.Path(builder.data_path).is_dir():
        if not prepare:
            raise errors.MissingFileError(f"{builder.data_path} does not exist")
        _prepare(builder, archives)
        builder = _tfds_builder(data_dir)
    with _readable(builder.data_path):
        skip = {"image": tensorflow_datasets.decode.SkipDecoding()}
        parts = [builder.as_data_source(split, decoders=skip) for split in splits]
        ends = [sum(len(part) for part in parts[: i + 1]) for i in range(len(parts))]
        class_names = tuple(map(listing.printable, builder.info.features["label"].names))
        facts = [(name, s.num_examples, s.num_bytes) for name, s in sorted(builder.info.splits.items())]

    def photo(i: int) -> photos.Photo:
        part = next(p for p, end in enumerate(ends) if i < end)
        try:
            with files.guard(photos.BrokenPhotoError, "damaged in its file, "):
                return _tfds_photo(parts[part][i - ends[part] + len(parts[part])])
        except photos.BrokenPhotoError as error:
            return photos.Photo(f"record {i}", 0, (), functools.partial(_fail, error))

    key = f"tfds-{_TFDS_NAME}-{builder.version}-{'+'.join(splits)}-{_digest([*facts, class_names])}"
    return photos.Source(key, class_names, Lazy(ends[-1], photo))


def _tfds_builder(data_dir: str | os.PathLike | None) -> Any:
    tensorflow_datasets = optional.load(*_TFDS)
    folder = None if data_dir is None else os.path.expanduser(data_dir)
    with _readable(folder):
        try:
            return tensorflow_datasets.builder(_TFDS_NAME, data_dir=folder, file_format="array_record")
        except ValueError as error:  # prepared earlier in tfds' default format
            raise errors.UserError(
                f"Stanford Dogs in {folder or 'the default data folder of tfds'} is not in the array_record "
                f"format ({error}), and other formats cannot be read without TensorFlow. Use another data "
                "folder to prepare the dataset again."
            ) from error


@contextlib.contextmanager
def _readable(folder: str | os.PathLike | None) -> Iterator[None]:
    """Whatever tfds raises in the block on damaged files is a UserError."""
    try:
        yield
    except (errors.UserError, MemoryError, ImportError):
        raise
    except Exception as error:
        passing = errors.of_the_system(error)
        advice = "Make its files readable" if passing else "Its files may be damaged: delete it"
        raise errors.UserError(
            f"Stanford Dogs in {folder or 'the default data folder of tfds'} cannot be read "
            f"({type(error).__name__}: {untrusted.one_line(error)}). {advice}, or use another data folder to "
            "prepare the dataset again"
        ) from error


def _tfds_photo(record: dict[str, Any]) -> photos.Photo:
    """A record as a photo; its boxes are fractions (ymin, xmin, ymax, xmax) of the photo, in float32."""
    data = record["image"]
    name = record["image/filename"]
    name = listing.printable(os.path.basename(os.fsdecode(name)))
    label = int(record["label"])
    sides = np.asarray(record["objects"]["bbox"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    try:
        h, w = photos.image_size(data)
        pixels: Any = list(map(tuple, np.rint(sides * (w, h, w, h)).astype(int).tolist()))
        boxes, notes = _usable_boxes(pixels, h, w)
    except photos.BrokenPhotoError as error:
        return photos.Photo(name, label, (), functools.partial(_fail, error), len(data))
    return photos.Photo(name, label, boxes, functools.partial(photos.decode, data), len(data), notes)


def _prepare(builder: Any, archives: str | os.PathLike | None) -> None:
    """Writes the dataset's ArrayRecord files, the only step that needs TensorFlow."""
    if archives is not None:
        missing = [name for name in ARCHIVES if not (pathlib.Path(archives) / name).is_file()]
        if missing:
            raise errors.MissingFileError(
                f"{archives} lacks {', '.join(missing)}. Stanford Dogs is prepared from the three official "
                f"archives {', '.join(ARCHIVES)} in one folder; put them there, or omit the folder from "
                "the settings to let tfds download them."
            )
    if importlib.util.find_spec("tensorflow") is None:
        raise optional.MissingExtraError(
            f"Stanford Dogs is not prepared yet in {builder.data_path}, and preparing it needs TensorFlow, "
            "which is not installed. Run `pip install 'jaxdog[tfds]'` once (training itself never imports "
            "TensorFlow), or set the data folder in which tfds has prepared stanford_dogs as array_record."
        )
    tensorflow_datasets = optional.load(*_TFDS)
    if archives is not None:
        generators = builder._split_generators
        builder._split_generators = lambda dl_manager: generators(_LocalArchives(archives, dl_manager))
    config = tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # from tfds, the network or tarfile
        raise errors.UserError(
            f"Stanford Dogs could not be prepared in {builder.data_path} from "
            f"{archives or 'its download'} ({type(error).__name__}: {error}). Without a network, put the "
            f"three official archives {', '.join(ARCHIVES)} in a folder and set it; if they are there, "
            "they may be damaged: copy them again."
        ) from error


class _LocalArchives:
    """A replacement for tfds' download manager that reads archives from a folder."""

    def __init__(self, folder: str | os.PathLike, manager: Any):
        self._folder, self._manager = pathlib.Path(folder), manager

    def download(self, url: str) -> str:
        return os.fspath(self._folder / url.rsplit("/", 1)[-1])

    def download_and_extract(self, urls: Sequence[str]) -> list[str]:
        return [self._manager.extract(self.download(url)) for url in urls]

    def iter_archive(self, path: str) -> Iterable[tuple[str, Any]]:
        return self._manager.iter_archive(path)


# ------------------------------------------------------------------------------------- kaggle


def kaggle(path: str | os.PathLike) -> photos.Source:
    """The competition's files: all-dogs/*.jpg and Annotation/<breed>/<photo>, 20,579 photos, 22,125 boxes.

    One annotated photo, n02105855_2933.jpg, is not in the competition's data; the source's notes list it.
    Boxes are clipped to the photo. Either folder may be nested in a folder of the same name, as on Kaggle.

    Raises:
      FileNotFoundError: `path` or one of its two folders is missing or empty.
    """
    root = _existing(path, "the competition's data (all-dogs/ and Annotation/)")
    images = _find(root, ("all-dogs/all-dogs", "all-dogs"), _is_photo)
    notes = _find(root, ("Annotation/Annotation", "annotation/Annotation", "Annotation"), os.DirEntry.is_dir)
    if images is None or notes is None:
        raise errors.MissingFileError(
            f"{root} does not have the competition's layout: looked for {root / 'all-dogs'} with photos and "
            f"{root / 'Annotation'} with a folder per breed, found {_listing(root)}. Unpack all-dogs.zip and "
            "Annotation.zip there; for photos without annotations, use a folder source instead."
        )
    pictures, annotations = listing.of_folder(images), listing.of_folder(notes)
    left: dict[str, list[str]] = {}  # kind of what is left out -> names
    present: dict[str, listing.File] = {}
    for picture in pictures.photos:
        stem = listing.stem(picture.name, listing.EXTENSIONS)
        if present.setdefault(stem, picture) is not picture:
            left.setdefault("photos whose name another photo has", []).append(picture.name)
    used: set[str] = set()
    pairs: list[tuple[listing.File, listing.File]] = []
    for annotation in annotations.files:
        stem = listing.stem(annotation.name, (".xml",))
        kind = _unusable(annotation, stem, present, used)
        if kind:
            left.setdefault(kind, []).append(annotation.name)
        else:
            used.add(stem)
            pairs.append((present[stem], annotation))
    if not pairs:
        raise errors.MissingFileError(
            f"None of the photos in {images} has an annotation in {notes}: the names do not match "
            f"({next(iter(present), 'no photo')}). The two folders must be from the same data set."
        )
    alone = [picture.name for stem, picture in present.items() if stem not in used]
    left |= {"photos without an annotation": alone} if alone else {}
    breeds = sorted({annotation.parts[0] for _, annotation in pairs})
    rows = [(breeds.index(annotation.parts[0]), picture, annotation) for picture, annotation in pairs]
    facts: list[Any] = []
    for label, *pair in rows:
        picture, annotation = ((file.parts[-1], *file.stamp) for file in pair)
        facts += [(breeds[label], *picture), annotation]
    lines = [listing.left_out(kind, names) for kind, names in left.items()]
    return photos.Source(
        f"kaggle-{len(rows)}-{_digest(facts)}",
        tuple(breed.lower() for breed in breeds),
        Lazy(len(rows), functools.partial(_kaggle_photo, rows)),
        (*lines, *listing.notes(pictures), *listing.notes(annotations._replace(files=()))),
        pictures.num_bytes,
    )


def _unusable(
    annotation: listing.File, stem: str, present: Mapping[str, listing.File], used: Collection[str]
) -> str:
    """Why an annotation is left out; "" if it is not."""
    if len(annotation.parts) != 2:
        return "annotations that are not in the folder of a breed"
    if stem not in present:
        return "annotations whose photo is missing"
    return "annotations of a photo that another one describes" if stem in used else ""


def _kaggle_photo(rows: Sequence[tuple[int, listing.File, listing.File]], i: int) -> photos.Photo:
    label, image, annotation = rows[i]
    name, data = image.parts[-1], functools.cache(image.read)
    try:
        h, w = photos.image_size(data())
        found = _voc_boxes(annotation)
        boxes, notes = _usable_boxes(found, h, w) if found else ((), (NO_BOX,))
    except OSError as error:
        return photos.Photo(name, label, (), functools.partial(_fail, error), image.num_bytes)
    return photos.Photo(name, label, boxes, lambda: photos.decode(data()), image.num_bytes, notes)


def _voc_boxes(annotation: listing.File) -> list[photos.Box]:
    """The boxes of a PASCAL VOC annotation file; raises BrokenPhotoError, also for more than MAX_BOXES."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    what, size = f"annotation {annotation.name}: ", annotation.num_bytes
    if size > MAX_ANNOTATION:
        raise photos.BrokenPhotoError(f"{what}it has {size:,} bytes, the limit is {MAX_ANNOTATION:,}")
    with files.guard(photos.BrokenPhotoError, what):
        found = list(ET.fromstring(annotation.read()).iter("bndbox"))
        if len(found) > MAX_BOXES:
            raise photos.BrokenPhotoError(f"{what}it has {len(found):,} boxes, the limit is {MAX_BOXES:,}")
        boxes = [[round(float(box.findtext(side, ""))) for side in sides] for box in found]
        return [(xmin, ymin, xmax, ymax) for xmin, ymin, xmax, ymax in boxes]


def _usable_boxes(
    boxes: Sequence[photos.Box], h: int, w: int
) -> tuple[tuple[photos.Box, ...], tuple[str, ...]]:
    """Boxes clipped to a photo of h x w, and a note for each that is left out, as nothing of it remains.

    Raises BrokenPhotoError if nothing remains of any.
    """
    usable: list[photos.Box] = []
    notes: list[str] = []
    for box in boxes:
        xmin, ymin, xmax, ymax = clipped = cropping.clip(box, h, w)
        if xmin < xmax and ymin < ymax:
            usable.append(clipped)
        else:
            notes.append(f"left out: box {box}, which is empty or outside the photo of {w} x {h} (w x h)")
    if boxes and not usable:
        raise photos.BrokenPhotoError("; ".join(notes))
    return tuple(usable), tuple(notes)


def _fail(error: OSError) -> np.ndarray:
    raise error


# ------------------------------------------------------------------------------------- folders


def folder(path: str | os.PathLike) -> photos.Source:
    """Photos in any folder: one subfolder per class, or all in one folder (one class, named after it).

    Photos are rotated by their EXIF orientation and have no boxes. `listing` has the rules.

    Raises:
      FileNotFoundError: the folder is missing or has no photos.
      errors.UserError: it has both photos and class folders with photos.
    """
    root = _existing(path, "photos or class folders")
    return of_files(listing.of_folder(root), root, "folder", root.resolve().name)


def of_files(listed: listing.Files, where: pathlib.Path, kind: str, name: str) -> photos.Source:
    """The photos in a folder or zip that has been listed; `kind` and `name` begin the source's key."""
    found, notes = listed.photos, listing.notes(listed)
    if not found:
        raise errors.MissingFileError(
            f"{where} has no photos: looked for {', '.join(listing.EXTENSIONS)} in it and in its folders; "
            f"{'; '.join(notes) or 'found nothing'}. Put photos there, or set another folder."
        )
    class_names, labels = listing.classes(listed, found, os.fspath(where))

    def photo(i: int) -> photos.Photo:
        return photos.Photo(
            found[i].name, labels[i], (), functools.partial(_read_upright, found[i]), found[i].num_bytes
        )

    digest = _digest([[(file.name, *file.stamp) for file in found], list(class_names)])
    key = f"{kind}-{listing.printable(name)}-{digest}"
    return photos.Source(key, class_names, Lazy(len(found), photo), notes, listed.num_bytes)


def _read_upright(file: listing.File) -> np.ndarray:
    return photos.decode(file.read(), upright=True)


# ------------------------------------------------------------------------------------- file system helpers


def _existing(path: str | os.PathLike, wanted: str) -> pathlib.Path:
    root = pathlib.Path(path).expanduser()
    if root.is_dir():
        return root
    what = "is a file" if root.exists() else "does not exist"
    raise errors.MissingFileError(
        f"{root} {what}; it should be the folder with {wanted}. Check the path (looked from {os.getcwd()}); "
        "without any data, use the toy source."
    )


def _find(
    root: pathlib.Path, names: Iterable[str], fits: Callable[[os.DirEntry], bool]
) -> pathlib.Path | None:
    """The first folder of `names` in `root` with an entry for which `fits` is true."""
    for name in names:
        if (root / name).is_dir() and any([fits(entry) for entry in os.scandir(root / name)]):
            return root / name
    return None


def _is_photo(entry: os.DirEntry) -> bool:
    return not listing.is_hidden(entry.name) and listing.extension(entry.name) in listing.EXTENSIONS


def _listing(root: pathlib.Path) -> str:
    return errors.some(sorted(map(listing.printable, os.listdir(root)))) or "nothing"


def _digest(facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
