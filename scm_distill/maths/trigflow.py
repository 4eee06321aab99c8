"""TrigFlow (Lu & Song 2024, arXiv 2410.11081, section 3).

t        time in radians: 0 is data, pi/2 is noise                        (B,)
x_0      data with standard deviation sigma_d                             (B, ...)
z        noise ~ N(0, sigma_d^2 I)                                        (B, ...)
x_t      cos(t) x_0 + sin(t) z                                            (B, ...)
F        network output F(x_t / sigma_d, t); dx_t/dt = sigma_d F          (B, ...)
"""

from torch import Tensor


def like(t: Tensor, x: Tensor) -> Tensor:
    """View `t` (B,) as (B, 1, ..., 1), to multiply `x` (B, ...) sample by sample."""
    return t.reshape(-1, *[1] * (x.ndim - 1))


def sample_t(normal: Tensor, P_mean: float, P_std: float, sigma_d: float) -> Tensor:
    """t = arctan(e^tau / sigma_d), tau = P_mean + P_std * normal: the proposal of Algorithm 1.

    `normal` (B,) holds standard normal draws, so that nothing random is hidden here.
    """
    return ((P_mean + P_std * normal).exp() / sigma_d).arctan()


def diffuse(x_0: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """x_t = cos(t) x_0 + sin(t) z."""
    t = like(t, x_0)
    return t.cos() * x_0 + t.sin() * z


def pair_velocity(x_0: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """dx_t/dt = cos(t) z - sin(t) x_0, the velocity of one data-noise pair (consistency training)."""
    t = like(t, x_0)
    return t.cos() * z - t.sin() * x_0


def denoise(x_t: Tensor, F: Tensor, t: Tensor, sigma_d: float) -> Tensor:
    """f(x_t, t) = cos(t) x_t - sin(t) sigma_d F: the consistency function, and the x_0 prediction."""
    t = like(t, x_t)
    return t.cos() * x_t - t.sin() * sigma_d * F


def ddim_step(x_s: Tensor, F: Tensor, s: Tensor, t: Tensor, sigma_d: float) -> Tensor:
    """x_t = cos(s - t) x_s - sin(s - t) sigma_d F: one DDIM step from s to t."""
    return denoise(x_s, F, s - t, sigma_d)
