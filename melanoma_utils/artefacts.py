"""What lies beside a lesion in a dermoscopy picture and says nothing of it: dark frames, bars, rulers, pen marks.

Networks take them for signs of a melanoma, because suspicious lesions are photographed with more care: pen marks
(Winkler et al. 2019, doi 10.1001/jamadermatol.2019.1735), scale bars (Winkler et al. 2021, doi
10.1016/j.ejca.2020.12.010). Lengths here are shares of half the side: a picture reaches from -1 to 1 both ways.
"""

import torch

KINDS = 6  # three of them frames, the commonest


def add_artefacts(images: torch.Tensor, share: float) -> torch.Tensor:
    """Returns images of which about a share carry something drawn: half of them a dark round frame or a vignette, the
    others bars at two sides, a ruler or a pen mark, equally often.

    It draws from torch's global random generators, which pictures on the processor, so that nobody waits for a GPU, and
    what on the images' device.

    Args:
        images: (N, 3, H, W) in 0..1, H = W.
        share: 0..1.
    """
    if not share:
        return images
    images = images.clone(memory_format=torch.channels_last)
    kinds = (torch.rand(len(images)) * KINDS / share).long()  # KINDS and more: as it is
    for draw, own in ((_draw_random_frames, kinds < 3), (_draw_bars, kinds == 3), (_draw_rulers, kinds == 4),
                      (_draw_pen_marks, kinds == 5)):
        rows = own.nonzero().flatten().to(images.device, non_blocking=True)
        if len(rows):
            images[rows] = draw(images[rows])
    return images


def draw_frames(images: torch.Tensor, radius_x: torch.Tensor, radius_y: torch.Tensor, center_x: torch.Tensor,
                center_y: torch.Tensor, softness: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Returns images dark outside of an ellipse, as a dermatoscope's round field leaves them.

    Args:
        images: (N, 3, H, W) in 0..1, H = W.
        radius_x, radius_y: of the ellipse; at 1.42 a circle touches the picture's corners.
        center_x, center_y: of the ellipse.
        softness: share of the radius over which the light fades.
        level: grey of the dark, 0..1. All (N, 1, 1, 1), or (1, 1, 1, 1) for all images alike.
    """
    y, x = _make_grid(images)
    distance = (((x - center_x) / radius_x) ** 2 + ((y - center_y) / radius_y) ** 2).sqrt()  # 1 at the rim
    return torch.lerp(images, level, ((distance - 1) / softness + 0.5).clamp(0, 1))


def _draw_random_frames(images: torch.Tensor) -> torch.Tensor:
    draw = _Uniform(images)
    radius, squeezed = draw(0.8, 1.4), torch.where(draw(0, 1) < 0.5, 1, draw(0.65, 1))  # a 3:2 frame pressed square
    is_turned = draw(0, 1) < 0.5
    radius_x, radius_y = (torch.where(turned, radius * squeezed, radius) for turned in (is_turned, ~is_turned))
    softness = torch.where(draw(0, 1) < 0.7, draw(0.01, 0.15), draw(0.15, 0.8))  # a frame or a vignette
    return draw_frames(images, radius_x, radius_y, draw(-0.12, 0.12), draw(-0.12, 0.12), softness, draw(0, 0.12))


def _draw_bars(images: torch.Tensor) -> torch.Tensor:
    """Returns images with a bar at either side or one of them, dark or light, as a padded picture has them."""
    draw = _Uniform(images)
    along, _ = _turn(images, draw)
    level = torch.where(draw(0, 1) < 0.7, draw(0, 0.1), draw(0.85, 1))
    return torch.where((along - draw(-0.1, 0.1)).abs() > draw(0.7, 1), level, images)


def _draw_rulers(images: torch.Tensor) -> torch.Tensor:
    """Returns images with a ruler's dark marks along an edge, half of them on a light strip."""
    draw = _Uniform(images)
    along, depth = _turn(images, draw)
    depth = 1 - depth  # from the edge
    width, period = draw(0.08, 0.3), draw(0.05, 0.2)
    strip = torch.where((depth < width) & (draw(0, 1) < 0.5), draw(0.75, 1), images)
    phase = (along / period + draw(0, 1)).remainder(5)  # every fifth mark is long
    is_mark = (phase.remainder(1) < 0.25) & (depth < width * torch.where(phase < 1, 0.9, 0.5))
    return torch.where(is_mark, draw(0, 0.3), strip)


def _draw_pen_marks(images: torch.Tensor) -> torch.Tensor:
    """Returns images with a violet, blue or green stroke beside the middle, straight or bent around it."""
    draw = _Uniform(images)
    along, across = _turn(images, draw)
    across = across + draw(-0.3, 0.3) * along
    ring = (along**2 + across**2).sqrt()
    distance = torch.where(draw(0, 1) < 0.5, across, ring) - draw(0.6, 1)
    is_ink = (distance.abs() < draw(0.02, 0.06)) & ((along - draw(-0.6, 0.6)).abs() < draw(0.2, 1.2))
    ink = torch.cat([draw(0.2, 0.7), draw(0.2, 0.7), draw(0.5, 0.95)], 1)  # (N, 3, 1, 1) share of the light let through
    return torch.where(is_ink, images * ink, images)


class _Uniform:
    """Draws (N, 1, 1, 1) numbers between two limits for N images."""

    def __init__(self, images: torch.Tensor):
        self.n, self.device = len(images), images.device

    def __call__(self, low: float, high: float) -> torch.Tensor:
        return torch.empty(self.n, 1, 1, 1, device=self.device).uniform_(low, high)


def _make_grid(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (y, x): (H, 1) and (1, W), each -1..1."""
    line = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    return line[:, None], line[None]


def _turn(images: torch.Tensor, draw: _Uniform) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (along, across): (N, 1, H, W), each -1..1, turned by quarters at random."""
    y, x = _make_grid(images)
    is_turned, sign = draw(0, 1) < 0.5, torch.where(draw(0, 1) < 0.5, 1, -1)
    return torch.where(is_turned, y, x) * sign, torch.where(is_turned, x, y) * sign
