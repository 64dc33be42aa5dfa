"""Which image files are meant: by files, folders, zip archives."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from melanoma_utils.archives import Source, is_junk, list_zip_members
from melanoma_utils.competition import IMAGE_SUFFIXES

SUFFIXES = {suffix for suffixes in IMAGE_SUFFIXES.values() for suffix in suffixes} | {".bmp", ".tif", ".tiff", ".webp"}


def list_images(paths: Sequence[str | Path], log: Callable[[str], None] = lambda line: None) -> dict[str, Source]:
    """Returns image_name -> image file: of files, folders with all that is below them and not hidden, zip archives.

    An image's name is the file's without its ending, with the folders below the one given before it; images that only
    their endings tell apart keep these.

    Args:
        paths: what to look through.
        log: called with a line about the files in folders and archives that are no images by their ending.

    Raises:
        FileNotFoundError: a path does not exist, or there is no image at all.
        ValueError: two images have the same name, or an archive is damaged.
    """
    images: dict[str, Source] = {}
    passed_over: Counter[str] = Counter()
    for path in map(Path, paths):
        files = _list_files(path)
        if path.is_dir() or path.suffix.lower() == ".zip":
            passed_over.update(source.suffix or "no ending" for _, source in files
                               if source.suffix.lower() not in SUFFIXES)
            files = [(name, source) for name, source in files if source.suffix.lower() in SUFFIXES]
        stems = [str(PurePosixPath(name).with_suffix("")) for name, _ in files]
        n_named = Counter(stems)
        for stem, (name, source) in zip(stems, files, strict=True):
            image_name = stem if n_named[stem] == 1 else name
            if image_name in images:
                raise ValueError(f"two images are named {image_name!r}: {images[image_name]} and {source}; give them "
                                 "apart")
            images[image_name] = source
    if passed_over:
        log("passed over: " + ", ".join(f"{n:,} {suffix}" for suffix, n in sorted(passed_over.items())))
    if not images:
        raise FileNotFoundError(f"no images in {', '.join(map(str, paths))}: wanted files ending in {sorted(SUFFIXES)}")
    return images


def _list_files(path: Path) -> list[tuple[str, Source]]:
    """Returns (name below the path, file) of a folder's files, of an archive's, or of the file."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        return [(p.relative_to(path).as_posix(), p) for p in sorted(_walk(path))]
    if path.suffix.lower() == ".zip":
        return [(member.name, member) for member in list_zip_members(path) if not is_junk(member.name)]
    return [(path.name, path)]


def _walk(folder: Path, seen: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yields the files in a folder and below it but nothing hidden; at last what linked folders hold that are none of
    these (seen: those of before), nor one that they are in."""
    here, links = set(), []
    for place, folders, names in os.walk(folder):
        here.add(os.path.realpath(place))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links += [Path(place, name) for name in folders if Path(place, name).is_symlink()]
        files = (Path(place, name) for name in names if not name.startswith("."))
        yield from (file for file in files if file.is_file() or not file.exists())  # a link to nothing is told later
    for link in links:
        target = os.path.realpath(link)
        if not any(Path(known).is_relative_to(target) for known in here | seen):
            yield from _walk(link, seen | here)
            here.add(target)
