"""The files that somebody gives of one person, sorted: named pictures, tables, sentences about the rest."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from posixpath import splitext

from melanoma_utils.archives import MemoryFile, Source, ZipMember, is_junk, list_zip_members
from melanoma_utils.uploads import MAX_MEGABYTES

MAX_PICTURES = 200  # of one person at a time
MAX_ZIP_MEGABYTES = 2000  # taken out of one archive, as it declares them: zipfile reads no more than is declared
MAX_ZIP_FILES = 10_000


@dataclass
class PatientFiles:
    """What was given of one person.

    Attributes:
        pictures: name -> file, in the order met; nothing has been unpacked, checked or decoded yet.
        tables: CSV files.
        problems: a sentence on each file that is left out or renamed.
    """

    pictures: dict[str, MemoryFile | ZipMember] = field(default_factory=dict)
    tables: list[MemoryFile | ZipMember] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sort_files(files: Iterable[MemoryFile]) -> PatientFiles:
    """Returns the tables and what may be pictures among files, those in zip archives too, and why others are left out.

    A picture is named by its file without folders and ending; where two would be named alike, by its folders too, and
    where that does not help by a number, which a sentence tells. What systems put into archives by themselves
    (`archives.is_junk`) is passed over without a word.
    """
    problems: list[str] = []
    found = _unpack(files, problems)
    tables = [source for source in found if source.suffix.lower() == ".csv"]
    pictures = [source for source in found if source.suffix.lower() != ".csv"]
    if len(pictures) > MAX_PICTURES:
        problems.append(f"These are {len(pictures)} pictures: the first {MAX_PICTURES} are looked at, up to "
                        f"{pictures[MAX_PICTURES - 1]}.")
    return PatientFiles(_name_pictures(pictures[:MAX_PICTURES], problems), tables, problems)


def _unpack(files: Iterable[MemoryFile], problems: list[str]) -> list[MemoryFile | ZipMember]:
    """Returns the files themselves and, instead of zip archives, what is in them; adds to the problems."""
    found: list[MemoryFile | ZipMember] = []
    for file in files:
        if file.suffix.lower() != ".zip":
            found.append(file)
            continue
        try:
            found += _list_members(file, problems)
        except ValueError as error:
            problems.append(f"{error}.")
    return found


def _list_members(file: MemoryFile, problems: list[str]) -> list[ZipMember]:
    members = list_zip_members(file)
    if len(members) > MAX_ZIP_FILES:
        raise ValueError(f"{file} holds {len(members):,} files, more than {MAX_ZIP_FILES:,}: it is left out")
    kept = []
    for member in members:
        if is_junk(member.name):
            continue
        if member.n_bytes > MAX_MEGABYTES * 2**20:
            problems.append(f"{member} would unpack to {member.n_bytes / 2**20:,.0f} MB, more than the {MAX_MEGABYTES} "
                            "that are read: it is left out.")
        else:
            kept.append(member)
    total = sum(member.n_bytes for member in kept) / 2**20
    if total > MAX_ZIP_MEGABYTES:
        raise ValueError(f"{file} would unpack to {total:,.0f} MB, more than {MAX_ZIP_MEGABYTES:,}: it is left out")
    if not kept:
        problems.append(f"{file} holds no file that can be looked at.")
    return kept


def _name_pictures(sources: Sequence[Source], problems: list[str]) -> dict[str, Source]:
    stems, named = Counter(source.stem for source in sources), {}
    for source in sources:
        name = source.stem if stems[source.stem] == 1 else splitext(source.name)[0]
        if name in named:
            n = next(n for n in range(2, len(sources) + 2) if f"{name} ({n})" not in named)
            problems.append(f"Two pictures are named {name}: {source} is called {name} ({n}) here.")
            name = f"{name} ({n})"
        named[name] = source
    return named
