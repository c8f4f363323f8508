"""VariableStore: variables by name, shared and checked for collisions as in a TF1 graph."""

from __future__ import annotations

from types import TracebackType

from torch import nn

from cellweave.scopes._context import frame, installed


class VariableStore:
    """A place that keeps variables by their TF1 names while it is open.

    Inside `with VariableStore():` TF1's graph rules hold: a name that exists cannot be made again, `reuse=True` shares
    it, AUTO_REUSE does either. Entering it again continues where it was left. Nothing is kept outside the object.

    Attributes:
        variables: Name to parameter, in creation order.
        scope_counts: How often each scope name was opened; uniquifying reads it.
        layer_counts: How many unnamed layers of each class were made; default layer names read it.
    """

    def __init__(self) -> None:
        self.variables: dict[str, nn.Parameter] = {}
        self.scope_counts: dict[str, int] = {}
        self.layer_counts: dict[str, int] = {}

    def trainable_variables(self) -> list[nn.Parameter]:
        """The variables that take gradients, in creation order."""
        return [variable for variable in self.variables.values() if variable.requires_grad]

    def __enter__(self) -> VariableStore:
        context = installed(self)
        context.__enter__()
        frame.installed.append(context)  # of this thread: another one may have the same object open
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        frame.installed.pop().__exit__(kind, error, trace)
