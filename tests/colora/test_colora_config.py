"""ColoraConfig: what it accepts, and what it says about the rest."""

import dataclasses

import pytest

from colora import ColoraConfig


def test_defaults_are_those_of_the_method():
    config = ColoraConfig()
    assert (config.target_modules, config.exclude_modules, config.modules_to_save) == (None, None, ())
    assert (config.pointwise_bias, config.depthwise_bias, config.components) == (False, True, "both")


def test_sequences_become_tuples_so_that_configs_compare_and_hash():
    lists = ColoraConfig(target_modules=["b", "a"], modules_to_save=["head"], exclude_modules={"y", "x"})
    tuples = ColoraConfig(target_modules=("b", "a"), modules_to_save=("head",), exclude_modules=("x", "y"))
    assert lists == tuples and hash(lists) == hash(tuples)


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ColoraConfig().components = "pointwise"


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"components": "all"}, ValueError, "components is 'all'; expected one of both, pointwise, depthwise"),
        ({"gradient": "dense"}, ValueError, "gradient is 'dense'; expected one of auto, branch, kernel"),
        ({"target_modules": "conv("}, ValueError, "target_modules='conv\\(' is not a regular expression"),
        ({"target_modules": []}, ValueError, "target_modules is empty"),
        ({"target_modules": ""}, ValueError, "target_modules is empty"),
        ({"target_modules": 3}, TypeError, "target_modules is 3 \\(int\\)"),
        ({"target_modules": ["a", 1]}, TypeError, "target_modules holds 1"),
        ({"exclude_modules": "["}, ValueError, "exclude_modules"),
        ({"exclude_modules": [""]}, TypeError, "exclude_modules holds ''"),
        ({"modules_to_save": "head"}, TypeError, "modules_to_save is 'head'.*sequence"),
        ({"pointwise_bias": 1}, TypeError, "pointwise_bias is 1; expected True or False"),
        ({"depthwise_bias": None}, TypeError, "depthwise_bias is None"),
        ({"components": "depthwise", "pointwise_bias": True}, ValueError, "nothing to train"),
    ],
)
def test_refusals_name_the_field(arguments, error, message):
    with pytest.raises(error, match=message):
        ColoraConfig(**arguments)
