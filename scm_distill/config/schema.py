"""The settings of a recipe, with their defaults, units and sources; frozen, and strict about names. Knows no torch.

Units: steps are optimizer steps, batch sizes are global (summed over processes), times are radians, images in [-1, 1].
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Teacher(Section):
    """The pretrained pipeline to distil."""

    repo: str = Field(description="pipeline folder, Hub id, or builtin:NAME")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    call: dict[str, Any] = Field({}, description="arguments of its stock call, such as height, width or num_frames")
    pipeline: str | None = Field(None, description="of a single .safetensors file: the diffusers class that reads it")
    config: str | None = Field(None, description="of a single file: folder or Hub id with the parts' configuration")
    allow_pickle: bool = Field(False, description="load .bin weights too; only from a source that you trust")
    dtype: Literal["fp32", "bf16", "int8"] = Field(
        "fp32", description="of its frozen weights; bf16 halves their memory, int8 (torchao) quarters it"
    )


class Data(Section):
    """What noise is added to."""

    source: str = Field(description="teacher (its own samples), folder of images, clips or sounds, .npz, builtin:NAME")
    prompts: str | None = Field(None, description="text file, a prompt a line; for data.source=teacher")
    samples: PositiveInt = Field(1024, description="of data.source=teacher: how many are drawn before training")
    flip: bool = Field(False, description="mirror half of the images; pixel teachers only")
    workers: int = Field(0, ge=0, description="processes that decode images")


class Guidance(Section):
    """Classifier-free guidance, by the teacher's own rule, baked into the student."""

    scale: float | tuple[float, float] | None = Field(
        None, description="a scale, or a range [low, high] for a network that is told the scale; null: unguided"
    )
    negative_prompt: str = Field("", description="what the teacher is guided away from")
    dropout: Share = Field(0.0, description="share of samples whose condition is replaced by the unconditional one")


class Objective(Section):
    """sCM, Algorithm 1 of arXiv 2410.11081."""

    name: Literal["scm"] = "scm"
    velocity: Literal["teacher", "data"] = Field(
        "teacher", description="teacher: distillation, sCD. data: training, sCT"
    )
    sigma_d: PositiveFloat = Field(
        1.0, description="1 makes F the v prediction that diffusers exports; see algorithm.md 3"
    )
    P_mean: float = Field(-0.31, description="mean of ln(sigma_d tan t); paper, CIFAR-10, moved to sigma_d = 1")
    P_std: PositiveFloat = Field(1.4, description="its standard deviation; paper, CIFAR-10")
    c: PositiveFloat = Field(0.1, description="tangent normalization; paper, Algorithm 1")
    normalization: Literal["rms", "l2", "clip", "none"] = Field("rms", description="what ||g|| means")
    warmup_steps: int = Field(1000, ge=0, description="H of r = min(1, step / H); paper 10 000, short runs about 1 000")
    weighting: Literal["adaptive", "none"] = Field("adaptive", description="w_phi(t); paper, section 4.2")
    tangent: Literal["auto", "jvp", "difference"] = Field(
        "auto", description="jvp is exact; auto: jvp if a central difference confirms it, else an error"
    )
    difference_step: Literal["auto"] | PositiveFloat = Field(
        "auto", description="step of the central difference in ln(tan t); auto: 0.02 for index times, 0.002 for others"
    )


class Adapt(Section):
    """What makes a stock index-time, epsilon-predicting checkpoint distillable."""

    smooth_time: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto", description="width of the time embedding's low-pass in native steps; 0 is off"
    )
    tolerance: PositiveFloat = Field(0.05, description="auto: largest relative change of the teacher's F")
    output: Literal["auto", "v_prediction", "keep"] = Field(
        "auto",
        description="of an epsilon or x_0 network, others stay; auto: v_prediction, but keep with lora.rank",
    )
    prefit_steps: int = Field(1000, ge=0, description="regression of the new output onto the teacher's F")
    prefit_lr: PositiveFloat = 6e-4
    reclock: Literal["auto"] | bool = Field(
        "auto", description="a clock on which any t_mid is a grid point (auto: pixel UNets); off: the teacher's own"
    )


class Lora(Section):
    """An adapter of low rank as the student, by peft, instead of the whole network."""

    rank: PositiveInt | None = Field(None, description="of the adapter; null: the whole network is trained")
    alpha: PositiveFloat | None = Field(None, description="the adapter is scaled by alpha / rank; null: the rank")
    targets: Literal["attention", "all-linear"] | tuple[str, ...] = Field(
        "attention", description="layers: to_q, to_k, to_v, to_out.0; or every Linear; or a list of name endings"
    )


class Optimizer(Section):
    """How theta moves."""

    name: Literal["adam", "radam", "adamw"] = "radam"
    lr: PositiveFloat = Field(1e-4, description="paper, CIFAR-10")
    betas: tuple[Share, Share] = Field((0.9, 0.99), description="paper, CIFAR-10")
    eps: PositiveFloat = Field(1e-8, description="paper, CIFAR-10")
    weight_decay: float = Field(0.0, ge=0)
    grad_clip: PositiveFloat | None = Field(1.0, description="largest gradient norm")
    warmup_steps: int = Field(50, ge=0, description="linear ramp of the learning rate")
    decay: Literal["cosine", "constant", "rsqrt"] = Field(
        "cosine", description="to 0 at the last step; or not; or 1/sqrt"
    )


