"""The settings of a recipe, with their defaults, units and sources; frozen, and strict about names. Knows no torch.

Units: steps are optimizer steps, batch sizes are global (summed over processes), times are radians, images in [-1, 1].
`settings_page` prints all of this.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from scm_distill.config.rules import RULES

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Scale = Annotated[float, Field(ge=0)]
Several = Annotated[int, Field(ge=2)]

# Sources of defaults; "paper" is Lu & Song 2024 (sCM), arXiv 2410.11081.
CIFAR10 = "paper, CIFAR-10"
DIGITS = "trials on the digits"
CHOICE = "choice"  # of this project, not tuned
NEUTRAL = "neutral"  # nothing is changed unless the recipe asks


def setting(default: Any, what: str, source: str) -> Any:
    """A setting with its default, what it does, and where the default comes from."""
    return Field(default, description=what, json_schema_extra={"source": source})


class Section(BaseModel):
    """Frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Teacher(Section):
    """The pretrained pipeline to distil."""

    repo: str = Field(description="pipeline folder, Hub id, .safetensors file, or builtin:NAME")
    revision: str | None = setting(None, "branch, tag or commit of a Hub id", NEUTRAL)
    call: dict[str, JsonValue] = setting(
        {}, "arguments of its stock call, such as height, width or num_frames", NEUTRAL
    )
    pipeline: str | None = setting(None, "of a single .safetensors file: the diffusers class that reads it", NEUTRAL)
    config: str | None = setting(None, "of a single file: folder or Hub id with its components' configuration", NEUTRAL)
    variant: Annotated[str, Field(pattern=r"^\w+$")] | None = setting(
        None, "of its files of weights, such as fp16, bf16, ema or non_ema; null: those without one", NEUTRAL
    )
    allow_pickle: bool = setting(False, "load .bin weights too; only from a source that you trust", NEUTRAL)
    allow_few_step: bool = setting(
        False, "take a network that samples in a few steps already, such as a consistency model or an export", NEUTRAL
    )
    dtype: Literal["fp32", "bf16", "int8"] = setting(
        "fp32", "of its frozen weights; bf16 halves their memory, int8 (torchao) quarters it", NEUTRAL
    )


class Data(Section):
    """The samples to which noise is added."""

    source: str = Field(description="teacher (its own samples), folder of images, clips or sounds, .npz, builtin:NAME")
    prompts: str | None = setting(None, "text file, a prompt a line; for data.source=teacher", NEUTRAL)
    samples: PositiveInt = setting(1024, "of data.source=teacher: how many are drawn before training", CHOICE)
    flip: bool = setting(False, "mirror half of the images; pixel teachers only", NEUTRAL)
    workers: Count = setting(0, "processes that decode images, beside the one that trains", "PyTorch's DataLoader")


class Guidance(Section):
    """Classifier-free guidance, by the teacher's own rule, baked into the student."""

    scale: Scale | tuple[Scale, Scale] | None = setting(
        None,
        "a scale, or a range [low, high] for a network that has the scale as an input; null, and any scale at which "
        "the teacher's own call does not guide: unguided",
        NEUTRAL,
    )
    negative_prompt: str = setting("", "what the teacher is guided away from", NEUTRAL)
    dropout: Share = setting(0.0, "share of samples whose condition is replaced by the unconditional one", NEUTRAL)


