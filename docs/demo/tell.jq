# Sentences for ./demo. Reads the events that `xennet --json` writes, one a line; $who tells whose. Writes lines of fields between
# unit separators: time in unix milliseconds, whose, "text", the sentence; or for a payment "paid", number, satoshi, what is owed in msat.
include "money";

def seconds: "\((. / 100 | floor) / 10) s";

def sentence:
    if .event == "task" then "task \(.task[0:12]) is \(.state)"
    elif .event == "image" then "guest image: \(.step)"
    elif .event == "lease" then
        { accepted: "takes the task", connected: "dials out to the publisher: the tunnel stands", measuring: "measures the machine from inside",
          proposed: "proposes", agreed: "agrees to the price", live: "the lease is live",
          interrupted: "the tunnel is cut", closing: "stops the machine", settled: "sees the settlement in a block" }[.stage] // .stage
        + (if .note == "" or .stage == "settled" then "" else ": \(.note)" end)
    elif .event == "boot" then "machine: \(.step), \(.elapsed_ms | seconds) after the start"
    elif .event == "benchmark" and .figures != null then .figures
        | "measured in \(.took_ms | seconds): \(.cores) core of \(.core_mhz | group) MHz; memory \(.memory_mib) MiB at \(.memory_mb_s | group) MB/s;",
        "  disk written at \(.disk_write_mb_s | group) and read at \(.disk_read_mb_s | group) MB/s; "
        + "network \(.down_kbit_s / 1000 | floor | group) Mbit/s down, \(.up_kbit_s / 1000 | floor | group) up"
    elif .event == "proposal" then
        "proposes, sealed to the node's key: \(.rates.cpu_msat_per_ghz_hour / 1000 | floor | group) sat a GHz hour, "
        + "\(.rates.memory_msat_per_gib_hour / 1000 | floor | group) a GiB hour of memory, …",
        "  with \(.capacity_sat | sat) in a channel"
    elif .event == "notice" then .text
    else empty end;

def shown($who):
    # Each stage is told by the side that brings it about.
    if .event == "lease" then
        if $who == "node" then .stage | IN("accepted", "connected", "agreed", "closing", "settled") else .stage | IN("measuring", "live", "settled") end
    elif .event == "task" then $who == "node" and .state == "open"
    else true end;

fromjson? | . as $event
| [ (.at_ms // ""), $who ] as $head
| if .event == "paid" then [$head[], "paid", .number, .paid_sat, .owed]
  elif .error? then [$head[], "text", .error.message]
  elif shown($who) then sentence as $text | [$head[], "text", $text]
  else empty end
| map(tostring) | join("\u001f")
