"""What must hold between the settings of a recipe: each rule is a function that returns the problem, or None."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it asks these rules, and so must import them
    from scm_distill.config.schema import Recipe

Rule = Callable[["Recipe"], str | None]


def micro_batches_fill_a_batch(recipe: "Recipe") -> str | None:
    """train.batch_size is a multiple of train.micro_batch_size."""
    batch, micro = recipe.train.batch_size, recipe.train.micro_batch_size
    if micro is not None and batch % micro:
        return f"train.batch_size {batch} is no multiple of train.micro_batch_size {micro}"
    return None


def guidance_range_rises(recipe: "Recipe") -> str | None:
    """A range of guidance scales goes from low to high."""
    scale = recipe.guidance.scale
    if isinstance(scale, tuple) and scale[0] >= scale[1]:
        return f"guidance.scale {list(scale)} is no range from low to high"
    return None


def difference_needs_float32(recipe: "Recipe") -> str | None:
    """A central difference of rounded products is noise."""
    if (recipe.objective.tangent, recipe.train.precision) == ("difference", "bf16"):
        return "objective.tangent=difference needs train.precision=fp32"
    if recipe.objective.tangent == "difference" and (recipe.train.compiles or recipe.train.tf32):
        return "objective.tangent=difference needs train.compile=off or auto and train.tf32=false"
    return None


def compilation_needs_the_fast_layout(recipe: "Recipe") -> str | None:
    """The lean layout recomputes activations, which compiled passes do not."""
    if recipe.train.compiles and recipe.train.memory == "lean":
        return "train.compile needs train.memory=fast or auto: nothing is compiled in the lean layout"
    return None


def a_compiled_step_is_not_sharded(recipe: "Recipe") -> str | None:
    """FSDP2 gathers block by block, outside of a pass that is compiled as a whole."""
    if recipe.train.compile == "step" and recipe.train.shard != "off":
        return "train.compile=step needs train.shard=off; compile=blocks goes with it"
    return None


def narrow_weights_need_bf16(recipe: "Recipe") -> str | None:
    """The teacher's narrow weights are multiplied in bf16."""
    if recipe.teacher.dtype != "fp32" and recipe.train.precision == "fp32":
        return f"teacher.dtype={recipe.teacher.dtype} needs train.precision=bf16"
    return None


def int8_weights_are_not_sharded(recipe: "Recipe") -> str | None:
    """FSDP2 cannot share out torchao's int8 tensors."""
    if recipe.train.shard == "all" and recipe.teacher.dtype == "int8":
        return "train.shard=all cannot share out a teacher.dtype=int8"
    return None


def what_is_sharded_is_not_offloaded(recipe: "Recipe") -> str | None:
    """EMA and teacher are either shared out or kept in host memory."""
    if recipe.train.shard != "off" and "ema" in recipe.train.offload:
        return "train.shard shares out the EMA already: leave it out of train.offload"
    if recipe.train.shard == "all" and "teacher" in recipe.train.offload:
        return "train.offload=[teacher] and train.shard=all both move the teacher: choose one"
    return None


def push_names_a_repository(recipe: "Recipe") -> str | None:
    """push.repo is a Hub id with a name space."""
    if recipe.push.repo is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", recipe.push.repo):
        return f"push.repo {recipe.push.repo!r} is no Hub id: write NAME/MODEL"
    return None


def dropout_needs_guidance(recipe: "Recipe") -> str | None:
    """Without guidance no unconditional arguments are recorded that could take a condition's place."""
    if recipe.guidance.dropout and recipe.guidance.scale is None:
        return "guidance.dropout needs guidance.scale: without guidance there is no unconditional half"
    return None


def alpha_needs_a_rank(recipe: "Recipe") -> str | None:
    """lora.alpha scales an adapter."""
    if recipe.lora.rank is None and recipe.lora.alpha is not None:
        return "lora.alpha needs lora.rank: without a rank the whole network is trained"
    return None


RULES: tuple[Rule, ...] = (
    micro_batches_fill_a_batch,
    guidance_range_rises,
    difference_needs_float32,
    compilation_needs_the_fast_layout,
    a_compiled_step_is_not_sharded,
    narrow_weights_need_bf16,
    int8_weights_are_not_sharded,
    what_is_sharded_is_not_offloaded,
    push_names_a_repository,
    dropout_needs_guidance,
    alpha_needs_a_rank,
)
