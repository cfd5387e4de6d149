"""Vision: Pixio and other encoders, feature pooling, and encoder adaptation (frozen, LoRA, fine-tuned)."""

from typing import TYPE_CHECKING

from pixio_robot.lazy import lazy_exports

if TYPE_CHECKING:
    from pixio_robot.vision.build import EncoderKind as EncoderKind
    from pixio_robot.vision.build import EncoderSource as EncoderSource
    from pixio_robot.vision.build import build_encoder as build_encoder
    from pixio_robot.vision.config import EncoderConfig as EncoderConfig
    from pixio_robot.vision.config import PoolingConfig as PoolingConfig
    from pixio_robot.vision.encoders.foreign import ForeignConfig as ForeignConfig
    from pixio_robot.vision.encoders.foreign import ForeignEncoder as ForeignEncoder
    from pixio_robot.vision.pixio import PixioEncoder as PixioEncoder
    from pixio_robot.vision.pooling import Pooling as Pooling
    from pixio_robot.vision.pooling import build_pooling as build_pooling

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "build": ["EncoderKind", "EncoderSource", "build_encoder"],
        "config": ["EncoderConfig", "PoolingConfig"],
        "encoders.foreign": ["ForeignConfig", "ForeignEncoder"],
        "pixio": ["PixioEncoder"],
        "pooling": ["Pooling", "build_pooling"],
    },
)
