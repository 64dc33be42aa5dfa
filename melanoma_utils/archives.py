"""Pictures that are no files of their own: in zip archives or TFRecords, read without unpacking, or in memory."""

import functools
import io
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from melanoma_utils.tfrecords import TfrecordMember

# What zipfile raises about archives that are damaged, encrypted or of a kind that it does not know.
UNPACK_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)

JUNK = ("thumbs.db", "desktop.ini")  # what systems leave in folders, see `is_junk`


@dataclass(frozen=True)
class MemoryFile:
    """A file that was uploaded and lies in memory alone; stands where a path would.

    Attributes:
        name: of the file, which errors tell.
        content: its bytes.
    """

    name: str
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name

    @property
    def stem(self) -> str:
        """The file's name without folders and ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending of the file's name with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def n_bytes(self) -> int:
        """The size of the content."""
        return len(self.content)

    def read_bytes(self) -> bytes:
        """Returns the content."""
        return self.content


@dataclass(frozen=True)
class ZipMember:
    """A file in a zip archive; stands where a path would.

    Attributes:
        archive: the zip file, on disk or in memory.
        name: of the file inside, with its folders.
        n_bytes: its size when unpacked.
    """

    archive: Path | MemoryFile
    name: str
    n_bytes: int

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    @property
    def stem(self) -> str:
        """The file's name without folders and ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending of the file's name with its dot."""
        return PurePosixPath(self.name).suffix

    def read_bytes(self) -> bytes:
        """Returns the content, its CRC checked.

        Raises:
            FileNotFoundError: there is no such archive, or no such file in it.
            ValueError: the archive is damaged, or encrypted.
        """
        try:
            if isinstance(self.archive, MemoryFile):
                return self._read_uploaded()
            return _open_zip(self.archive, os.stat(self.archive).st_mtime_ns).read(self.name)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.archive} does not exist") from None
        except KeyError:
            raise FileNotFoundError(f"{self.archive} holds no {self.name}") from None
        except UNPACK_ERRORS as error:
            raise ValueError(f"{self} can't be unpacked: {error}") from error

    def _read_uploaded(self) -> bytes:
        """Returns the content out of an archive of which nobody knows who made it, or raises what `zipfile` does.

        No more than `n_bytes` are ever unpacked, whatever follows: `ZipFile.read` would unpack a gigabyte before it
        looks at the size, and without end what is not deflated.
        """
        with zipfile.ZipFile(open_source(self.archive)) as archive:  # not kept open: the memory is to be free again
            info = archive.getinfo(self.name)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile("it is packed in a way that is not read: make an ordinary zip archive")
            if info.file_size != self.n_bytes:
                raise zipfile.BadZipFile(f"two files of this name, of {self.n_bytes} and {info.file_size} bytes")
            with archive.open(info) as file:
                return file.read(self.n_bytes)


Source = str | Path | ZipMember | TfrecordMember | MemoryFile  # where an image comes from


def open_source(source: Source) -> str | Path | io.BytesIO:
    """Returns what image libraries open: a path as it is, a file in an archive as bytes in memory."""
    return source if isinstance(source, str | Path) else io.BytesIO(source.read_bytes())


def count_bytes(source: Source) -> int:
    """Returns the size of a file, or of one in an archive when unpacked."""
    return os.path.getsize(source) if isinstance(source, str | Path) else source.n_bytes


def is_junk(name: str) -> bool:
    """Returns whether a file in an archive, by its name there, is what a system leaves beside the files: hidden, one of
    `JUNK`, or in __MACOSX."""
    parts = PurePosixPath(name).parts
    return not parts or "__MACOSX" in parts or parts[-1].startswith(".") or parts[-1].lower() in JUNK


def list_zip_members(path: str | Path | MemoryFile) -> list[ZipMember]:
    """Returns the files in a zip archive, in its order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no zip archive, or is damaged.
    """
    try:
        with zipfile.ZipFile(open_source(path)) as archive:
            place = path if isinstance(path, MemoryFile) else Path(path)
            return [ZipMember(place, info.filename, info.file_size) for info in archive.infolist()
                    if not info.is_dir()]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except UNPACK_ERRORS as error:
        raise ValueError(f"{path} is not a whole zip archive ({error}): fetch it again") from error


@functools.lru_cache(maxsize=4)
def _open_zip(path: Path, changed: int) -> zipfile.ZipFile:
    """Returns an archive that stays open, its list of contents being long; `changed` tells a new file of that name."""
    return zipfile.ZipFile(path)
