"""The base of settings groups: one for each role, with every limit that an operator may need to change.

`mesh.node.settings` fills a group from the environment, and docs/settings.md is generated from the descriptions.
"""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of limits. Each field has a default and a description that names its unit.

    Raises:
        pydantic.ValidationError: A value is out of range or no field has that name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