class Objective(Section):
    """sCM, Algorithm 1 of arXiv 2410.11081."""

    name: Literal["scm"] = setting("scm", "the objective", "paper, Algorithm 1")
    velocity: Literal["teacher", "data"] = setting(
        "teacher", "dx_t/dt from the teacher: distillation, sCD; from the data: training, sCT", "paper, Algorithm 1"
    )
    sigma_d: PositiveFloat = setting(
        1.0,
        "standard deviation of the noise; 1 makes F the v prediction that diffusers exports",
        "paper, section 3, has 0.5; v prediction is Salimans & Ho 2022, arXiv 2202.00512",
    )
    P_mean: float = setting(
        -0.31, "mean of ln(sigma_d tan t)", f"{CIFAR10}: -1.0 at sigma_d = 0.5, which is -1.0 + ln 2 at sigma_d = 1"
    )
    P_std: PositiveFloat = setting(1.4, "standard deviation of ln(sigma_d tan t)", CIFAR10)
    c: PositiveFloat = setting(0.1, "tangent normalization, g / (||g|| + c)", "paper, Algorithm 1")
    normalization: Literal["rms", "l2", "clip", "none"] = setting(
        "rms",
        "what ||g|| means: root mean square or norm of a sample; clip: g is clipped to [-1, 1] instead",
        "the paper does not say; the mean is that of any size of sample",
    )
    warmup_steps: Count = setting(1000, "H of r = min(1, step / H)", "paper 10 000 of 400 000; fewer for short runs")
    weighting: Literal["adaptive", "none"] = setting("adaptive", "w_phi(t)", "paper, section 4.2")
    tangent: Literal["auto", "jvp", "difference"] = setting(
        "auto",
        "jvp is exact; auto: jvp if a central difference confirms it, else an error",
        "paper, section 5.1: JVP",
    )
    difference_step: Literal["auto"] | PositiveFloat = setting(
        "auto", "of the central difference, in ln(tan t); auto: 0.02 for index times, 0.002 for others", CHOICE
    )


class Adapt(Section):
    """What makes a stock index-time, epsilon-predicting checkpoint distillable."""

    smooth_time: Literal["auto"] | Annotated[float, Field(ge=0)] = setting(
        "auto",
        "width of the time embedding's low-pass in native steps, by adapt.tolerance; 0 is off",
        f"{DIGITS}: error of one step 0.74 sigma_d without it, 0.23 with 20 steps",
    )
    tolerance: PositiveFloat = setting(
        0.05, "of smooth_time=auto: largest relative change of the teacher's F", f"{DIGITS}, which take 0.07"
    )
    output: Literal["auto", "v_prediction", "keep"] = setting(
        "auto",
        "of an epsilon or x_0 network, others stay; auto: v_prediction, but keep with lora.rank",
        "an error of epsilon is 15 (SD) to 160 (DDPM) times larger in F at t_max; on the digits no adapter learnt v",
    )
    prefit_steps: Count = setting(
        1000, "of regression of a new output onto the teacher's F", f"{DIGITS}, which take 800"
    )
    prefit_lr: PositiveFloat = setting(6e-4, "learning rate of that, which falls to a tenth", DIGITS)
    reclock: Literal["auto"] | bool = setting(
        "auto",
        "a clock on which any t_mid is a grid point (auto: pixel UNets); false: the teacher's own",
        CHOICE,
    )


class Lora(Section):
    """An adapter of low rank as the student, by peft, instead of the whole network."""

    rank: PositiveInt | None = setting(None, "of the adapter; null: the whole network is trained", NEUTRAL)
    alpha: PositiveFloat | None = setting(None, "the adapter is scaled by alpha / rank; null: the rank", NEUTRAL)
    targets: Literal["attention", "all-linear"] | tuple[str, ...] = setting(
        "attention",
        "layers: to_q, to_k, to_v, to_out.0; or every Linear; or a list of name endings",
        "training scripts of diffusers",
    )


class Optimizer(Section):
    """How theta is updated."""

    name: Literal["adam", "radam", "adamw"] = setting("radam", "the optimizer", CIFAR10)
    lr: PositiveFloat = setting(1e-4, "learning rate after the warm-up", CIFAR10)
    betas: tuple[Share, Share] = setting((0.9, 0.99), "decay of the two moments", CIFAR10)
    eps: PositiveFloat = setting(1e-8, "added to the root of the second moment", CIFAR10)
    weight_decay: Annotated[float, Field(ge=0)] = setting(0.0, "of every trained parameter", NEUTRAL)
    grad_clip: PositiveFloat | None = setting(1.0, "largest gradient norm; null: any", DIGITS)
    warmup_steps: Count = setting(50, "of a linear ramp of the learning rate", CHOICE)
    decay: Literal["cosine", "constant", "rsqrt"] = setting(
        "cosine", "to 0 at the last step; or not; or 1/sqrt(step)", DIGITS
    )


