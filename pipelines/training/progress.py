"""What one can see of a run while it trains: a bar on a terminal, else a line an epoch; and curves on disk."""

import csv
import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipelines.files.errors import UserError
from pipelines.profile import Params


@contextmanager
def epoch_log(params: Params, title: str, path: Path, epochs: int) -> Iterator[Callable[[dict], None]]:
    """Gives what takes each row of the curves: it shows it, appends it to a CSV file of its own
    (checkpoints/PROFILE/METHOD/SEED.csv, to look at while the run goes on), and hands it to the profile's loggers.

    Raises:
        UserError: a logger is not installed.
    """
    from tqdm import tqdm

    start, first = time.monotonic(), None
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        loggers = [_logger(name, params, title, stack) for name in params.log]
        bar = stack.enter_context(tqdm(total=epochs, desc=title, unit="epoch", disable=None, leave=False))

        def on_epoch(row: dict) -> None:
            nonlocal first
            epoch = row["epoch"]
            if first is None:
                first = epoch
                if epoch > 1:
                    print(f"{title}: resumed after epoch {epoch - 1}", flush=True)
            if bar.disable:
                seconds = (time.monotonic() - start) / (epoch - first + 1) * (epochs - epoch)
                print(
                    f"{title}: epoch {epoch} of {epochs}, loss {row['train_loss']:.3f}, "
                    f"validation accuracy {row['val_acc']:.3f}, {seconds:.0f} s left",
                    flush=True,
                )
            else:
                bar.n = epoch
                bar.set_postfix(loss=f"{row['train_loss']:.3f}", val=f"{row['val_acc']:.3f}")
            with open(path, "w" if epoch == 1 else "a") as file:
                file.write(curves([row], header=epoch == 1))
            for log in loggers:
                log(row)

        yield on_epoch


def curves(rows: list[dict], *, header: bool = True) -> str:
    """Rows as CSV, numbers with all their digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _logger(name: str, params: Params, title: str, stack: ExitStack) -> Callable[[dict], None]:
    """What logs a row by an optional package, until the stack ends it."""
    folder = str(Path("checkpoints") / params.profile / name / title.replace(" seed ", "/"))
    try:
        if name == "dvclive":
            from dvclive import Live
        else:
            from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise UserError(
            f"log: {name} needs the package {error.name!r}, which is not installed; `pip install '.[log]'`"
        ) from None
    if name == "tensorboard":
        writer = SummaryWriter(folder)
        stack.callback(writer.close)
        return lambda row: [writer.add_scalar(k, v, row["epoch"]) for k, v in row.items() if k != "epoch"]
    live = Live(folder, save_dvc_exp=False, dvcyaml=None)
    stack.callback(live.end)

    def log(row):
        for key, value in row.items():
            live.log_metric(key, value)
        live.next_step()

    return log
