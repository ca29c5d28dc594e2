"""Chart geometry: nothing is drawn outside, ends are exact, axes are round."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iccld.report.curves import MAX_POINTS, Series, line_chart, nice_step, thin

values = st.floats(-1e4, 1e4, allow_nan=False)


@given(st.lists(values, min_size=1, max_size=40))
@example([-5e-324])
def test_every_point_lies_in_the_plot(ys: list[float]) -> None:
    chart = line_chart("x", [Series("x", [[(10.0 * i, y) for i, y in enumerate(ys)]])])
    assert chart is not None
    left, top, right, bottom = chart.plot
    numbers = [part.split() for part in chart.lines[0].path.replace("M", "L").split("L") if part]
    for x, y in [(float(a), float(b)) for a, b in numbers] + chart.lines[0].dots:
        assert left <= x <= right
        assert top <= y <= bottom
    assert all(top - 0.1 <= y <= bottom + 0.1 for y, _ in chart.y_ticks)
    assert all(left - 0.1 <= x <= right + 0.1 for x, _ in chart.x_ticks)


def test_thinning_keeps_the_last_point_and_the_mean() -> None:
    points = [(float(i), float(i % 2)) for i in range(5000)]
    kept = thin(points)
    assert len(kept) <= MAX_POINTS
    assert kept[-1] == points[-1]
    assert all(0.3 < y < 0.7 for _, y in kept[:-1])


@pytest.mark.parametrize(("span", "step"), [(100, 25), (40, 10), (1, 0.25), (7, 2), (0.003, 0.001)])
def test_steps_are_round(span: float, step: float) -> None:
    assert nice_step(span, 4) == pytest.approx(step)


def test_series_far_apart_share_a_logarithmic_axis() -> None:
    chart = line_chart("loss", [Series("a", [[(0, 1.0), (1, 2.0)]]), Series("b", [[(0, 0.001), (1, 0.002)]])])
    assert chart is not None
    assert "logarithmic" in chart.note
    assert [label for _, label in chart.y_ticks] == ["0.001", "0.01", "0.1", "1", "10"]


def test_stages_are_not_joined_and_nothing_is_no_chart() -> None:
    chart = line_chart("x", [Series("x", [[(0, 1), (1, 2)], [(2, 3), (3, 4)], [(4, 5)]])], [(0, "Source"), (1, "Step 1")])
    assert chart is not None
    assert chart.lines[0].path.count("M") == 2
    assert len(chart.lines[0].dots) == 1
    assert [name for _, name in chart.boundaries] == ["Source", "Step 1"]
    assert line_chart("x", [Series("x", [[], []])]) is None


def test_percent_axis_ends_at_a_hundred() -> None:
    chart = line_chart("x", [Series("x", [[(0, 20.0), (1, 99.0)]])], percent=True)
    assert chart is not None
    assert chart.y_ticks[-1][1] == "100"
    assert chart.lines[0].last == "99.0 %"
