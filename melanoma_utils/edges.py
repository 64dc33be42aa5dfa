"""How much a picture's edge gives away: signs of how the data was collected, not of the lesion."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

EDGE_SHARE = 1 / 16  # of the side: the width of the rim
CORNER_SHARE = 1 / 8


def measure_edges(images: np.ndarray) -> np.ndarray:
    """Returns (N, 10) float32 figures of each image's rim: its mean and standard deviation by colour, and the mean of
    each corner, all 0..1.

    Args:
        images: (N, H, W, 3) uint8 RGB.
    """
    x = images.astype(np.float32) / 255
    rim, corner = (max(1, round(share * x.shape[1])) for share in (EDGE_SHARE, CORNER_SHARE))
    strips = [x[:, :rim], x[:, -rim:], x[:, rim:-rim, :rim], x[:, rim:-rim, -rim:]]
    pixels = np.concatenate([strip.reshape(len(x), -1, 3) for strip in strips], axis=1)  # (N, n, 3)
    corners = [x[:, rows, columns].mean((1, 2, 3)) for rows in (slice(corner), slice(-corner, None))
               for columns in (slice(corner), slice(-corner, None))]
    return np.concatenate([pixels.mean(1), pixels.std(1), np.stack(corners, 1)], axis=1)


def score_by_edges(images: np.ndarray, targets: np.ndarray, groups: np.ndarray, n_folds: int = 5,
                   seed: int = 0) -> np.ndarray:
    """Returns (N,) out-of-fold probabilities of a model that sees the edges alone.

    Whatever its AUC has above 0.5 a network can learn without looking at the lesion, and loses on pictures that were
    taken or cut otherwise.

    Args:
        images: (N, H, W, 3) uint8 RGB.
        targets: (N,) 0 or 1.
        groups: (N,) patients or lesions, which stay in one fold.
        n_folds: of the cross-validation.
        seed: of folds and model.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    model = HistGradientBoostingClassifier(max_iter=200, learning_rate=0.05, max_leaf_nodes=8, l2_regularization=1,
                                           random_state=seed)
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    return cross_val_predict(model, measure_edges(images), targets, groups=groups, cv=folds,
                             method="predict_proba")[:, 1]
