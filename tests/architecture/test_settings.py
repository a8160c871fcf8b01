"""docs/settings.md says what the settings groups of the code say."""

from pathlib import Path

from mesh.node import settings_reference
from mesh.node.settings import variables

ROOT = Path(__file__).parent.parent.parent


def test_the_settings_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings_reference.render(), "run `make settings`"


def test_every_setting_has_a_description_and_a_name_of_its_own() -> None:
    found = [variable for group in settings_reference.GROUPS for variable in variables(group)]
    assert [variable.name for variable in found if not variable.field.description] == []
    assert len({variable.name for variable in found}) == len(found)
