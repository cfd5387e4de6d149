import dataclasses
import math

import pytest
from omegaconf import OmegaConf

from pixio_robot.choice import Choice
from pixio_robot.errors import UserError
from pixio_robot.fields import check_fields, number, one_of


class Shade(Choice):
    LIGHT = "light"
    DARK = "dark"


@dataclasses.dataclass(kw_only=True)
class Settings:
    count: int = number(3, at_least=1)
    share: float = number(0.5, at_least=0, below=1)
    scale: float | None = number(None, above=0, at_most=2, why="larger ones do not fit")
    seeds: list[int] = number([4], at_least=0)
    colour: str = one_of("red", ("red", "blue"))
    colours: list[str] = one_of(["red"], ("red", "blue"))
    free: int = -1
    shade: Shade = Shade.LIGHT

    def __post_init__(self) -> None:
        check_fields(self, "mine.")


@dataclasses.dataclass(kw_only=True)
class More(Settings):
    count: int = 9  # only another default
    extra: int = number(10, at_least=5, at_most=10)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", 0, r"mine\.count=0 must be at least 1\.$"),
        ("count", 4.0, r"mine\.count=4\.0 must be a whole number at least 1\.$"),
        ("count", (4, 4), r"mine\.count=\(4, 4\) must be a whole number at least 1\.$"),
        ("share", "0.5", r"mine\.share='0\.5' must be at least 0 and below 1\.$"),
        ("seeds", [1, 2.5], r"mine\.seeds\[1\]=2\.5 must be a whole number at least 0\.$"),
        ("share", 1.0, r"mine\.share=1\.0 must be at least 0 and below 1\.$"),
        ("share", math.nan, r"mine\.share=nan must be"),
        ("count", math.inf, r"mine\.count=inf must be"),
        ("scale", 0.0, r"mine\.scale=0\.0 must be above 0 and at most 2, or null \(larger ones do not fit\)\.$"),
        ("seeds", [1, -2], r"mine\.seeds\[1\]=-2 must be at least 0\.$"),
        ("colour", "bleu", r"Unknown mine\.colour 'bleu'\. Did you mean 'blue'"),
        ("colours", ["blue", "green"], r"Unknown mine\.colours\[1\] 'green'\..* blue, red\.$"),
        ("shade", "drak", r"Unknown mine\.shade 'drak'\. Did you mean 'dark'"),
        ("extra", 11, r"mine\.extra=11 must be from 5 to 10\.$"),
    ],
)
def test_a_value_that_is_not_valid_is_refused_with_what_would_be(key, value, message):
    with pytest.raises(UserError, match=message):
        More(**{key: value})


def test_values_at_the_limits_and_null_are_valid():
    settings = More(count=1, share=0.0, scale=2.0, seeds=[], colours=[], extra=5)
    assert settings.scale == 2.0
    assert Settings().scale is None


def test_a_choice_can_be_given_by_name():
    assert Settings(shade="dark").shade is Settings(shade=Shade.DARK).shade is Shade.DARK  # type: ignore[arg-type]


def test_defaults_are_plain_values_that_no_two_settings_share():
    first, second = Settings(), Settings()
    first.seeds.append(5)
    assert (Settings.count, second.seeds) == (3, [4])
    assert More().count == 9
    assert OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(More), {"count": 7})) == More(count=7)
