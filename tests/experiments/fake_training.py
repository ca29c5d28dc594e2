"""Stands in for `python -m iccld`: trains nothing, but writes, fails, waits and stops as a run would; its recipe is in the config."""

import json
import os
import signal
import sys
import time
from pathlib import Path

assert sys.argv[1:3] == ["adapt", "--config"], sys.argv
assert sys.argv[4:] == ["--resume", "auto", "--no_estimate"], sys.argv
told = json.loads(Path(sys.argv[3]).read_text())
run = Path(told["run"])
run.mkdir(parents=True, exist_ok=True)
with (run / "starts").open("a") as file:
    file.write("x")
(run / "began").write_text(str(time.time()))
(run / "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))
other = run.parent / str(told.get("meets")) / "began"
while told.get("meets") and not other.exists():  # the test's time limit ends it where the other never comes
    time.sleep(0.01)
if told.get("fails"):
    print("error: the moon is not in range", file=sys.stderr)
    sys.exit(told["fails"])
if told.get("killed"):
    os.kill(os.getpid(), signal.SIGKILL)
if told.get("waits") and not (run / "saved").exists():

    def save(number, frame):
        (run / "saved").write_text("1")
        sys.exit(75)

    signal.signal(signal.SIGTERM, save)
    (run / "waiting").write_text(str(os.getpid()))
    time.sleep(60)
if not told.get("silent"):
    (run / "summary.json").write_text(json.dumps({"stages": {"adapt": {"iterations": 4}}}))
