"""Pictures to masks on disk: any files and folders in; colours, ids, overlays and confidence out; resumable, sharded, atomic."""

from typing import TYPE_CHECKING

from iccld.lazy import lazily

if TYPE_CHECKING:
    from iccld.predict.line import PredictReport
    from iccld.predict.memory import label_pictures
    from iccld.predict.run import Wanted, predict_paths
    from iccld.predict.submission import predict_submission

__all__ = ["PredictReport", "Wanted", "label_pictures", "predict_paths", "predict_submission"]

__getattr__ = lazily(
    __name__,
    {
        "PredictReport": "iccld.predict.line",
        "Wanted": "iccld.predict.run",
        "label_pictures": "iccld.predict.memory",
        "predict_paths": "iccld.predict.run",
        "predict_submission": "iccld.predict.submission",
    },
)
