"""What one can see of a run while it trains: a bar on a terminal, else a line an epoch; and curves on disk."""

import csv
import time
from pathlib import Path

from pipelines.files.errors import UserError
from pipelines.profile import Params


class EpochLog:
    """A context whose `on_epoch` takes each row of the curves: it shows it, appends it to a CSV file of its own
    (checkpoints/PROFILE/METHOD/SEED.csv, to look at while the run goes on), and hands it to the profile's loggers.
    """

    def __init__(self, params: Params, title: str, path: Path, epochs: int):
        self.title, self.path, self.epochs = title, path, epochs
        self.loggers = [_logger(name, params, title) for name in params.log]

    def __enter__(self):
        from tqdm import tqdm

        self.bar = tqdm(total=self.epochs, desc=self.title, unit="epoch", disable=None, leave=False)
        self.start, self.first = time.monotonic(), None
        return self

    def __exit__(self, *_):
        self.bar.close()
        for _, end in self.loggers:
            end()

    def on_epoch(self, row: dict) -> None:
        if self.first is None:
            self.first = row["epoch"]
            if self.first > 1:
                print(f"{self.title}: resumed after epoch {self.first - 1}", flush=True)
        if self.bar.disable:
            seconds = (time.monotonic() - self.start) / (row["epoch"] - self.first + 1) * (self.epochs - row["epoch"])
            print(
                f"{self.title}: epoch {row['epoch']} of {self.epochs}, loss {row['train_loss']:.3f}, "
                f"validation accuracy {row['val_acc']:.3f}, {seconds:.0f} s left",
                flush=True,
            )
        else:
            self.bar.n = row["epoch"]
            self.bar.set_postfix(loss=f"{row['train_loss']:.3f}", val=f"{row['val_acc']:.3f}")
        self._append(row)
        for log, _ in self.loggers:
            log(row)

    def _append(self, row: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "w" if row["epoch"] == 1 else "a", newline="") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if row["epoch"] == 1:
                writer.writeheader()
            writer.writerow(row)


def _logger(name: str, params: Params, title: str):
    """(log a row, end) of an optional package.

    Raises:
        UserError: it is not installed.
    """
    try:
        return _open(name, params, title)
    except ModuleNotFoundError as error:
        raise UserError(
            f"log: {name} needs the package {error.name!r}, which is not installed; `pip install '.[log]'`"
        ) from None


def _open(name: str, params: Params, title: str):
    folder = Path("checkpoints") / params.profile / name / title.replace(" seed ", "/")
    if name == "dvclive":
        from dvclive import Live

        live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)

        def log(row):
            for key, value in row.items():
                live.log_metric(key, value)
            live.next_step()

        return log, live.end
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    return lambda row: [writer.add_scalar(k, v, row["epoch"]) for k, v in row.items() if k != "epoch"], writer.close
