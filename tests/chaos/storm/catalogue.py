"""Every storm by name, in the order of the table in docs/reliability.md. The only list of them."""

from __future__ import annotations

from collections.abc import Callable

from storm.calls import every_step, lost_replies
from storm.killed import kill_children, kill_trees, poison
from storm.producers import producer_killed, ten_million
from storm.row import Row, Scale
from storm.server import scripts_flushed_and_clients_killed, server_full, server_killed, server_stopped
from storm.stopped import rolling_restarts, zombies
from storm.tickets import tickets

Storm = Callable[[Scale], Row]

STORMS: dict[str, Storm] = {
    storm.__name__: storm
    for storm in (
        kill_children,
        kill_trees,
        zombies,
        lost_replies,
        every_step,
        tickets,
        poison,
        rolling_restarts,
        server_killed,
        server_full,
        server_stopped,
        scripts_flushed_and_clients_killed,
        producer_killed,
        ten_million,
    )
}
