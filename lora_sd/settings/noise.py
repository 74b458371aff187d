"""Settings of the noise and the loss."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ValidationInfo

from .setting import Section, setting


def _above_min(value: int, info: ValidationInfo) -> int:
    if value <= (lowest := info.data.get("min_timestep", 0)):
        raise ValueError(f"it must be more than noise.min_timestep, which is {lowest}")
    return value


AboveMin = Annotated[int, AfterValidator(_above_min)]


class NoiseSettings(Section):
    """The noise"""

    offset: float = setting(
        0.0,
        "Lets very dark and very bright pictures be learnt, by noise that shifts whole channels; 0.05 is usual, 0 is off.",
        label="Noise offset",
        ge=0,
        le=1,
    )
    offset_random: bool = setting(
        False,
        "Draw the noise offset of each picture anew, between 0 and what is set.",
        label="Random noise offset",
    )
    offset_adaptive: float = setting(
        0.0,
        "Noise offset that follows how dark, bright or coloured a picture is as a whole; 0 is off.",
        label="Adaptive noise offset",
        ge=-1,
        le=1,
    )
    pyramid: int = setting(
        0,
        "Levels of coarser noise on top (multires noise), for large shapes and light; 6 is usual, 0 is off.",
        label="Pyramid noise levels",
        ge=0,
        le=16,
    )
    pyramid_discount: float = setting(
        0.3,
        "How strong each level of pyramid noise is compared with the one before.",
        label="Pyramid noise discount",
        gt=0,
        le=1,
    )
    perturbation: float = setting(
        0.0,
        "More noise in what the model sees than in what it must find (ip noise gamma), against over-fitting; 0.1 is usual, 0 is off.",
        label="Input perturbation",
        ge=0,
        le=1,
    )
    perturbation_random: bool = setting(
        False,
        "Draw the input perturbation of each picture anew, between 0 and what is set.",
        label="Random input perturbation",
    )
    min_timestep: int = setting(
        0,
        "The lowest noise level trained on, of 0 to 999: higher leaves out fine detail.",
        label="Lowest timestep",
        ge=0,
        le=999,
    )
    max_timestep: AboveMin = setting(
        1000,
        "Training stays below this noise level: lower leaves out composition.",
        label="Timesteps below",
        ge=1,
        le=1000,
    )
    density: Literal["uniform", "logit_normal"] = setting(
        "uniform",
        "How often noise levels come: all alike, or those in the middle more often (logit-normal).",
        label="Timestep density",
    )
    logit_mean: float = setting(
        0.0,
        "Where the peak of logit-normal timesteps lies: above 0 is more noise, below 0 is less.",
        label="Logit-normal mean",
        ge=-5,
        le=5,
    )
    logit_std: float = setting(
        1.0,
        "How wide the peak of logit-normal timesteps is.",
        label="Logit-normal width",
        gt=0,
        le=5,
    )
    shift: float = setting(
        1.0,
        "Moves timesteps of either density: above 1 to more noise, for large shapes, below 1 to less, for detail.",
        label="Timestep shift",
        gt=0,
        le=20,
    )


class LossSettings(Section):
    """The loss"""

    weighting: Literal["min_snr", "soft_min_snr", "debiased"] = setting(
        "min_snr",
        "How easy and hard noise levels are evened out: by Min-SNR, sharply or softly bounded by gamma, or by debiased estimation.",
        label="Weighting",
    )
    min_snr: float = setting(
        5.0,
        "Gamma of Min-SNR, sharp or soft: the lower, the less easy noise levels count; 5 is usual, 0 turns it off.",
        label="Min-SNR gamma",
        ge=0,
        le=100,
    )
    kind: Literal["l2", "l1", "huber", "smooth_l1"] = setting(
        "l2",
        "How errors count: squared (l2), by size (l1), or large ones by size (huber, smooth_l1), for sets with faulty pictures.",
        label="Loss",
    )
    huber_c: float = setting(
        0.1,
        "Where large errors begin for huber and smooth_l1, at the highest noise level.",
        label="Huber threshold",
        ge=0.001,
        le=1,
    )
    huber_schedule: Literal["snr", "exponential", "constant"] = setting(
        "snr",
        "How the Huber threshold falls from 1 to the set value as noise grows: by signal-to-noise ratio, exponentially, or not at all.",
        label="Huber schedule",
    )
    huber_scale: float = setting(
        1.0, "A factor on the Huber threshold at every noise level.", label="Huber scale", ge=0.01, le=100
    )
    keep_base: float = setting(
        0.0,
        "Pulls back to what the base model alone would answer, so that less is forgotten; 0.1 to 1 is usual, each step takes longer, 0 is off.",
        label="Keep the base",
        ge=0,
        le=100,
    )