class Train(Section):
    """The run."""

    steps: PositiveInt = Field(description="optimizer steps")
    batch_size: PositiveInt = Field(description="samples per optimizer step, summed over processes")
    micro_batch_size: PositiveInt | None = setting(
        None, "samples at a time and process; the rest accumulates; null: all of a process", NEUTRAL
    )
    seed: Count = setting(0, "of every random draw", NEUTRAL)
    precision: Literal["fp32", "bf16"] = setting(
        "fp32",
        "of the denoiser's products; the trained weights and the time stay float32",
        "bf16 changes the tangent by 0.5 to 2 %, of convolutional UNets by up to 10 % (measured)",
    )
    tf32: bool = setting(
        False, "TF32 products in float32 parts (CUDA)", "TF32 changes the tangent by 1e-3 to 6e-3 (measured)"
    )
    memory: Literal["auto", "fast", "lean"] = setting(
        "auto", "lean recomputes activations in the backward; auto: only if fast does not fit", CHOICE
    )
    compile: Literal["auto", "off", "blocks", "step"] = setting(
        "auto",
        "torch.compile each block, or the whole pass; checked against eager before step 0; auto: blocks, on a GPU, in "
        "runs of more than 1000 steps in the fast layout, where the check passes",
        CHOICE,
    )
    shard: Literal["off", "student", "all"] = setting(
        "off", "FSDP2 over the processes: student with its optimizer and EMA, or the teacher too", NEUTRAL
    )
    offload: tuple[Literal["teacher", "ema"], ...] = setting((), "what waits in host memory", NEUTRAL)
    device: Literal["auto", "cpu"] = setting("auto", "auto: a GPU for each process, where there is one", NEUTRAL)
    threads: PositiveInt | None = setting(None, "CPU threads; null leaves them to torch", NEUTRAL)
    ema_std: Annotated[float, Field(gt=0, lt=0.2886)] = setting(
        0.05, "relative width of the power-function EMA (Karras et al. 2024, arXiv 2312.02696)", "paper"
    )
    checkpoint_every: PositiveInt = setting(1000, "steps between checkpoints", CHOICE)
    keep_checkpoints: PositiveInt = setting(2, "how many of the newest are kept", CHOICE)
    evaluate_every: PositiveInt = setting(1000, "steps between previews and comparisons with the teacher", CHOICE)
    evaluate_samples: Several = setting(256, "of each comparison", CHOICE)
    stop_if_worse: bool = setting(
        True, "stop when, after objective.warmup_steps, the student is worse than its teacher", CHOICE
    )

    @field_validator("compile", "shard", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        """YAML reads a bare off as false."""
        return "off" if value is False else value

    @property
    def compiles(self) -> bool:
        """Whether compilation is asked for, whatever the device and the length of the run."""
        return self.compile in ("blocks", "step")


class Sampler(Section):
    """Where sampling starts, and how the teacher's endpoint is found."""

    sigma_max: PositiveFloat = setting(
        80.0,
        "t_max = arctan(sigma_max / sigma_d), at most the teacher's",
        "paper, as Karras et al. 2022, arXiv 2206.00364, Table 1",
    )
    teacher_steps: Several = setting(50, "Heun steps of the teacher's ODE", CHOICE)


class Export(Section):
    """The two-step student."""

    t_mid: tuple[Annotated[float, Field(gt=0, lt=1.5707)], ...] = Field(
        (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3),
        min_length=1,
        description="the times of the second step that are tried; discrete latent teachers try their own grid instead",
        json_schema_extra={"source": "around the paper's 1.1, which it takes for every dataset"},
    )
    samples: Several = setting(
        1024, "samples for each t_mid", f"{DIGITS}: the Frechet distance is biased and noisy below about 500"
    )
    check_first: bool = setting(
        True,
        "before anything is drawn, stock diffusers runs the untrained student's export: about ten evaluations of the "
        "network; false: what cannot be exported is known after training",
        CHOICE,
    )


class Push(Section):
    """Where the student goes when it is exported; its rights are looked at before training."""

    repo: str | None = setting(None, "Hub id, such as me/student; null: nowhere", NEUTRAL)
    private: bool = setting(False, "make the repository private", "the Hub's")
    revision: str | None = setting(None, "branch to push to; null: main", NEUTRAL)
    license: str | None = setting(None, "licence of the student; null: the teacher's", NEUTRAL)


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
        for rule in RULES:
            if problem := rule(self):
                raise ValueError(problem)
        return self

    @property
    def output(self) -> Literal["v_prediction", "keep"]:
        """What becomes of an epsilon or x_0 prediction: adapt.output, decided."""
        if self.adapt.output != "auto":
            return self.adapt.output
        return "v_prediction" if self.lora.rank is None else "keep"