class Train(Section):
    """The run."""

    steps: PositiveInt
    batch_size: PositiveInt = Field(description="images per optimizer step, summed over processes")
    micro_batch_size: PositiveInt | None = Field(None, description="images at a time and process; the rest accumulates")
    seed: int = Field(0, ge=0)
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of the denoiser's products; the trained weights and the time stay float32"
    )
    tf32: bool = Field(
        False, description="TF32 products in float32 parts (CUDA); tangents are then off by 1e-3 to 6e-3"
    )
    memory: Literal["auto", "fast", "lean"] = Field(
        "auto", description="lean recomputes activations in the backward; auto: only if fast does not fit"
    )
    compile: Literal["off", "blocks", "step"] = Field(
        "off", description="torch.compile each block, or the whole pass; checked against eager before step 0"
    )
    shard: Literal["off", "student", "all"] = Field(
        "off", description="FSDP2 over the processes: student with its optimizer and EMA, or the teacher too"
    )
    offload: tuple[Literal["teacher", "ema"], ...] = Field((), description="what waits in host memory")
    device: Literal["auto", "cpu"] = "auto"
    threads: PositiveInt | None = Field(None, description="CPU threads; null leaves them to torch")
    ema_std: Annotated[float, Field(gt=0, lt=0.2886)] = Field(0.05, description="relative width of the EMA; paper 0.05")
    checkpoint_every: PositiveInt = 1000
    keep_checkpoints: PositiveInt = 2
    evaluate_every: PositiveInt = Field(1000, description="steps between previews and comparisons with the teacher")
    evaluate_samples: Annotated[int, Field(ge=2)] = Field(256, description="samples of each comparison")
    stop_if_worse: bool = Field(True, description="stop when, after the warm-up, the student is worse than its teacher")


class Sampler(Section):
    """Where sampling starts, and how the teacher's endpoint is found."""

    sigma_max: PositiveFloat = Field(
        80.0, description="t_max = arctan(sigma_max / sigma_d), at most the teacher's; paper"
    )
    teacher_steps: Annotated[int, Field(ge=2)] = Field(50, description="Heun steps of the teacher's ODE")


class Export(Section):
    """The two-step student."""

    t_mid: tuple[Annotated[float, Field(gt=0, lt=1.5707)], ...] = Field(
        (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3),
        min_length=1,
        description="searched; paper 1.1 for every dataset. Discrete latent teachers search their own grid instead",
    )
    samples: Annotated[int, Field(ge=2)] = Field(1024, description="samples for each t_mid of the search")


class Push(Section):
    """Where the student goes when it is exported; its rights are looked at before training."""

    repo: str | None = Field(None, description="Hub id, such as me/student; null: nowhere")
    private: bool = Field(False, description="make the repository private")
    revision: str | None = Field(None, description="branch to push to; null: main")
    license: str | None = Field(None, description="licence of the student; null: the teacher's")


class Recipe(Section):
    """All of a run."""

    teacher: Teacher
    data: Data
    guidance: Guidance = Guidance()
    objective: Objective = Objective()
    adapt: Adapt = Adapt()
    lora: Lora = Lora()
    optimizer: Optimizer = Optimizer()
    train: Train
    sampler: Sampler = Sampler()
    export: Export = Export()
    push: Push = Push()

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        micro = self.train.micro_batch_size
        if micro is not None and self.train.batch_size % micro:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} is no multiple of train.micro_batch_size {micro}"
            )
        scale = self.guidance.scale
        if isinstance(scale, tuple) and scale[0] >= scale[1]:
            raise ValueError(f"guidance.scale {list(scale)} is no range from low to high")
        if (self.objective.tangent, self.train.precision) == ("difference", "bf16"):
            raise ValueError("objective.tangent=difference needs train.precision=fp32")
        if self.objective.tangent == "difference" and (self.train.compile != "off" or self.train.tf32):
            raise ValueError("objective.tangent=difference needs train.compile=off and train.tf32=false")
        if self.train.compile != "off" and self.train.memory == "lean":
            raise ValueError("train.compile needs train.memory=fast or auto: nothing is compiled in the lean layout")
        if self.train.compile == "step" and self.train.shard != "off":
            raise ValueError("train.compile=step needs train.shard=off; compile=blocks goes with it")
        if self.teacher.dtype != "fp32" and self.train.precision == "fp32":
            raise ValueError(f"teacher.dtype={self.teacher.dtype} needs train.precision=bf16")
        if self.train.shard == "all" and self.teacher.dtype == "int8":
            raise ValueError("train.shard=all cannot share out a teacher.dtype=int8")
        if self.train.shard != "off" and "ema" in self.train.offload:
            raise ValueError("train.shard shares out the EMA already: leave it out of train.offload")
        if self.train.shard == "all" and "teacher" in self.train.offload:
            raise ValueError("train.offload=[teacher] and train.shard=all both move the teacher: choose one")
        if self.push.repo is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.push.repo):
            raise ValueError(f"push.repo {self.push.repo!r} is no Hub id: write NAME/MODEL")
        if self.guidance.dropout and scale is None:
            raise ValueError("guidance.dropout needs guidance.scale: without guidance there is no unconditional half")
        if self.lora.rank is None and self.lora.alpha is not None:
            raise ValueError("lora.alpha needs lora.rank: without a rank the whole network is trained")
        return self

    @property
    def output(self) -> Literal["v_prediction", "keep"]:
        """What becomes of an epsilon or x_0 prediction."""
        if self.adapt.output != "auto":
            return self.adapt.output
        return "v_prediction" if self.lora.rank is None else "keep"
