"""Pictures to masks on disk: any files and folders in; colours, ids, overlays and confidence out; resumable, sharded, atomic."""

from iccld.predict.memory import label_pictures
from iccld.predict.run import PredictReport, Wanted, predict_paths
from iccld.predict.submission import predict_submission

__all__ = ["PredictReport", "Wanted", "label_pictures", "predict_paths", "predict_submission"]
