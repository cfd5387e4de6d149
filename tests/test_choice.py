import dataclasses
import pickle

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from pixio_robot.choice import Choice, parse_choice
from pixio_robot.errors import UserError


class Colour(Choice):
    RED = "red"
    DARK_BLUE = "dark_blue"


@dataclasses.dataclass
class Settings:
    colour: Colour = Colour.RED


@pytest.mark.parametrize("written", ["dark_blue", "DARK_BLUE", "Dark_Blue"])
def test_a_setting_may_be_written_in_any_case(written: str) -> None:
    settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Settings), {"colour": written}))
    assert settings == Settings(Colour.DARK_BLUE)


def test_an_unknown_name_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ValidationError, match="RED, DARK_BLUE"):
        OmegaConf.merge(OmegaConf.structured(Settings), {"colour": "green"})


def test_members_survive_pickling() -> None:
    assert pickle.loads(pickle.dumps(Colour.RED)) is Colour.RED


def test_a_member_is_found_by_its_name_where_no_configuration_was_read() -> None:
    assert parse_choice(Colour, Colour.RED, "colour") is parse_choice(Colour, "Red", "colour") is Colour.RED
    for wrong in ("green", 0):
        with pytest.raises(UserError, match=f"Unknown colour '{wrong}'.*dark_blue, red"):
            parse_choice(Colour, wrong, "colour")  # type: ignore[arg-type]
