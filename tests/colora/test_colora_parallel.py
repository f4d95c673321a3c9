"""Two processes on gloo: DistributedDataParallel and FSDP2 train what one process does, and adapters come out whole."""

import json
from datetime import timedelta

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import colora
from colora import ColoraConv2d

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch was built without gloo")
RATE = 0.05
TIMEOUT = timedelta(seconds=60)  # one process that fails does not hold the other for long


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 5, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )


def injected():
    model = colora.inject(net())
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, ColoraConv2d):
            nn.init.normal_(module.depthwise, std=0.3)
    return model


def batch():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def step(model, x):
    model.zero_grad()
    model(x).square().sum(1).mean().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], RATE).step()


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def join(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=TIMEOUT
    )


def data_parallel(rank, folder):
    join(rank, folder)
    model = DistributedDataParallel(injected())
    for _ in range(2):
        step(model, batch()[2 * rank :][:2])
    y = model(batch()).detach()
    colora.merge(model)
    close(model(batch()).detach(), y)
    if rank == 0:
        colora.save_adapter(model, f"{folder}/adapter")
        torch.save(y, f"{folder}/outputs")
    distributed.destroy_process_group()


def sharded(rank, folder):
    from torch.distributed.fsdp import fully_shard

    join(rank, folder)
    mesh = distributed.device_mesh.init_device_mesh("cpu", (2,))
    model = injected()
    for module in (model[0], model[2], model):
        fully_shard(module, mesh=mesh)
    for _ in range(2):
        step(model, batch()[2 * rank :][:2])
    y = model(batch()).detach()
    colora.save_adapter(model, f"{folder}/adapter")
    colora.merge(model)
    close(model(batch()).detach(), y)
    colora.save_adapter(model, f"{folder}/merged")
    with colora.disable_adapter(model), torch.no_grad():
        close(model(batch()), net()(batch()))
    colora.unmerge(model)
    close(model(batch()).detach(), y)
    colora.reset(model)
    close(model(batch()).detach(), net()(batch()).detach())
    distributed.barrier()
    colora.load_adapter(model, f"{folder}/adapter")
    close(model(batch()).detach(), y)
    colora.merge(model)
    colora.reset(model)
    close(model(batch()).detach(), y)
    step(model, batch()[2 * rank :][:2])
    y_reset = model(batch()).detach()
    colora.save_adapter(model, f"{folder}/reset")
    if rank == 0:
        torch.save(y, f"{folder}/outputs")
        torch.save(y_reset, f"{folder}/reset/outputs")
    distributed.destroy_process_group()


def refused(rank, folder):
    from torch.distributed.fsdp import fully_shard

    join(rank, folder)
    with pytest.raises(ValueError, match="the model is wrapped in DistributedDataParallel already"):
        colora.inject(DistributedDataParallel(net()))
    mesh = distributed.device_mesh.init_device_mesh("cpu", (2,))
    with pytest.raises(TypeError, match="'0': its weight is sharded already; inject first"):
        colora.inject(fully_shard(net(), mesh=mesh))
    torch.save(True, f"{folder}/both{rank}")
    distributed.destroy_process_group()


def work(rank, folder):
    """All that two processes do, one after the other: each takes seconds to import torch."""
    for do in (refused, data_parallel, sharded):
        do(rank, f"{folder}/{do.__name__}")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for do in (refused, data_parallel, sharded):
        (folder / do.__name__).mkdir()
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("train", [data_parallel, sharded])
def test_two_processes_train_what_one_does(train, done):
    folder = done / train.__name__
    alone = injected()
    for _ in range(2):
        step(alone, batch())
    expected = alone(batch()).detach()
    close(torch.load(folder / "outputs"), expected)
    close(colora.load_adapter(net(), folder / "adapter")(batch()).detach(), expected)
    if train is sharded:
        colora.save_adapter(alone, folder / "alone")
        files = [folder / name / "adapter_config.json" for name in ("adapter", "alone")]
        one, other = (json.loads(file.read_text())["base"] for file in files)
        assert one == other
        for file in (folder / "merged").iterdir():
            assert file.read_bytes() == (folder / "adapter" / file.name).read_bytes()
        expected = torch.load(folder / "reset" / "outputs")
        close(colora.load_adapter(net(), folder / "reset")(batch()).detach(), expected)


def test_injecting_into_a_wrapped_or_sharded_model_is_refused(done):
    assert {path.name for path in (done / "refused").glob("both*")} == {"both0", "both1"}
