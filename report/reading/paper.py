"""The paper's figures that belong beside a profile's methods."""

import pandas as pd


def counterparts(methods: pd.DataFrame, paper: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The paper's figures for these methods, a row a figure: paper.csv's columns, `method` being ours.

    A figure counts when the method has the same name (a backbone named in it aside) and the data set is the same, or
    OCTMNIST where the profile's own data is in no paper. The method's backbone is preferred; where the paper has none
    of its figures,
    VGG16's are shown for CNN methods, but not for ViTs, whose methods only share a name. A network trained
    from scratch stands beside the one of its name. Figures without an accuracy are left out.

    Args:
        methods: as `Results.methods`, of which backbone and group are read.
        paper: as `Results.paper`.
        dataset: as `Results.dataset`.
    """
    paper = paper[paper.accuracy.notna()]
    paper = paper[paper.dataset == (dataset if dataset in set(paper.dataset) else "octmnist")]
    found = [_stated(paper, method, row).assign(method=method) for method, row in methods.iterrows()]
    return pd.concat(found).reset_index(drop=True)


def _stated(paper: pd.DataFrame, method: str, row: pd.Series) -> pd.DataFrame:
    """The figures of `paper` for one method."""
    bare = method.removeprefix(f"{row.backbone}-").removesuffix(f"-{row.backbone}")
    same = paper[paper.method == (method if method in set(paper.method) else bare)]
    own = same[same.backbone == row.backbone]
    if len(own) or row.group not in ("CNN", "ViT"):  # the other groups' networks have names of their own in the paper
        return own if len(own) else same
    return same[same.backbone == ("vgg16" if row.group == "CNN" else row.backbone)]
