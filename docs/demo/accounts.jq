# Compares what both sides of a lease say with what the chain says, for ./demo. Writes lines "VERDICT<unit separator>TEXT".
include "money";

def left($width): tostring | . + " " * ([$width - length, 0] | max);
def row($name; f): ["", ($name | left(22)) + (.publisher.entries | f | left(28)) + (.node.entries | f | tostring)];
def same($what; $one; $other): if $one == $other then ["ok", $what] else ["wrong", "\($what): not so: \($one) against \($other)"] end;
# The totals that were signed, each once: a payment may be repeated, and repeats cost nothing.
def totals: [.[] | select(.kind == "paid") | .paid_sat] | unique;
def settled: map(select(.kind == "settled")) | last;

(.publisher.entries | settled) as $paid | (.node.entries | settled) as $got
| (.funding.outputs | map(.sat) | add) as $funded
| (.close.inputs[0].sat) as $capacity
| (.before.publisher - .after.publisher) as $spent | (.after.node - .before.node) as $earned
| (.announced.outputs | map(select(.sat > 0 and .sat < 1000) | .sat) | add // 0) as $marker
| [
    ["", ("" | left(22)) + ("publisher's ledger" | left(28)) + "node's ledger"],
    row("processor"; settled.usage.core_ms / 1000 | "\(.) core seconds"),
    row("traffic"; settled.usage.traffic_bytes | "\(group) bytes"),
    row("owed by own meter"; settled.owed | msat),
    row("different payments"; totals | length),
    row("paid in all"; settled.paid_sat | sat),
    row("settled by"; settled.txid[0:24] + "…"),
    same("the last payment that the publisher signed is the one that the node holds: \($paid.paid_sat | sat)"; $paid.paid_sat; $got.paid_sat),
    same("both ledgers end with the same transaction"; $paid.txid; $got.txid),
    same("it is transaction \(.close.txid[0:24])… on the chain, in block \(.close.height)"; .close.txid; $paid.txid),
    same("it spends the channel of \($capacity | sat) that transaction \(.funding.txid[0:24])… made"; .close.inputs[0].txid; .funding.txid),
    same("it pays \($capacity - $paid.paid_sat | sat) back to the publisher, \($paid.paid_sat - .close.fee_sat | sat) to the node, \(.close.fee_sat | sat) to the miner";
        .close.outputs | map(.sat) | sort; [$capacity - $paid.paid_sat, $paid.paid_sat - $got.fee_sat] | sort),
    same("the node's wallet holds just that much more"; $earned; $paid.paid_sat - .close.fee_sat),
    same("the publisher's wallet holds \($spent | sat) less: payments, fees of \(.announced.fee_sat + .funding.fee_sat | sat) and a marker of \($marker | sat)";
        $spent; $paid.paid_sat + .announced.fee_sat + .funding.fee_sat + $marker)
  ]
| .[] | join("\u001f")
