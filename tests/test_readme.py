"""README's examples run as they stand."""

import re

import torch
import torchvision

import baselines
from pipelines.runs.code import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_colora_on_your_own_cnn(workdir, monkeypatch, capsys):
    offline = torchvision.models.resnet18
    monkeypatch.setattr(torchvision.models, "resnet18", lambda weights: offline())
    names = {}
    exec(BLOCKS[0], names)
    trained, total = re.findall(r"[\d,]+", capsys.readouterr().out)[:2]
    assert 0 < int(trained.replace(",", "")) < int(total.replace(",", "")) / 5
    assert {p.name for p in (workdir / "my-adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    plain = offline(num_classes=4)
    plain.load_state_dict(names["plain"].state_dict())  # strict: the original keys


def test_the_example_method_trains_what_it_says():
    names = {}
    exec(BLOCKS[1], names)
    settings = {"backbone": "smallcnn", "weights": "random", "family": "head_only"}
    model = names["adapt"](baselines.build("example", settings, num_classes=4, image_size=32))
    trained = {name.split(".")[0] + "." + name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if name.startswith("backbone")} == {"backbone.block5"}
    assert torch.is_tensor(model(torch.zeros(1, 3, 32, 32)))


def test_what_came_out_is_what_the_results_say():
    from pipelines.profile import compose
    from report import pages

    text = (ROOT / "README.md").read_text()
    (names, stated) = re.search(
        r"<!-- headline: python -m report --headline (.*) -->\n(.*?)<!-- /headline", text, re.S
    ).groups()
    results = [pages.read(ROOT / "results" / name, compose(name).report.paper) for name in names.split()]
    assert stated.strip() == pages.headline(*results).strip() and len(results) == 4


def test_readme_is_one_page_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    pages = {ROOT / "README.md": text} | {page: page.read_text() for page in (ROOT / "docs").glob("*.md")}
    for page, content in pages.items():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", content):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
