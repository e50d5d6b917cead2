"""Mistakes put into the scripts on purpose: each is caught by a scenario or by the model.

A mistake is a piece of a script and what it becomes. If the piece is not there any more the test fails too: then the table
has to follow the scripts.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import redis
from protocol_scenarios import SCENARIOS

from tidegate.errors import TidegateError
from tidegate.ledger import calls
from tidegate.ledger.scripts import OPERATIONS, Script, load

pytestmark = pytest.mark.timeout(600)


class Mistake(NamedTuple):
    name: str
    right: str
    wrong: str
    only: str = ""  # the script that has it, when others share the text


MISTAKES = (
    Mistake("commit and renew look at the epoch alone", "or l.nonce ~= nonce then return nil", "then return nil"),
    Mistake("commit and renew look at the nonce alone", "l.epoch ~= tonumber(epoch) or l.nonce", "l.nonce"),
    Mistake("renew without a token", "if held_lease(ARGV[i], ARGV[i + 1], ARGV[i + 2]) then", "if true then", "renew"),
    Mistake(
        "commit without a token",
        "if not lease then\n",
        "lease = lease or unpack_lease(call('HGET', LEASE, batch))\nif false then\n",
        "commit",
    ),
    Mistake("an item is settled twice", "if overlap then return 'overlap' end", ""),
    Mistake("a part is not remembered", "  keep(BITS, merged, 1)\n", ""),
    Mistake("a part replaces the parts before it", "bytes[i] = bit.bor(a, b)", "bytes[i] = b"),
    Mistake("attempts are forgotten", "  keep(ATTEMPTS, ARGV[14], 2)\n", ""),
    Mistake("crashes are forgotten", "  keep(CRASHES, ARGV[15], 4)\n", ""),
    Mistake("what is left is counted before the bits", "lease.left = lease.left - s.settled", "", "commit"),
    Mistake("a claim is not remembered", "remember(claimer, nonce, '', next, {})", "", "claim"),
    Mistake("a commit is not remembered", "remember(claimer, nonce, flags, next, tickets)", "", "commit"),
    Mistake(
        "a repeated request gets whatever was last",
        "if not text or string.sub(text, 1, #nonce + 1) ~= nonce .. '|' then",
        "if not text then",
    ),
    Mistake("a repeated claim returns another's lease", "l and l.nonce == nonce and call", "l and call"),
    Mistake("the epoch does not grow", "add('epoch', 1)", "add('epoch', 0)"),
    Mistake("a lease has no deadline", "      call('ZADD', LEASES, NOW + lease_ms, l.batch)\n", ""),
    Mistake(
        "a part does not prolong the lease's record",
        "    call('HSET', LEASE, batch, pack_lease(lease))\n",
        "",
        "commit",
    ),
    Mistake("a finished batch keeps its lease", "  call('HDEL', LEASE, batch)\n", "", "commit"),
    Mistake("a finished batch keeps its payload", "  call('HDEL', PAYLOADS, r.batch)\n", ""),
    Mistake("pending is not counted down", "  if s.settled > 0 then add('pending', -s.settled) end\n", ""),
    Mistake("executions are not counted", "  add('attempts', s.executions)\n", ""),
    Mistake("histograms are added up twice", "  call('DEL', RECENT)\n", ""),
    Mistake(
        "the smallest becomes the largest",
        "not lows[field] or value < lows[field]",
        "not lows[field] or value > lows[field]",
    ),
    Mistake(
        "a sweep takes healthy leases",
        "call('ZRANGEBYSCORE', LEASES, '-inf', string.format('(%d', NOW)",
        "call('ZRANGEBYSCORE', LEASES, '-inf', string.format('(%d', NOW + 5000)",
        "sweep",
    ),
    Mistake("a sweep forgets the batch", "    give_back(unpack_lease(text), 0)\n", "", "sweep"),
    Mistake("a sweep leaves the lease", "    call('HDEL', LEASE, expired[i])\n", "", "sweep"),
    Mistake(
        "a delayed batch is due at once",
        "call('ZADD', DELAYED, NOW + delay_ms, pack(r))",
        "call('ZADD', DELAYED, NOW, pack(r))",
    ),
    Mistake("a delayed batch stays delayed when it is due", "  call('ZREM', DELAYED, due[i])\n", "", "sweep"),
    Mistake("leases are eternal when the clock goes back", "clamp(LEASES, NOW + num('max_lease_ms'))", "", "sweep"),
    Mistake(
        "an expired batch goes to the end of the line", "call('LPUSH', READY, pack(r))", "call('RPUSH', READY, pack(r))"
    ),
    Mistake(
        "any ticket is good", "if not see_ticket(ticket) then return 'retired', 'retired' end", "see_ticket(ticket)"
    ),
    Mistake(
        "an empty job keeps its ticket",
        "  call('ZREM', TICKETS, ticket)\n  return 'empty', 'empty'",
        "  return 'empty', 'empty'",
    ),
    Mistake("a lost ticket is not replaced", "  for i = 1, #lost do call('ZREM', TICKETS, lost[i]) end\n", "", "sweep"),
    Mistake("a ticket is lost as soon as it was sent", "NOW - stall_ms * 2 ^ num('stall_k')", "NOW + 1", "sweep"),
    Mistake("the window has no bound", "math.min(slots, ready, 1000)", "ready + 3"),
    Mistake(
        "a held job hands out batches",
        "  if held() then\n    call('ZREM', TICKETS, ticket)",
        "  if false then\n    call('ZREM', TICKETS, ticket)",
    ),
    Mistake(
        "a cancelled job hands out batches",
        "if ended() or M.cancel == '1' then\n    call('ZREM'",
        "if ended() then\n    call('ZREM'",
    ),
    Mistake(
        "a cancelled batch becomes ready again",
        "  if M.cancel == '1' then\n    settle_rest(r, 'cancelled')\n  elseif",
        "  if",
    ),
    Mistake("a cancellation forgets delayed batches", "      text = call('ZRANGE', DELAYED, 0, 0)[1]\n", ""),
    Mistake("a chunk is written twice", "if chunk < next_chunk then", "if false then", "append"),
    Mistake("a gap is accepted", "if chunk > next_chunk then return { 'GAP', next_chunk } end", "", "append"),
    Mistake("a repeated chunk brings more tickets", "  local again = {}\n", "  local again = { 99 }\n", "append"),
    Mistake("the mark is not looked at", "if pending_batches > 0 and (", "if false and (", "append"),
    Mistake(
        "items of later chunks are numbered from 0",
        "local batch, first = num('batches'), num('total')",
        "local batch, first = num('batches'), 0",
        "append",
    ),
    Mistake(
        "a job ends before it is sealed",
        "local ends = M.state == 'sealed' and",
        "local ends = (M.state == 'sealed' or M.state == 'open') and",
    ),
    Mistake("a dead producer's job stays open", "  if silence > silent_ms then\n", "  if false then\n", "sweep"),
    Mistake("a sign of life is not noted", "put('fed_ms', NOW)\n", "", "feed"),
    Mistake("a chunk is no sign of life", "put('fed_ms', NOW)\n", "", "append"),
    Mistake("a job that was cut short says nothing", "    put('cut', 1)\n", "", "sweep"),
    Mistake(
        "a job that was cut short takes chunks", "return { 'ENDED', 'cut short' }", "put('state', 'open')", "append"
    ),
    Mistake("a job that goes on keeps its time to live", "    M.refreshed_ms = 0\n", "", "open"),
    Mistake("a job that goes on still says that it was cut short", "    put('cut', 0)\n", "", "open"),
    Mistake("an ended job lives for ever", "if ends then expire_all(num('ttl_ms')) elseif", "if ends then elseif"),
    Mistake("a job never ends", "  if ends then\n    put('state'", "  if false then\n    put('state'"),
)


def test_the_right_scripts_pass_every_scenario(ledger_url):
    for scenario in SCENARIOS:
        scenario(ledger_url)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_this_mistake_is_caught(ledger_url, monkeypatch, mistake):
    scripts = {name: load(name) for name in OPERATIONS}
    guilty = [name for name in ([mistake.only] if mistake.only else scripts) if mistake.right in scripts[name].text]
    assert guilty, "the scripts do not have this piece any more"
    for name in guilty:
        scripts[name] = Script.of(name, scripts[name].text.replace(mistake.right, mistake.wrong))
    monkeypatch.setattr(calls, "load", scripts.__getitem__)
    for scenario in SCENARIOS:
        try:
            scenario(ledger_url)
        except (
            AssertionError,
            TidegateError,
            redis.RedisError,
            AttributeError,
            IndexError,
            KeyError,
            TypeError,
            ValueError,
        ):
            return
    pytest.fail("nobody noticed")
