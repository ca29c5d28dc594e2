"""Single pictures' confusions on disk: exact, and refused when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iccld.errors import DataError
from iccld.evaluation import Confusion, Record


def recorded() -> Record:
    rng = np.random.default_rng(0)
    record = Record()
    for name in ("ä/1", "2"):
        truth, prediction = rng.integers(0, 3, (2, 5, 7), dtype=np.uint8)
        single = Confusion(3)
        single.update(truth, prediction)
        record.add(name, single, prediction)
    return record


def test_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = recorded()
    record.save(tmp_path / "deep" / "step1.npz")
    again = Record.load(tmp_path / "deep" / "step1.npz")
    assert again.names == ["ä/1", "2"]
    for before, after in zip(record.confusions, again.confusions, strict=True):
        np.testing.assert_array_equal(after.matrix, before.matrix)
        assert after.num_images == 1
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["step1.npz"]


def test_missing_cut_and_pickled_records_are_refused(tmp_path: Path) -> None:
    recorded().save(tmp_path / "whole.npz")
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    np.savez(tmp_path / "pickled.npz", names=np.array([object()], dtype=object), matrices=np.zeros((1, 3, 4), dtype=np.int64))
    np.savez(tmp_path / "square.npz", names=np.array(["a"]), matrices=np.zeros((1, 3, 3), dtype=np.int64))
    for name in ("absent", "cut", "pickled", "square"):
        with pytest.raises(DataError, match="score the run again"):
            Record.load(tmp_path / f"{name}.npz")
