"""Grants: the consent of an account to receive artifacts from another account."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from schemas.declared import Declared, Noun
from schemas.names import Account, GrantName


def _is_a_glob(text: str) -> str:
    if text.startswith("re:"):
        raise ValueError(
            "must be a glob on the repository, such as 'base/**'; expressions are not taken here"
        )
    if text.startswith("/") or text.endswith("/"):
        raise ValueError(
            "no repository begins or ends with '/'; what is inside a namespace is 'NAMESPACE/**'"
        )
    return text


Namespace = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_is_a_glob)]


class Grant(Declared):
    """The consent of `account` to receive from `from` into `namespaces`, which are globs on the destination repository.

    Its name is `account:from`, and may be left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)
    noun: ClassVar[Noun] = "grant"

    name: GrantName
    account: Account
    from_account: Account = Field(alias="from")
    namespaces: tuple[Namespace, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_accounts(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or value.get("name") is not None:
            return value
        try:
            name = GrantName(f"{value.get('account')}:{value.get('from')}")
        except ValueError:
            name = GrantName("nobody:nobody")  # the accounts have problems of their own
        return {**value, "name": name}

    @model_validator(mode="after")
    def _is_named_by_its_accounts(self) -> Self:
        if self.name != f"{self.account}:{self.from_account}":
            raise ValueError(f"is named {self.account}:{self.from_account}, by its accounts")
        if self.account == self.from_account:
            raise ValueError("an account needs no grant of its own")
        return self
