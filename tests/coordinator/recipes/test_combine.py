"""Every combination without meaning is refused by name, with the reason; what is left can be combined."""

from __future__ import annotations

import json

import pytest

from coordinator.recipe import load_recipe, recipe_from_json
from coordinator.recipes.combine import _RULES
from wire.errors import ConfigError

FOLD, WEIGHTS = "devices.late=fold", "uplink.kind=weights"
TOPK = 'uplink.stages=[{stage="topk",share=0.1}]'
LEVELS = 'uplink.stages=[{stage="levels",levels=3}]'
FEEDBACK, PRIVATE = "uplink.feedback=true", "privacy.clip=1.0"
LONG = 'uplink.stages=[{stage="topk",share=0.1},{stage="levels",levels=2,norm="l2"}]'
ONE = 'uplink.stages=[{stage="topk",share=0.1},{stage="levels",levels=1}]'
SIGNS = 'uplink.stages=[{stage="topk",share=0.1},{stage="signs"}]'
DOWN = TOPK.replace("uplink", "downlink")
QUPED = "personal={distil=0.5,skip=[]}"
REFUSED = [
    ([FOLD, WEIGHTS], 'devices.late = "fold" with uplink.kind = "weights"', "undo newer rounds"),
    ([FEEDBACK, TOPK, FOLD], 'uplink.feedback with devices.late = "fold"', "what became of its last update"),
    ([FEEDBACK, TOPK, WEIGHTS], 'uplink.feedback with uplink.kind = "weights"', "are in the next weights already"),
    ([FEEDBACK], "uplink.feedback without stages", "nothing is left out"),
    ([FEEDBACK, TOPK, PRIVATE], "uplink.feedback with privacy", "must not come back through the residual"),
    ([PRIVATE, WEIGHTS], 'privacy with uplink.kind = "weights"', "that of its weights does not"),
    ([PRIVATE, FOLD], 'privacy with devices.late = "fold"', "counts a device once a round"),
    ([PRIVATE, LEVELS, "schedule.rule=ascending"], "privacy with a schedule that follows the loss", "without noise"),
    ([PRIVATE, LEVELS, "schedule.rule=descending"], "privacy with a schedule that follows the loss", "without noise"),
    (
        [PRIVATE, "privacy.mechanism=tree", "server.optimiser=adam"],
        'privacy.mechanism = "tree" with server.optimiser = "adam"',
        "only in a linear server step",
    ),
    (["schedule.rule=ascending"], 'schedule without a stage "levels" in uplink.stages', "the schedule sets its levels"),
    (["schedule.rule=ascending", SIGNS], 'schedule without a stage "levels" in uplink.stages', "the schedule sets"),
    ([WEIGHTS, SIGNS], 'uplink.kind = "weights" with a stage "signs"', "send deltas"),
    (["schedule.rule=descending", TOPK], 'schedule without a stage "levels" in uplink.stages', "add"),
    ([QUPED, 'train.transforms=[{transform="qat",bits=3}]'], "personal models with train.transforms", "of their own"),
    ([QUPED, 'train.penalty={penalty="kure"}'], "personal models with train.transforms", "of their own"),
    ([QUPED, "trunk=t.npz", 'freeze=["fc1.*"]'], "personal models with a trunk", "drop the trunk"),
    (
        [WEIGHTS, TOPK, DOWN],
        'uplink.kind = "weights" with a top-k and downlink.stages',
        'send the largest changes (kind = "delta"',
    ),
    *(
        (["task=echo", 'model="vector-9"', method], 'task = "echo" with train.transforms', "trains nothing")
        for method in ('train.transforms=[{transform="qat",bits=3}]', 'train.penalty={penalty="kure"}', QUPED)
    ),
    (["trunk=t.npz"], "a trunk without freeze", "name them in freeze"),
    (['uplink.whole=["out.*"]', TOPK], 'uplink.whole with uplink.scope = "update"', 'scope = "tensor"'),
    (
        ['downlink.stages=[{stage="topk",share=0.1,by="weights"}]'],
        'downlink.stages with by = "weights"',
        "ranked by its own values",
    ),
    (
        [FEEDBACK, 'uplink.stages=[{stage="topk",share=0.1,by="weights"}]'],
        'uplink.feedback with stages by = "weights"',
        "nothing would ever be sent",
    ),
    ([FEEDBACK, LONG], "uplink.feedback with levels of such noise", "would grow from round to round"),
    ([FEEDBACK, 'uplink.stages=[{stage="levels",levels=1}]'], "uplink.feedback with levels of such noise", "2 levels"),
    ([FEEDBACK, LEVELS, "schedule.rule=ascending"], "uplink.feedback with levels of such noise", "schedule.least = 2"),
    (
        [FEEDBACK, LEVELS, "schedule.rule=descending", "schedule.start=16"],
        "uplink.feedback with levels of such noise",
        "schedule.least = 2",
    ),
    ([FEEDBACK, ONE.replace("0.1", "0.9")], "uplink.feedback with levels of such noise", "2 levels"),
    (
        [FEEDBACK, ONE, "uplink.scope=tensor", 'uplink.whole=["*.bias"]'],
        "uplink.feedback with levels of such noise",
        "2 levels",
    ),
    ([LONG.replace("uplink", "downlink")], "downlink.stages with levels of such noise", "the way down has feedback"),
]
TAKEN = [
    [FEEDBACK, TOPK],
    [FEEDBACK, TOPK, 'uplink.scope="tensor"', 'uplink.whole=["first","last","*.bias"]'],
    [FEEDBACK, ONE],
    [LONG],
    [FEEDBACK, LEVELS, "schedule.rule=ascending", "schedule.least=2", 'freeze=["fc1.weight"]'],
    [FEEDBACK, LEVELS.replace("3", "1"), "schedule.rule=descending", "schedule.least=2", "schedule.start=9"],
    [FEEDBACK, ONE, "schedule.rule=ascending"],
    [LEVELS, "schedule.rule=fixed", "schedule.start=2", "privacy.population=0"],
    [WEIGHTS, TOPK],
    [WEIGHTS, LEVELS, DOWN],
    [TOPK, DOWN],
    [FEEDBACK, SIGNS, SIGNS.replace("uplink", "downlink"), "uplink.scope=tensor"],
    [PRIVATE, SIGNS],
    [FOLD, TOPK],
    [WEIGHTS, LEVELS, "schedule.rule=descending"],
    [PRIVATE, "privacy.mechanism=tree", "privacy.noise=1.0", "server.optimiser=momentum", LEVELS],
    [PRIVATE, 'freeze=["fc1.weight"]', 'train.transforms=[{transform="mqat",bits=[3,8]}]'],
    ["trunk=t.npz", 'freeze=["fc1.*"]', 'train.penalty={penalty="kure"}'],
    [QUPED, 'freeze=["fc1.weight"]', TOPK, FEEDBACK],
]


