"""Pictures inside TFRecord files, the competition's third format, every checksum tested.

The tfrecord package imports torch, so it is imported only where a record is read or written: whoever reads JPEG files
need not wait for it.
"""

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pandas as pd

CODED = ("patient_id", "sex", "age_approx", "anatom_site_general_challenge", "diagnosis", "target")  # integers in train
HEADER_BYTES = 12  # of a record: its length (8) and the length's CRC (4)


@dataclass(frozen=True)
class TfrecordMember:
    """A record of a TFRecord file; stands where a path would.

    Attributes:
        shard: the TFRecord file.
        stem: the image_name.
        start: where the record begins in the file.
        n_bytes: length of the record's data.
        codes: the integers beside the image, by column.
    """

    shard: Path
    stem: str
    start: int
    n_bytes: int
    codes: tuple[tuple[str, int], ...] = ()
    suffix = ".jpg"

    def __str__(self) -> str:
        return f"{self.shard}/{self.stem}{self.suffix}"

    def read_bytes(self) -> bytes:
        """Returns the image file in the record, its checksums tested.

        Raises:
            FileNotFoundError: there is no such shard.
            ValueError: the record is damaged.
        """
        try:
            with open(self.shard, "rb") as file:
                file.seek(self.start)
                return _parse(_read_record(file))[1]
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.shard} does not exist") from None
        except ValueError as error:
            raise ValueError(f"{self} can't be read: {error}") from error


def list_tfrecord_members(paths: Iterable[str | Path]) -> list[TfrecordMember]:
    """Returns the records of TFRecord files in order; each is read once and its checksums are tested.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: records are damaged or of another schema; names the first of each file and how many files.
    """
    members, bad = [], []
    for path in map(Path, paths):
        with open(path, "rb") as file:
            try:
                members += _list_records(path, file)
            except ValueError as error:
                bad.append(f"  {path}: {error}")
    if bad:
        raise ValueError(f"{len(bad)} TFRecord files can't be read; fetch them again:\n" + "\n".join(bad[:20]))
    return members


def _list_records(path: Path, file: BinaryIO) -> Iterator[TfrecordMember]:
    n_bytes, n = path.stat().st_size, 0
    while (start := file.tell()) < n_bytes:
        n += 1
        try:
            data = _read_record(file)
            name, _, codes = _parse(data)
        except ValueError as error:
            raise ValueError(f"record {n} at byte {start:,}: {error}") from error
        yield TfrecordMember(path, name, start, len(data), codes)


def _read_record(file: BinaryIO) -> bytes:
    """Returns the data of the record that begins where the file stands.

    A record is its length (uint64), the masked CRC-32C of that, the data, their masked CRC-32C, little-endian
    (tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details").
    """
    from tfrecord.writer import TFRecordWriter

    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or TFRecordWriter.masked_crc(header[:8]) != header[8:]:
        raise ValueError("its length is damaged, or this is no TFRecord file")
    length = struct.unpack("<Q", header[:8])[0]
    data, crc = file.read(length), file.read(4)
    if len(data) < length or len(crc) < 4:
        raise ValueError(f"it breaks off: {len(data):,} of {length:,} bytes are there")
    if TFRecordWriter.masked_crc(data) != crc:
        raise ValueError("its data do not match their checksum")
    return data


def _parse(data: bytes) -> tuple[str, bytes, tuple[tuple[str, int], ...]]:
    """Returns (image_name, image file, the integers by column) of a record."""
    from google.protobuf.message import DecodeError
    from tfrecord.example_pb2 import Example

    try:
        features = Example.FromString(data).features.feature
    except DecodeError as error:
        raise ValueError(f"it is no tf.train.Example ({error})") from error
    for key in ("image_name", "image"):
        if len(features[key].bytes_list.value) != 1:
            found = sorted(k for k in features if k != key)
            raise ValueError(f"it holds no {key!r} but {found}: not the competition's schema")
    name, image = (features[key].bytes_list.value[0] for key in ("image_name", "image"))
    codes = tuple((key, features[key].int64_list.value[0]) for key in CODED if features[key].int64_list.value)
    return name.decode("utf-8", "replace"), image, codes


def find_code_differences(members: Iterable[TfrecordMember], df: pd.DataFrame) -> list[tuple[str, str, int, object]]:
    """Returns (image_name, column, code, value in the table) wherever a code stands for another value than elsewhere.

    The codes have no key: the value that a code goes with most often is taken for its meaning.

    Args:
        members: of `list_tfrecord_members`.
        df: the table, with image_name and the columns that are coded.
    """
    members = list(members)
    if not members:
        return []
    codes_df = pd.DataFrame([{"image_name": member.stem, **dict(member.codes)} for member in members])
    merged_df = codes_df.merge(df, on="image_name", suffixes=("_code", ""), validate="one_to_one")
    differences = []
    for column in (c for c in CODED if f"{c}_code" in merged_df):
        codes, values = merged_df[f"{column}_code"], merged_df[column].astype(object)
        values = values.where(values.notna(), "")
        meaning = values.groupby(codes).agg(lambda group: group.mode(dropna=False).iloc[0])
        is_other = (values != codes.map(meaning)) & codes.notna()
        differences += [(name, column, int(code), value) for name, code, value in
                        zip(merged_df["image_name"][is_other], codes[is_other], values[is_other], strict=True)]
    return differences


def write_tfrecords(folder: str | Path, split: str, df: pd.DataFrame, jpegs: Mapping[str, Path],
                    n_per_shard: int = 500) -> None:
    """Writes a split as the competition has it: shards <split>00-n.tfrec with image, image_name, in train the codes.

    Args:
        folder: where the shards go, each written whole or not at all.
        split: "train" or "test".
        df: the split's table; columns of `CODED` that it has are written as integers, a missing value as -1.
        jpegs: image_name -> JPEG file, stored as it is.
        n_per_shard: images a shard.
    """
    from tfrecord.writer import TFRecordWriter

    codes = {column: pd.factorize(df[column], sort=True)[0] for column in CODED if column in df and split == "train"}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for k, start in enumerate(range(0, len(df), n_per_shard)):
        rows = range(start, min(start + n_per_shard, len(df)))
        path = Path(folder) / f"{split}{k:02d}-{len(rows)}.tfrec"
        with contextlib.closing(TFRecordWriter(f"{path}.tmp")) as writer:
            for row in rows:
                name = df["image_name"].iloc[row]
                writer.write({"image": (jpegs[name].read_bytes(), "byte"), "image_name": (name.encode(), "byte"),
                              **{column: (int(values[row]), "int") for column, values in codes.items()}})
        os.replace(f"{path}.tmp", path)
