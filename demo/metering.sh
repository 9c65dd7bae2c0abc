# A thousand reports through a crash, an outage and a shutdown, and the bill at the end. Sourced by demo/run.

# Waits until the main program has so many reports taken.
until_taken() {
    until_true grep -q "^$1 reports" "$work/program"
    grep "^$1 reports" "$work/program" | quote
}
# Whether records of three hours are sealed and not billed.
outage_shows() { [ "$("$bin/tollgate" usage --format csv | grep -c ',sealed,')" -ge 6 ]; }
nothing_waits() { ! "$bin/tollgate" usage --format csv | grep -q ',sealed,'; }

say "The main program reports usage, without an SDK"
export TOLLGATE_PRODUCT_CODE=prod-demo TOLLGATE_PUBLIC_KEYS=1=$work/keys/prod-demo/1.pem TOLLGATE_STATE_DIR=$work/state-3
export TOLLGATE_DIMENSIONS=requests,gb,jobs TOLLGATE_METERING_PERIOD=${hour_seconds}s TOLLGATE_STRAGGLER_WAIT=500ms TOLLGATE_SUBMIT_JITTER=0s
show tollgate run
start "$bin/tollgate" run 2>"$work/sidecar.log"
sidecar=$pid
until_true "$bin/tollgate" healthcheck
show "POST http://$TOLLGATE_LISTEN/v1/usage {\"dimension\":\"gb\",\"quantity\":\"0.734512\"}"
start python3 demo/program.py "http://$TOLLGATE_LISTEN/v1/usage" "$work/reported.json" >"$work/program"
program=$pid
until_taken 300

say "kill -9, in the middle of it"
show kill -9 "$sidecar"
kill -KILL "$sidecar"
wait "$sidecar" 2>/dev/null || true
until_true grep -q "^no answer" "$work/program"
grep "^no answer" "$work/program" | head -1 | quote
show tollgate run
start "$bin/tollgate" run 2>"$work/sidecar.log"
sidecar=$pid
until_true grep -q "ledger is open" "$work/sidecar.log"
grep "ledger is open" "$work/sidecar.log" | quote
until_taken 500

say "AWS is down for two hours; the main program does not notice"
admin POST faults '{"operation":"MeterUsage","kind":"unavailable-page"}' >"$work/faults"
until_true outage_shows
show tollgate usage
"$bin/tollgate" usage | grep -E "^ *(id|[0-9]+ +sealed)" | quote 120

say "AWS is back; of the next two answers none arrives, though AWS has billed"
admin DELETE faults >"$work/faults"
admin POST faults '{"operation":"MeterUsage","kind":"reply-lost","count":2}' >"$work/faults"
until_true nothing_waits
grep -c "not delivered yet" "$work/sidecar.log" | sed 's/^/   | attempts that came to nothing: /'
wait "$program"
until_taken 1000

say "Shutdown: the open hour is sealed and delivered"
show kill -TERM "$sidecar"
kill -TERM "$sidecar"
wait "$sidecar"
echo "   the sidecar ended with $?"

say "The bill"
admin GET account >"$work/account.json"
admin GET calls >"$work/calls.json"
python3 demo/bill.py "$work/reported.json" "$work/account.json" "$work/calls.json"
