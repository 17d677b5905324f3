"""The adjusted views of the attention transfer module, and the network's input (III-B, Eq. 2).

Legend: B batch, S crop size; pixel values g in 0..255.
"""

import torch
from torch import Tensor

from wsss.config import ViewsConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB / 255; torchvision's weights expect them."""


def adjust(
    pixels: Tensor, alpha: float, beta: float, reading: str, mean: Tensor | None = None
) -> Tensor:
    """Adjust contrast and brightness, g' = alpha * g + beta, in one of its readings (Eq. 2).

    pixels: float [..., 3, H, W] in 0..255. mean: broadcastable, the images' mean without padding;
    None: that of all pixels. Returns the shape of `pixels`.

    | reading            | g'                                                              |
    |--------------------|-----------------------------------------------------------------|
    | beta_tenth         | clip(alpha g + beta / 10)                                       |
    | literal_clip       | clip(alpha g + beta)                                            |
    | literal_unclipped  | alpha g + beta, as a float beyond 0..255                        |
    | wrap               | (alpha g + beta) modulo 256, as 8-bit arithmetic overflows      |
    | beta_thousandth    | clip(alpha g + 255 beta / 1000): beta on images in 0..1         |
    | decreased_negative | as beta_tenth, but where alpha < 1 beta is subtracted           |
    | about_mean         | clip(alpha (g - m) + m + beta / 10), m the image's mean         |
    | slider             | clip(alpha g + beta - 255): beta 255 changes nothing            |
    """
    if reading == "literal_unclipped":
        return alpha * pixels + beta
    if reading == "wrap":
        return torch.remainder(torch.floor(alpha * pixels + beta), 256)
    if reading == "literal_clip":
        adjusted = alpha * pixels + beta
    elif reading == "beta_tenth":
        adjusted = alpha * pixels + beta / 10
    elif reading == "beta_thousandth":
        adjusted = alpha * pixels + 255 * beta / 1000
    elif reading == "decreased_negative":
        adjusted = alpha * pixels + (-beta / 10 if alpha < 1 else beta / 10)
    elif reading == "slider":
        adjusted = alpha * pixels + beta - 255
    else:  # about_mean
        if mean is None:
            mean = pixels.mean((-3, -2, -1), keepdim=True)
        adjusted = alpha * (pixels - mean) + mean + beta / 10
    return adjusted.clamp(0, 255)


def content_mask(boxes: Tensor, crop_size: int) -> Tensor:
    """Return 1 inside each image's box and 0 in its padding.

    boxes: int [B, 4], top, left, bottom, right. Returns float [B, 1, S, S].
    """
    index = torch.arange(crop_size, device=boxes.device)
    top, left, bottom, right = boxes[:, :, None].unbind(1)  # each [B, 1]
    rows = (index >= top) & (index < bottom)  # [B, S]
    columns = (index >= left) & (index < right)
    return (rows[:, None, :, None] & columns[:, None, None, :]).float()


def normalise(pixels: Tensor) -> Tensor:
    """Map RGB pixels in 0..255 [B, 3, H, W] to ImageNet mean 0 and standard deviation 1."""
    return _standardise(pixels / 255)


def _standardise(pixels: Tensor) -> Tensor:
    """As `normalise`, in place, for pixels in 0..1."""
    mean, std = (_per_channel(values, pixels.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return pixels.sub_(mean).div_(std)


def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return [3, 1, 1], made on the device: copying it there would make the host wait for a GPU."""
    return torch.cat([torch.full((1, 1, 1), value, device=device) for value in values])


def network_inputs(pixels: Tensor, boxes: Tensor, views: ViewsConfig) -> Tensor:
    """Return the original and the adjusted views of a batch as network input.

    pixels: uint8 [B, 3, S, S]; boxes: int [B, 4]. Returns float [V, B, 3, S, S], V = 1 + number of
    adjusted views, in the order original, enhanced, decreased. Padding is 0 after the normalisation
    (the ImageNet mean) in every view; with `views.padding: after`, Eq. 2 is applied to it.
    """
    mask = content_mask(boxes, pixels.shape[-1])
    inside = mask > 0
    fill = 255 * _per_channel(IMAGENET_MEAN, pixels.device)
    # Contiguous planes are faster below than the crops' channels-last format.
    planes = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    original = torch.where(inside, planes, fill)
    mean = None
    if views.reading == "about_mean":
        total = (original * mask).sum((1, 2, 3), keepdim=True)
        mean = total / (3 * mask.sum((1, 2, 3), keepdim=True))
    num_views, batch = 1 + len(views.names), len(pixels)
    shape = (num_views * batch, *pixels.shape[1:])
    inputs = torch.empty(shape, device=pixels.device)
    inputs[:batch] = original
    for place, name in enumerate(views.names, start=1):
        alpha, beta = getattr(views, f"alpha_{name}"), getattr(views, f"beta_{name}")
        adjusted = adjust(original, alpha, beta, views.reading, mean)
        if views.padding == "before":
            adjusted = torch.where(inside, adjusted, fill)
        inputs[place * batch : (place + 1) * batch] = adjusted
    return _standardise(inputs.div_(255)).unflatten(0, (num_views, batch))
