"""Classes decided without enlarging everything: the same as with it, to the last pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from iccld.evaluation import decide
from iccld.evaluation.views import View
from iccld.evaluation.winners import Enlargement, winners
from iccld.geometry import Shape

Floats = npt.NDArray[np.float32]


def enlarged(values: Floats, size: Shape) -> Floats:
    """(K, h, w) -> (K, H, W) bilinear with half-pixel centres in float32, rows first: every class of every pixel."""
    for side in (1, 2):
        length, new_length = values.shape[side], size[side - 1]
        position = (np.arange(new_length, dtype=np.float32) + np.float32(0.5)) * np.float32(length / new_length) - np.float32(0.5)
        position = position.clip(0, length - 1)
        lower = np.floor(position).astype(int)
        weight = (position - lower.astype(np.float32)).reshape((-1, 1) if side == 1 else (-1,))
        values = values.take(lower, side) * (1 - weight) + values.take(np.minimum(lower + 1, length - 1), side) * weight
    return values


def by_brute_force(logits: Floats, shown: Shape, content: Shape, size: Shape) -> npt.NDArray[np.intp]:
    if logits.shape[1:] != shown:
        logits = enlarged(logits, shown)
    return enlarged(logits[:, : content[0], : content[1]], size).argmax(0)


def areas(num_classes: int, size: Shape, seed: int, share: float = 0.05) -> Floats:
    """Logits as networks give them: a few areas, and some noise."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(0, 5, (1, num_classes, 4, 5)).astype(np.float32))
    smooth = functional.interpolate(coarse, size=size, mode="bicubic")[0].numpy()
    return smooth + rng.normal(0, share, smooth.shape).astype(np.float32)


SIZES = [  # logits, shown, content, size
    ((12, 15), (12, 15), (12, 15), (96, 120)),
    ((12, 15), (12, 15), (12, 15), (101, 47)),
    ((12, 15), (24, 30), (23, 27), (91, 133)),
    ((12, 15), (48, 60), (45, 60), (45, 60)),
    ((12, 15), (24, 30), (24, 30), (7, 9)),
    ((12, 15), (24, 30), (1, 30), (3, 77)),
    ((1, 1), (8, 8), (5, 3), (20, 13)),
    ((1, 1), (1, 1), (1, 1), (1, 1)),
    ((12, 15), (6, 7), (5, 7), (40, 40)),
    ((12, 15), (12, 15), (11, 4), (11, 4)),
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", ["areas", "noise", "rounded", "equal", "two classes", "one class"])
def test_winners_are_those_of_the_whole_enlarged_map(sizes: tuple[Shape, Shape, Shape, Shape], kind: str) -> None:
    small, shown, content, size = sizes
    rng = np.random.default_rng(0)
    logits = {
        "areas": areas(7, small, 1),
        "noise": rng.normal(0, 1, (19, *small)).astype(np.float32),
        "rounded": rng.integers(-2, 3, (5, *small)).astype(np.float32),  # ties at and between the points
        "equal": np.full((4, *small), 1.25, np.float32),
        "two classes": areas(2, small, 2),
        "one class": areas(1, small, 3),
    }[kind]
    answer = winners(logits, Enlargement(shown, content, size))
    assert answer.dtype == np.uint8
    assert np.array_equal(answer, by_brute_force(logits, shown, content, size))


@pytest.mark.parametrize("seed", range(6))
def test_winners_at_random_sizes_and_scales(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(8):
        small = (int(rng.integers(1, 24)), int(rng.integers(1, 24)))
        shown = (small[0] * int(rng.integers(1, 5)), small[1] * int(rng.integers(1, 5))) if rng.random() < 0.7 else small
        content = (int(rng.integers(1, shown[0] + 1)), int(rng.integers(1, shown[1] + 1)))
        size = (int(rng.integers(1, 140)), int(rng.integers(1, 140)))
        logits = areas(int(rng.integers(1, 20)), small, seed, share=float(rng.choice([0, 0.1, 3]))) * np.float32(
            10.0 ** rng.integers(-3, 4)
        )
        if rng.random() < 0.5:  # as bf16 gives them: often equal
            logits = torch.from_numpy(logits).bfloat16().float().numpy()
        assert np.array_equal(winners(logits, Enlargement(shown, content, size)), by_brute_force(logits, shown, content, size))


def test_equal_logits_go_to_the_first_class_also_where_rounding_could_decide() -> None:
    """Class 1 leads by the least that float32 knows, or not at all: whoever is equal after rounding loses to the first."""
    logits = np.full((3, 6, 6), 1000.0, np.float32)
    logits[1] = np.nextafter(np.float32(1000), np.float32(2000))
    logits[2] = -1000
    logits[1, 3:] = 1000
    for size in ((40, 44), (6, 6), (3, 5)):
        expected = enlarged(logits, size).argmax(0)
        assert np.array_equal(winners(logits, Enlargement((6, 6), (6, 6), size)), expected)


@pytest.mark.parametrize("size", [(64, 96), (37, 131)])
def test_decide_agrees_with_interpolate_and_argmax(size: Shape) -> None:
    """PyTorch sums in another order: what may differ is nearer to a tie than its rounding."""
    logits = torch.from_numpy(np.stack([areas(6, (16, 24), seed) for seed in range(2)]))
    view = View(logits, (32, 48), (30, 47))
    whole = functional.interpolate(logits, size=(32, 48), mode="bilinear")[:, :, :30, :47]
    whole = functional.interpolate(whole, size=size, mode="bilinear")
    labels, certainty = decide(view, size, confidence=True)
    first, second = whole.topk(2, 1).values.unbind(1)
    is_clear = first - second > 1e-4
    assert is_clear.float().mean() > 0.99
    assert torch.equal(labels[is_clear].long(), whole.argmax(1)[is_clear])
    assert certainty is not None
    torch.testing.assert_close(certainty, whole.softmax(1).amax(1), atol=1e-5, rtol=1e-5)
    assert torch.equal(decide(view, size)[0], labels)  # certainty changes no label
    together = decide([view, view], size)[0]  # several views: the mean of equal probabilities
    assert torch.equal(together[is_clear], labels[is_clear])


def test_few_pixels_are_compared() -> None:
    """Of areas with smooth borders, nearly all is settled without enlarging: what makes it fast."""
    from iccld.evaluation import winners as module

    compared = []
    real = module._compare

    def counting(labels, corners, *rest):  # type: ignore[no-untyped-def]
        compared.append(corners.shape[2])
        real(labels, corners, *rest)

    module._compare = counting
    try:
        winners(areas(11, (80, 152), 0, share=0.01), Enlargement((160, 304), (150, 300), (512, 1024)))
    finally:
        module._compare = real
    assert compared
    assert sum(compared) < 0.1 * 150 * 300
