"""What lies at a path, told by itself."""

from pathlib import Path

import pytest

from pixio_robot.errors import UserError
from pixio_robot.interop.demo_formats import detect_format


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raw/pusht_cchi.zar", r"Did you mean 'pusht_cchi\.zarr' in .*raw\?$"),
        ("rw/pusht.zarr", r"Did you mean 'raw' in "),
        ("raw/absent", r"raw contains cup\.hdf5, pusht_cchi\.zarr\.$"),
        ("lerobot/pusht", "Hugging Face Hub, download it first: hf download --repo-type dataset lerobot/pusht "),
        ("umi.zarr", r" contains raw\.$"),
        ("elsewhere/umi.zarr", r" contains raw\.$"),
        ("a/b/c", r" contains raw\.$"),
    ],
)
def test_what_is_not_there_is_looked_for_where_it_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    for name in ("pusht_cchi.zarr", "cup.hdf5"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        detect_format(Path(source))
    assert ("Hugging Face" in str(raised.value)) == (source == "lerobot/pusht")