@pytest.mark.parametrize(("settings", "what", "why"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_has_no_meaning_is_refused_by_name(settings, what, why):
    with pytest.raises(ConfigError) as caught:
        load_recipe("fedavg", settings)
    assert what in caught.value.message
    assert why in str(caught.value)


def test_no_rule_is_left_out():
    met = {rule for _, what, _ in REFUSED for _, rule, _ in _RULES if what in rule}
    assert met == {rule for _, rule, _ in _RULES}


@pytest.mark.parametrize("settings", TAKEN, ids=str)
def test_what_may_be_combined_loads_and_comes_back_from_json(settings):
    recipe = load_recipe("fedavg", settings)
    assert recipe_from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (['uplink.whole=["fc9.*"]', "uplink.scope=tensor", TOPK], "uplink.whole: 'fc9.*' fits no trainable tensor"),
        (['uplink.whole=["fc1.weight"]', "uplink.scope=tensor", TOPK, 'freeze=["fc1.*"]'], "fits no trainable tensor"),
        (['uplink.whole=["middle"]', "uplink.scope=tensor", TOPK], "fits no trainable tensor"),
        (['freeze=["fc9*"]'], "freeze 'fc9*' fits no tensor"),
        (['freeze=["*"]'], "leaves nothing"),
        (['freeze=["*.weight","*.bias"]'], "leaves nothing"),
        (['train.transforms=[{transform="qad",bits=3}]'], "qad"),
        (['train.transforms=[{transform="qat",bit=3}]'], "bit"),
        (['train.penalty={penalty="kurt"}'], "kurt"),
        (["personal={distill=0.5}"], "distill"),
        (["personal={mix=[1]}"], "personal.mix"),
        (["personal={mix=[{centres=-1}]}"], "centres"),
        (["privacy.noise=1.0"], "privacy.noise = 1.0 without a clip"),
        (["privacy.population=20"], "privacy.population = 20 without a clip"),
        (["privacy.mechanism=tree"], "privacy.mechanism = 'tree' without a clip"),
        ([LEVELS, "schedule.start=9"], 'schedule.start = 9 with rule = "fixed"'),
        ([LEVELS, "schedule.rate_aware=true"], 'schedule.rate_aware = True with rule = "fixed"'),
        (["evaluate.bits=[1]"], "evaluate.bits"),
        (["evaluate.every=0"], "evaluate.every"),
        (["evaluate.range=best"], "evaluate.range"),
    ],
    ids=str,
)
def test_what_names_nothing_is_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe("fedavg", settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ('train.transforms=[{transform="qat",skip=["nope*"]}]', "skip: 'nope*' is none of the tensors fc1.weight"),
        ('train.penalty={penalty="kure",skip=["nope"]}', "skip: 'nope' is none of the tensors fc1.weight"),
        ('train.transforms=[{transform="mqat",skip=["first","last"]}]', "mqat: skip = ['first', 'last'] leaves no"),
        (
            'train.transforms=[{transform="swat",sparsity=0.9}]',
            "swat: skip = ['first', 'last'] leaves no tensor of 'mlp'",
        ),
    ],
)
def test_what_a_method_leaves_alone_is_looked_up_before_a_run(setting, what):
    with pytest.raises(ConfigError) as caught:
        load_recipe("fedavg", [setting])
    assert what in str(caught.value)
    assert load_recipe("fedavg", [setting.replace("nope*", "fc1*").replace("nope", "first"), "model=mlp-8-8-8"])
