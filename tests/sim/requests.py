"""Which mutation each session numbered: overheard on the way to the master."""

from __future__ import annotations

from gfs.envelope import Failed
from gfs.messages import Done, Message, Mutate, Operation, SessionOpened
from tests.sim.network import End, SimConnection


class Requests:
    """See the module's text.

    Attributes:
      operations: (session, number) -> what was asked for.
      answers: (session, number) -> positions answered; one, if all is well.
      highest: greatest position in any answer that left the master.
    """

    def __init__(self) -> None:
        self.operations: dict[tuple[int, int], Operation] = {}
        self.answers: dict[tuple[int, int], set[int]] = {}
        self.highest = 0
        self._sessions: dict[End, int] = {}
        self._asked: dict[tuple[End, int], tuple[int, int]] = {}

    def saw(self, connection: SimConnection, identity: int, message: Message | Failed) -> None:
        """A message leaves on `connection`."""
        kind = type(message)
        if kind is Mutate:
            assert isinstance(message, Mutate)
            session = self._sessions.get(connection.end)
            if session is not None:
                key = session, message.number
                self.operations[key] = message.operation
                self._asked[connection.end, identity] = key
        elif kind is Done:
            assert isinstance(message, Done)
            asked = self._asked.pop((connection.end.other, -identity), None)
            if asked is not None:
                self.answers.setdefault(asked, set()).add(message.position)
            self.highest = max(self.highest, message.position)
        elif kind is SessionOpened:
            assert isinstance(message, SessionOpened)
            self._sessions[connection.end.other] = message.session
