"""Our kernels for MuJoCo Warp's arrays. Import this module after `envs.warp.worlds.load_warp`."""

# pyright: reportMissingImports=false, reportInvalidTypeForm=false
# Warp reads a kernel's annotations as values: they must not become strings.

import warp as wp


@wp.kernel(enable_backward=False)
def unpack_rgb(packed: wp.array2d(dtype=wp.uint32), rgb: wp.array3d(dtype=wp.uint8)):
    """Pixels packed as alpha, red, green, blue from the highest byte down (n, p) -> rgb (n, p, 3)."""
    world, pixel = wp.tid()  # pyright: ignore
    value = packed[world, pixel]
    rgb[world, pixel, 0] = wp.uint8((value >> wp.uint32(16)) & wp.uint32(255))
    rgb[world, pixel, 1] = wp.uint8((value >> wp.uint32(8)) & wp.uint32(255))
    rgb[world, pixel, 2] = wp.uint8(value & wp.uint32(255))
