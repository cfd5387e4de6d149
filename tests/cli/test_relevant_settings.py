"""Settings that have no effect are not compared."""

from pixio_robot.cli.config.compose import load_settings
from pixio_robot.cli.config.policy_group import register_policies
from pixio_robot.cli.relevant_settings import drop_unused_settings
from pixio_robot.cli.train import TrainCommand
from pixio_robot.json_values import to_json_value
from pixio_robot.training.settings import flatten_settings


def of(*words: str) -> set[str]:
    register_policies("train", [])
    settings = flatten_settings(
        to_json_value(load_settings("train", TrainCommand, ["data=demos", "out=x", "policy=bc", *words]))
    )
    assert drop_unused_settings(drop_unused_settings(settings)) == drop_unused_settings(settings)
    kept = drop_unused_settings(settings)
    assert {key for key in settings.keys() - kept.keys() if not key.startswith(("encoder", "adapt"))} == set()
    return {key for key in kept if key.startswith(("encoder", "adapt"))}


def test_each_encoder_and_adaptation_has_its_own() -> None:
    assert of("encoder=none") == {"encoder.kind"}
    frozen = {"encoder.kind", "encoder.resize", "adapt.mode"}
    assert of("encoder=pixio") == frozen | {"encoder.path", "encoder.name"}
    assert of("encoder=resnet", "adapt.mode=FROZEN") == frozen | {
        "encoder.seed",
        *(f"encoder.resnet.{name}" for name in ("width", "blocks", "resize")),
    }
    assert {"encoder.encoder.size", "encoder.seed"} <= of("encoder=random")
    trained = {"encoder_lr_scale", "adapt.layer_decay"}
    assert of("encoder=pixio", "adapt.mode=LAST_K") - of("encoder=pixio") == trained | {"adapt.last_k"}
    lora = {"adapt.lora_rank", "adapt.lora_alpha", "adapt.lora_seed"}
    assert of("encoder=pixio", "adapt.mode=LORA") - of("encoder=pixio") == trained | lora


def test_settings_of_something_else_stay() -> None:
    assert drop_unused_settings({"optim.lr": 0.1, "seed": 0}) == {"optim.lr": 0.1, "seed": 0}
