"""What can go wrong while somebody signs in, sorted by what to do about it.

::

    LoginError
    ├── ProviderDown      the provider cannot be reached or is failing: try again later (503)
    ├── ProviderFault     the provider answered something we cannot accept: an operator's case (502)
    └── LoginRejected     this attempt proves nothing: start a new one (400)

`detail` is for the log. It never holds a code, a token or a secret, but it may quote a provider,
so pages show only `step` and the request id.
"""

from __future__ import annotations

__all__ = ["LoginError", "LoginRejected", "ProviderDown", "ProviderFault"]


class LoginError(Exception):
    """A sign-in could not be completed.

    Attributes:
        step: Which step failed, in words for people ("token exchange").
        detail: Why, for the log.
    """

    def __init__(self, step: str, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.detail = detail

    def again(self) -> LoginError:
        """A fresh copy to raise: one exception raised by many tasks would collect tracebacks."""
        return type(self)(self.step, self.detail)


class ProviderDown(LoginError):  # noqa: N818 - the name says what happened
    """The provider cannot be reached, is too slow or answers 5xx."""


class ProviderFault(LoginError):  # noqa: N818
    """The provider's answer breaks the protocol or our configuration of it."""


class LoginRejected(LoginError):  # noqa: N818
    """The response or its token does not prove a login that this browser asked for."""
