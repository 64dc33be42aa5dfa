import shutil
import struct

import numpy as np
import pytest
from tfrecord.reader import tfrecord_loader
from tfrecord.writer import TFRecordWriter

from melanoma_utils.competition import find_images, read_train
from melanoma_utils.images import load_resized
from melanoma_utils.store_building import build_store
from melanoma_utils.synthetic_formats import write_shards
from melanoma_utils.tfrecords import find_code_differences, list_tfrecord_members, write_tfrecords


@pytest.fixture
def sharded_dir(data_dir, tmp_path):
    """The competition with its images in TFRecord files alone."""
    folder = shutil.copytree(data_dir, tmp_path / "competition")
    write_shards(folder)
    shutil.rmtree(folder / "jpeg")
    return folder


@pytest.fixture
def shard(sharded_dir):
    return next((sharded_dir / "tfrecords").glob("train*.tfrec"))


def test_tfrecords_give_the_store_of_the_jpeg_files(sharded_dir, store, tmp_path):
    sources = find_images(sharded_dir, "train", read_train(sharded_dir)["image_name"])
    built = build_store(sources, tmp_path / "store", 32, n_jobs=2)
    assert np.array_equal(built.images, store.images) and list(built.rows) == list(store.rows)


def test_another_reader_finds_the_competitions_schema(shard, sharded_dir):
    kinds = {"image": "byte", "image_name": "byte", "patient_id": "int", "sex": "int", "age_approx": "int",
             "anatom_site_general_challenge": "int", "diagnosis": "int", "target": "int"}
    records = list(tfrecord_loader(str(shard), None, kinds))
    train_df = read_train(sharded_dir)
    assert [bytes(r["image_name"]).decode() for r in records] == train_df["image_name"].tolist()
    assert [int(r["target"][0]) for r in records] == train_df["target"].tolist()
    assert shard.name == f"train00-{len(train_df)}.tfrec"


def test_shards_are_cut_at_their_number(data_dir, tmp_path):
    train_df = read_train(data_dir)[:25]
    paths = find_images(data_dir, "train", train_df["image_name"])
    write_tfrecords(tmp_path, "test", train_df, paths, n_per_shard=10)
    shards = sorted(tmp_path.glob("*.tfrec"))
    assert [path.name for path in shards] == ["test00-10.tfrec", "test01-10.tfrec", "test02-5.tfrec"]
    members = list_tfrecord_members(shards)
    assert [m.stem for m in members] == train_df["image_name"].tolist() and not any(m.codes for m in members)
    assert members[24].read_bytes() == paths[members[24].stem].read_bytes()


@pytest.mark.parametrize(("where", "reason"), [(2, "its length is damaged"), (500, "do not match their checksum"),
                                               (-2, "do not match their checksum")])
def test_a_flipped_bit_anywhere_in_a_record_is_noticed(shard, where, reason):
    content = bytearray(shard.read_bytes())
    members = list_tfrecord_members([shard])
    end = members[0].n_bytes + 16
    content[where % end] ^= 4
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=rf"(?s)1 TFRecord files .*{shard.name}: record 1 at byte 0: .*{reason}"):
        list_tfrecord_members([shard])
    with pytest.raises(ValueError, match=rf"{shard.name}/{members[0].stem}.jpg can't be read: .*{reason}"):
        load_resized(members[0], 32)
    assert load_resized(members[1], 32).shape == (32, 32, 3)


def test_a_shard_that_breaks_off_and_files_that_are_none(shard, tmp_path):
    (tmp_path / "cut.tfrec").write_bytes(shard.read_bytes()[:-7])
    (tmp_path / "page.tfrec").write_text("<html><body>sign in first</body></html>")
    with pytest.raises(ValueError, match=r"(?s)2 TFRecord files .*cut.tfrec: record 97 .* breaks off.*page.tfrec: rec"):
        list_tfrecord_members([tmp_path / "cut.tfrec", shard, tmp_path / "page.tfrec"])


def test_another_schema_is_named(tmp_path):
    writer = TFRecordWriter(str(tmp_path / "other.tfrec"))
    writer.write({"picture": (b"x", "byte"), "label": (1, "int")})
    writer.close()
    with pytest.raises(ValueError, match=r"holds no 'image_name' but \['label', 'picture'\]"):
        list_tfrecord_members([tmp_path / "other.tfrec"])
    data = b"\xff\xff\xff"
    length = struct.pack("<Q", len(data))
    crcs = [TFRecordWriter.masked_crc(part) for part in (length, data)]
    (tmp_path / "none.tfrec").write_bytes(length + crcs[0] + data + crcs[1])
    with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
        list_tfrecord_members([tmp_path / "none.tfrec"])


def test_codes_that_stand_for_another_value_than_elsewhere_are_listed(shard, sharded_dir):
    members, train_df = list_tfrecord_members([shard]), read_train(sharded_dir)
    assert find_code_differences(members, train_df) == find_code_differences([], train_df) == []
    male = train_df.index[train_df["sex"] == "male"][0]
    train_df.loc[male, "sex"] = "female"
    (name, column, _, value), = find_code_differences(members, train_df)
    assert (name, column, value) == (train_df["image_name"][male], "sex", "female")
