"""One websocket connection to a policy server: one request at a time, and one deadline for it and its answer."""

from __future__ import annotations

import contextlib
import numbers
import socket
import threading
from http import HTTPStatus
from typing import Any

from pixio_robot.errors import UserError
from pixio_robot.serving.messages import LARGEST_MESSAGE, MISSING_PACKAGES, pack, unpack

CLOSE_TIMEOUT_S = 2.0
"""Kept short: a server that stopped answering will not complete the closing handshake either."""
LONGEST_TIMEOUT_S = 86_400
"""A day; operating systems refuse time-outs from about 25 days on."""


class ServerConnection:
    """Sends requests to a policy server and receives the answers.

    Answers carry no number: they belong to the requests in their order. So once a request stays unanswered, whether for
    a time-out, Ctrl-C or anything else, the connection is never used again.
    """

    def __init__(self, address: str, token: str, timeout_s: float) -> None:
        """Arguments and errors are those of `PolicyClient`."""
        try:
            from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
            from websockets.sync.client import connect
        except ImportError as error:
            raise UserError(MISSING_PACKAGES) from error
        if not str(address).startswith(("ws://", "wss://")):
            raise UserError(f"address={address!r} must be ws://HOST:PORT, as printed by `serve`.")
        if not all("!" <= character <= "~" for character in str(token)):
            raise UserError(
                "token must be as `serve` prints it: without spaces, line ends, or characters beyond ASCII."
            )
        if not isinstance(timeout_s, numbers.Real) or not 0 < timeout_s <= LONGEST_TIMEOUT_S:
            raise UserError(f"timeout_s={timeout_s!r} must be seconds, above 0 and at most {LONGEST_TIMEOUT_S}.")
        self._timeout_s = float(timeout_s)
        self._closed_reason: str | None = None
        """Why the connection cannot be used any more. Set from before a request is sent until its answer is here, so
        that no exception, wherever it strikes, leaves a connection with an unanswered request in use."""
        self._timed_out = False
        self._open = contextlib.ExitStack()
        try:
            connecting = connect(
                address,
                additional_headers={"Authorization": f"Bearer {token}"},
                # Robots are in the server's network, or have a tunnel to it: http_proxy is meant for other traffic.
                proxy=None,
                max_size=LARGEST_MESSAGE,
                open_timeout=self._timeout_s,
                close_timeout=CLOSE_TIMEOUT_S,
                # Each request has its deadline. A ping's would cut large requests over slow links, which it has to
                # wait behind.
                ping_interval=None,
                compression=None,
            )
            self._connection: Any = self._open.enter_context(connecting)
        except InvalidStatus as error:
            status = error.response.status_code
            if status == HTTPStatus.UNAUTHORIZED:
                raise UserError(
                    f"{address} refused the connection: the token is not the one that the server was started with."
                ) from error
            raise UserError(f"{address} is not a policy server: it answers with HTTP status {status}.") from error
        except OSError as error:  # before ValueError: an untrusted certificate is both
            raise UserError(f"No policy server answers at {address} ({error}).") from error
        except (InvalidURI, ValueError) as error:
            raise UserError(f"address={address!r} is not valid ({error}); it must be ws://HOST:PORT.") from error
        except WebSocketException as error:
            raise UserError(f"{address} is not a policy server ({error}).") from error

    def exchange(self, message: dict[str, Any] | None) -> dict[str, Any]:
        """Send `message`, unless it is None, and return the next message of the server.

        Raises UserError if sending and answering together take longer than `timeout_s`, or the connection is closed.
        """
        from websockets.exceptions import ConnectionClosed

        if self._closed_reason is not None:
            raise UserError(_closed(self._closed_reason))
        content = None if message is None else pack(message)
        deadline = threading.Timer(self._timeout_s, self._on_timeout)
        deadline.daemon = True
        self._closed_reason = "an earlier call was interrupted before its answer came"
        try:
            deadline.start()
            if content is not None:
                self._connection.send(content)
            answer = self._connection.recv()
            self._closed_reason = None
        except ConnectionClosed as error:
            if self._timed_out:
                self._closed_reason = f"the policy server did not answer an earlier call within {self._timeout_s:g} s"
                raise UserError(
                    f"The policy server did not answer within {self._timeout_s:g} s; the connection is closed."
                ) from error
            self._closed_reason = str(error)
            raise UserError(_closed(self._closed_reason)) from error
        except BaseException:  # above all KeyboardInterrupt
            self.close()
            raise
        finally:
            deadline.cancel()
        return unpack(answer)

    def close(self) -> None:
        """Close the connection; in the middle of a request at once, without a closing handshake."""
        if self._closed_reason is not None:
            # The request may be half sent, and the server busy or frozen.
            self._shutdown_socket()
        self._open.close()

    def _on_timeout(self) -> None:
        self._timed_out = True
        self._shutdown_socket()

    def _shutdown_socket(self) -> None:
        """End the connection for both sides; `send` and `recv` then raise ConnectionClosed, also in other threads.

        websockets limits the time of `recv` only: `send` waits as long as the server's machine takes nothing.
        """
        with contextlib.suppress(OSError):  # closed already
            self._connection.socket.shutdown(socket.SHUT_RDWR)


def _closed(why: str) -> str:
    return f"The connection to the policy server is closed ({why}). Make a new PolicyClient to go on."
