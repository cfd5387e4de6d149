"""Setting names of robomimic, diffusion_policy and LeRobot, for hints when a user types one of them here."""

from __future__ import annotations

from collections.abc import Collection

EQUIVALENT_SETTINGS: dict[str, tuple[str, ...]] = {
    "n_obs_steps": ("policy.observation_steps",),
    "frame_stack": ("policy.observation_steps",),
    "n_action_steps": ("policy.execute",),
    "horizon": ("policy.horizon",),
    "chunk_size": ("policy.horizon",),
    "seq_length": ("policy.horizon",),
    "num_epochs": ("loop.steps",),
    "max_steps": ("loop.steps",),
    "steps": ("loop.steps",),
    "batch_size": ("batch_size",),
    "lr": ("optim.lr",),
    "learning_rate": ("optim.lr",),
    "optimizer_lr": ("optim.lr",),
    "weight_decay": ("optim.weight_decay",),
    "use_ema": ("use_ema",),
    "val_ratio": ("validation_share",),
    "hdf5_filter_key": ("train_where",),
    "hdf5_validation_filter_key": ("validation_where",),
    "repo_id": ("data",),
    "dataset_path": ("data",),
    "zarr_path": ("data",),
    "type": ("policy",),
    "path": ("checkpoint", "initial_policy"),
    "pretrained_path": ("checkpoint", "initial_policy"),
    "output_dir": ("out",),
    "n_episodes": ("episodes",),
}
"""Last part of their name -> candidate settings here; the first that the command has is suggested."""
SHARED_GROUPS = ("", "policy")
"""Groups that have the same name and meaning there and here."""
_EPOCHS_NOTE = " (training steps, not passes over the data)"


def find_equivalent_setting(key: str, there: Collection[str]) -> str:
    """The setting among `there` that corresponds to another project's `key`; empty if none is known."""
    group, _, word = key.rpartition(".")
    if group not in SHARED_GROUPS and any(name.startswith(f"{group}.") for name in there):
        return ""  # one of our groups: the user means another setting of it
    return next((name for name in EQUIVALENT_SETTINGS.get(word, ()) if name in there and name != key), "")


def equivalent_note(key: str) -> str:
    """Additional note on the suggested setting; empty if there is none."""
    return _EPOCHS_NOTE if key.rpartition(".")[2] == "num_epochs" else ""
