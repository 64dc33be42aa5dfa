import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from melanoma_utils.archives import MemoryFile
from melanoma_utils.assessment import ask_models, count_per_1000, decode_image, load_assessor, rank_among, to_probs
from melanoma_utils.calibration import apply_calibration
from melanoma_utils.competition import find_images, read_test
from melanoma_utils.files import read_json, write_json
from melanoma_utils.predict import load_ensemble, predict_images


@pytest.fixture(scope="module")
def assessor(model_dir):
    return load_assessor(model_dir)


@pytest.fixture(scope="module")
def paths(data_dir):
    return find_images(data_dir, "test", read_test(data_dir)["image_name"][:4])


@pytest.fixture(scope="module")
def images(assessor, paths):
    return np.stack([decode_image(assessor, MemoryFile(f"{name}.jpg", path.read_bytes()))
                     for name, path in paths.items()])


@pytest.fixture
def copied(model_dir, tmp_path):
    return shutil.copytree(model_dir, tmp_path / "copied")


def test_it_answers_as_predict_does_for_the_same_files(assessor, model_dir, paths, images, data_dir):
    metadata_df = read_test(data_dir).set_index("image_name").loc[list(paths)].reset_index()
    for table in (None, metadata_df):
        wanted_df, _ = predict_images(load_ensemble(model_dir), paths, table, n_jobs=1)
        logits = ask_models(assessor, images, table).logits  # (N, n_models)
        assert logits.shape == (4, 2)
        found = expit(np.stack([logits.mean(1), logits.min(1), logits.max(1)], 1))
        np.testing.assert_allclose(found, wanted_df[["probability", "lowest", "highest"]], atol=1e-5)


def test_unknown_is_what_nothing_known_is(assessor, images):
    nothing = pd.DataFrame([{"sex": None, "age_approx": None, "anatom_site_general_challenge": None}] * 4)
    someone = nothing.assign(sex="female", age_approx=70)
    alone = ask_models(assessor, images).logits
    np.testing.assert_array_equal(ask_models(assessor, images, nothing).logits, alone)
    assert np.abs(ask_models(assessor, images, someone).logits - alone).min() > 0


def test_the_embeddings_are_those_of_the_image_as_it_is(assessor, images):
    answer = ask_models(assessor, images)
    assert answer.embeddings.dtype == np.float32 and answer.embeddings.shape[:2] == (2, 4)
    turned = ask_models(assessor, np.ascontiguousarray(images[:, :, ::-1]))
    np.testing.assert_allclose(turned.logits, answer.logits, atol=1e-4)  # the same four views in another order
    assert np.abs(turned.embeddings - answer.embeddings).max() > 1e-3


def test_users_at_once_get_their_own_answers(assessor, images):
    wanted = [ask_models(assessor, image[None]).logits for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: ask_models(assessor, images[i % 4][None]).logits, range(16)))
    for i, logits in enumerate(found):
        np.testing.assert_array_equal(logits, wanted[i % 4])


def test_probabilities_are_for_the_prevalence(assessor):
    logits = np.array([-0.05, 0.0, 0.05])
    np.testing.assert_allclose(to_probs(assessor, logits, 0.01), apply_calibration(assessor.calibration, logits, 0.01))
    assert (to_probs(assessor, logits, 0.01) < to_probs(assessor, logits, 0.3)).all()
    with pytest.raises(ValueError, match="not between 0 and 1"):
        to_probs(assessor, logits, 1.5)


def test_scores_may_be_absent(copied, assessor):
    assert list(assessor.scores_df) == ["target", "logit"]
    (copied / "oof_scores.csv").unlink()
    assert load_assessor(copied).scores_df is None


def damage(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def drop(name, key):
    def change(folder):
        values = read_json(folder / name)
        del values[key]
        write_json(folder / name, values)
    return change


@pytest.mark.parametrize(("change", "error", "message"), [
    (shutil.rmtree, FileNotFoundError, "does not exist"),
    (lambda folder: (folder / "metrics.json").unlink(), FileNotFoundError, "holds no metrics.json"),
    (lambda folder: (folder / "operating_points.csv").unlink(), FileNotFoundError, "holds no operating_points.csv"),
    (lambda folder: (folder / "calibration.json").unlink(), FileNotFoundError, "calibration.json does not exist"),
    (lambda folder: (folder / "fold_1.safetensors").unlink(), ValueError, r"holds 1 checkpoints.*2 folds \[0, 1\]"),
    (lambda folder: [path.unlink() for path in folder.glob("fold_*")], FileNotFoundError, "holds no fold_"),
    (lambda folder: shutil.copyfile(folder / "fold_0.safetensors", folder / "fold_1.safetensors"), ValueError,
     r"metrics.json are those of other checkpoints than the ones there: run 04_evaluate_oof again"),
    (damage("fold_0.safetensors", b"\x08" + bytes(40)), ValueError, "fold_0.safetensors is damaged"),
    (damage("fold_0.safetensors", b""), ValueError, "fold_0.safetensors is damaged"),
    (damage("metrics.json", b"{"), ValueError, "metrics.json is not valid JSON"),
    (drop("metrics.json", "prevalence"), ValueError, r"metrics.json lacks \['prevalence'\]"),
    (damage("operating_points.csv", b""), ValueError, "operating_points.csv can't be read"),
    (damage("operating_points.csv", b"\xff\xfe\x00"), ValueError, "operating_points.csv can't be read"),
    (damage("operating_points.csv", b"a,b\n1,2\n"), ValueError, "operating_points.csv lacks"),
    (damage("oof_scores.csv", b"target,logit\n1,\n"), ValueError, "not finite numbers"),
    (damage("oof_scores.csv", b"target,logit\n"), ValueError, "has no rows"),
])
def test_what_is_missing_or_damaged_is_told(copied, change, error, message):
    change(copied)
    with pytest.raises(error, match=message):
        load_assessor(copied)


@pytest.mark.parametrize(("sensitivity", "specificity", "prevalence"), [(0.95, 0.6, 0.02), (1, 0, 0.5), (0, 1, 0.001)])
def test_a_thousand_people(sensitivity, specificity, prevalence):
    counts = count_per_1000(pd.Series({"sensitivity": sensitivity, "specificity": specificity}), prevalence)
    assert sum(counts.values()) == pytest.approx(1000)
    assert counts["found"] + counts["missed"] == pytest.approx(1000 * prevalence)
    assert counts["missed"] == pytest.approx(1000 * prevalence * (1 - sensitivity))
    assert counts["false_alarms"] == pytest.approx((1 - specificity) * (counts["false_alarms"] + counts["spared"]))
    with pytest.raises(ValueError, match="not between 0 and 1"):
        count_per_1000(pd.Series({"sensitivity": 1, "specificity": 1}), 1.76)


def test_the_rank_among_scores_of_each_class():
    scores_df = pd.DataFrame({"target": [0, 0, 0, 0, 1, 1], "logit": [-4, -3, -2, 5, 0, 6]})
    assert rank_among(scores_df, -2) == (0.5, 0)
    assert rank_among(scores_df, 5.5) == (1, 0.5)
    assert rank_among(scores_df, -9) == (0, 0)
    assert np.isnan(rank_among(scores_df[:4], 0)[1])
